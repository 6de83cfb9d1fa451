"""Checks of the calls that an orchestrator may leave out: batches, STOP, status, capacity."""

import collections
import math
import time

from ems_worker.conformance import calls, check, kit, messages, starting
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_OPEN = (pb.SIMULATION_STATE_QUEUED, pb.SIMULATION_STATE_RUNNING)
_AT_ONCE_SECONDS = 5.0


async def partial_batch(subject: kit.Kit) -> None:
    """In a batch every command has its own response: one bad command doesn't fail its neighbours."""
    known = await subject.ended()
    first, twice, last, nameless = (subject.command() for _ in range(4))
    nameless.simulation_id = ""
    batch = [first, starting.changed(known), nameless, twice, twice, last]
    responses, code, words = await subject.rpc.start_all(batch)
    kit.optional("StartSimulations", code)
    check.require(code == "OK", f"a batch with two bad commands failed as a whole with {code} ({words})")
    came = collections.Counter((one.simulation_id, calls.verdict(one).verdict) for one in responses)
    for command in (first, twice, last):
        if came[command.simulation_id, calls.ACCEPTED]:
            subject.accepted[command.simulation_id] = command
    refused = [calls.verdict(one) for one in responses if not one.simulation_id]
    check.require(
        len(refused) == 1 and refused[0].verdict not in (calls.ACCEPTED, calls.ALREADY_EXISTS),
        f"a command without a simulation_id belongs REJECTED in one response; it got {_list(refused)}",
    )
    expected = {
        (first.simulation_id, calls.ACCEPTED): 1,
        (known.simulation_id, "FAILED_PRECONDITION"): 1,
        (twice.simulation_id, calls.ACCEPTED): 1,
        (twice.simulation_id, calls.ALREADY_EXISTS): 1,
        (last.simulation_id, calls.ACCEPTED): 1,
    }
    got = {key: count for key, count in came.items() if key[0]}
    check.require(got == expected, f"expected {_pairs(expected)}; came {_pairs(got)}")
    await subject.ends_of([first.simulation_id, twice.simulation_id, last.simulation_id])


async def stop_unknown(subject: kit.Kit) -> None:
    """STOP of an id that nobody started says so."""
    name = subject.new_id()
    response, code, words = await subject.stop(name)
    says_so = code == "NOT_FOUND" or (response is not None and response.state == pb.SIMULATION_STATE_NOT_FOUND)
    state = f" with the state {pb.SimulationState.Name(response.state)}" if response is not None else f" ({words})"
    check.require(says_so, f"STOP of an unknown run was answered {code}{state} instead of NOT_FOUND")


async def stop_running(subject: kit.Kit) -> None:
    """STOP ends a running run in sim.run_failed of the kind stopped."""
    await subject.stop(subject.new_id())
    name = (await subject.begin_long()).simulation_id
    subject.require_open(name)
    stopped, code, words = await subject.stop(name)
    check.require(code == "OK", f"STOP of a running run was answered {code} ({words})")
    end = await subject.end_of(name)
    if stopped is not None and stopped.state == pb.SIMULATION_STATE_COMPLETED:
        raise check.Skipped("the run completed before STOP: give --long-config a run of some seconds")
    check.require(end.kind == messages.FAILED, "STOP was answered OK, and the run completed all the same")
    kind = end.payload.get("error_kind")
    check.require(kind == "stopped", f"the stopped run's error_kind is {kind!r} instead of 'stopped'")
    again, code, words = await subject.stop(name)
    check.require(code == "OK" and again is not None, f"STOP of the same run again was answered {code} ({words})")
    assert again is not None
    state = pb.SimulationState.Name(again.state)
    check.require(again.state == pb.SIMULATION_STATE_FAILED, f"STOP of a run that has failed says that it is {state}")


async def status(subject: kit.Kit) -> None:
    """GetSimulationStatus has one status for each id: NOT_FOUND, open, or what the run's last event said."""
    ended = (await subject.ended()).simulation_id
    unknown = subject.new_id()
    _, code, _ = await subject.rpc.status([unknown])
    kit.optional("GetSimulationStatus", code)
    running = (await subject.begin_long()).simulation_id
    statuses, code, words = await subject.rpc.status([ended, unknown, running])
    check.require(code == "OK", f"it was answered {code} ({words})")
    by_id = {one.simulation_id: one for one in statuses}
    check.require(
        len(statuses) == 3 and set(by_id) == {ended, unknown, running},
        f"asked for 3 ids, the statuses are of {', '.join(one.simulation_id for one in statuses) or 'none'}",
    )
    _require_state(by_id[unknown], "a run that nobody started", (pb.SIMULATION_STATE_NOT_FOUND,))
    _require_same(by_id[ended], await subject.end_of(ended))
    sha = subject.accepted[ended].config_sha
    check.require(by_id[ended].config_sha in ("", sha), f"config_sha is {by_id[ended].config_sha!r}, not {sha!r}")
    subject.require_open(running)
    await subject.dismiss(running)
    _require_state(by_id[running], "a run that has begun and not ended", _OPEN)


async def capacity(subject: kit.Kit) -> None:
    """WatchCapacity tells at once how many slots there are, and again when a run takes one and gives it back."""
    async with subject.rpc.capacity() as watch:
        first, code, words = await watch.next(_AT_ONCE_SECONDS)
        kit.optional("WatchCapacity", code)
        check.require(first is not None, f"the first capacity belongs sent at once; came {code} ({words})")
        assert first is not None
        check.require(first.slots > 0, f"slots is {first.slots}: nothing could ever run")
        check.require(first.in_use >= 0 and first.queued >= 0, f"in_use {first.in_use}, queued {first.queued}")
        least = kit.LARGE_BYTES
        enough = first.max_message_bytes == 0 or first.max_message_bytes >= least
        check.require(enough, f"max_message_bytes is {first.max_message_bytes}: a configuration may have {least}")
        name = (await subject.begin_long()).simulation_id
        second, code, words = await watch.next(subject.options.timeout)
        check.require(second is not None, f"no capacity came when a run began: {code} ({words})")
        await subject.dismiss(name)


async def nothing_left(subject: kit.Kit) -> None:
    """Every accepted run has ended, once, and no slot is taken by any of them."""
    await subject.ended()
    await subject.ends_of(subject.accepted)
    await subject.settled()
    for name in subject.accepted:
        ends = {one.kind for one in subject.bus.of(name) if one.is_end}
        check.require(len(ends) == 1, f"{name} ended as {' and as '.join(sorted(ends))}")
    names = list(subject.accepted)
    statuses, code, words = await subject.rpc.status(names)
    if code != calls.UNIMPLEMENTED:
        check.require(code == "OK", f"GetSimulationStatus of {len(names)} runs was answered {code} ({words})")
        left = [one.simulation_id for one in statuses if one.state in (*_OPEN, pb.SIMULATION_STATE_PAUSED)]
        check.require(not left, f"their end was told, and their status says that they go on: {', '.join(left)}")
    await _slots_given_back(subject)


async def _slots_given_back(subject: kit.Kit) -> None:
    deadline = time.monotonic() + subject.options.timeout
    async with subject.rpc.capacity() as watch:
        before = subject.busy_before
        taken = before + 1
        while taken > before:
            now, code, _ = await watch.next(max(0.0, deadline - time.monotonic()))
            if code == calls.UNIMPLEMENTED:
                return
            check.require(
                now is not None, f"{taken} slots are taken or waited for; before the first run it was {before}"
            )
            assert now is not None
            taken = now.in_use + now.queued


def _require_state(one: pb.SimulationStatus, what: str, states: tuple[pb.SimulationState.ValueType, ...]) -> None:
    names = [pb.SimulationState.Name(state).removeprefix("SIMULATION_STATE_") for state in (one.state, *states)]
    check.require(one.state in states, f"the status of {what} is {names[0]} instead of {' or '.join(names[1:])}")


def _require_same(one: pb.SimulationStatus, end: messages.Event) -> None:
    """The status of an ended run says what its event said."""
    completed = end.kind == messages.COMPLETED
    state = pb.SIMULATION_STATE_COMPLETED if completed else pb.SIMULATION_STATE_FAILED
    _require_state(one, f"a run that ended in {end.kind}", (state,))
    metrics = {name: value for name, value in end.payload.get("metrics", {}).items() if value is not None}
    told = dict(one.metrics)
    same = metrics.keys() == told.keys() and all(
        told[name] == value or (math.isnan(value) and math.isnan(told[name])) for name, value in metrics.items()
    )
    check.require(same, f"the status has the metrics {told}, the event had {metrics}")
    kind = end.payload.get("error_kind", "")
    check.require(one.error_kind == kind, f"the status has the error_kind {one.error_kind!r}, the event had {kind!r}")


def _list(replies: list[calls.Reply]) -> str:
    return " and ".join(str(one) for one in replies) or "none"


def _pairs(counts: dict[tuple[str, str], int]) -> str:
    pairs = sorted(f"{name} {verdict}" for (name, verdict), count in counts.items() for _ in range(count))
    return ", ".join(pairs) or "nothing"
