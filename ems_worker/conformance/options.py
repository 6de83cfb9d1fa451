"""Checks of the optional calls: batches, STOP, status, capacity."""

import collections
import math
import time

from ems_worker.conformance import calls, check, kit, messages, starting
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_OPEN = (pb.SIMULATION_STATE_QUEUED, pb.SIMULATION_STATE_RUNNING)
_AT_ONCE_SECONDS = 5.0


async def partial_batch(session: kit.Session) -> None:
    """In a batch every command has its own response, and a bad command doesn't fail the others."""
    known = await session.ended()
    first, twice, last, nameless = (session.command() for _ in range(4))
    nameless.simulation_id = ""
    batch = [first, starting.changed(known), nameless, twice, twice, last]
    responses, code, message = await session.rpc.start_all(batch)
    kit.optional("StartSimulations", code)
    check.require(code == "OK", f"a batch with two bad commands failed as a whole with {code} ({message})")
    replies = [(response.simulation_id, calls.read(response)) for response in responses]
    counts = collections.Counter((name, reply.code) for name, reply in replies)
    for command in (first, twice, last):
        if counts[command.simulation_id, calls.ACCEPTED]:
            session.accepted[command.simulation_id] = command
    refused = [reply for name, reply in replies if not name]
    check.require(
        len(refused) == 1 and refused[0].code not in (calls.ACCEPTED, calls.ALREADY_EXISTS),
        f"a command without a simulation_id must get a single response, REJECTED; it got {_list(refused)}",
    )
    expected = {
        (first.simulation_id, calls.ACCEPTED): 1,
        (known.simulation_id, "FAILED_PRECONDITION"): 1,
        (twice.simulation_id, calls.ACCEPTED): 1,
        (twice.simulation_id, calls.ALREADY_EXISTS): 1,
        (last.simulation_id, calls.ACCEPTED): 1,
    }
    got = {key: count for key, count in counts.items() if key[0]}
    check.require(got == expected, f"expected {_pairs(expected)}; got {_pairs(got)}")
    await session.ends_of([first.simulation_id, twice.simulation_id, last.simulation_id])


async def stop_unknown(session: kit.Session) -> None:
    """STOP of an unknown id is NOT_FOUND."""
    name = session.new_id()
    response, code, message = await session.stop(name)
    not_found = code == "NOT_FOUND" or (response is not None and response.state == pb.SIMULATION_STATE_NOT_FOUND)
    state = f" with the state {pb.SimulationState.Name(response.state)}" if response is not None else f" ({message})"
    check.require(not_found, f"STOP of an unknown run was answered {code}{state} instead of NOT_FOUND")


async def stop_running(session: kit.Session) -> None:
    """STOP ends a running run with sim.run_failed of the kind stopped."""
    await session.stop(session.new_id())
    name = (await session.begin_long()).simulation_id
    session.require_open(name)
    stopped, code, message = await session.stop(name)
    check.require(code == "OK", f"STOP of a running run was answered {code} ({message})")
    end = await session.end_of(name)
    if stopped is not None and stopped.state == pb.SIMULATION_STATE_COMPLETED:
        raise check.Skipped("the run completed before STOP: give --long-config a run of some seconds")
    check.require(end.kind == messages.FAILED, "STOP was answered OK, but the run completed nevertheless")
    kind = end.payload.get("error_kind")
    check.require(kind == "stopped", f"the stopped run's error_kind is {kind!r} instead of 'stopped'")
    again, code, message = await session.stop(name)
    check.require(code == "OK" and again is not None, f"STOP of the same run again was answered {code} ({message})")
    assert again is not None
    state = pb.SimulationState.Name(again.state)
    check.require(
        again.state == pb.SIMULATION_STATE_FAILED, f"STOP of a failed run was answered with the state {state}"
    )


async def status(session: kit.Session) -> None:
    """GetSimulationStatus has one status for each id: NOT_FOUND, open, or the same as the run's last event."""
    ended = (await session.ended()).simulation_id
    unknown = session.new_id()
    _, code, _ = await session.rpc.status([unknown])
    kit.optional("GetSimulationStatus", code)
    running = (await session.begin_long()).simulation_id
    statuses, code, message = await session.rpc.status([ended, unknown, running])
    check.require(code == "OK", f"it was answered {code} ({message})")
    by_id = {status.simulation_id: status for status in statuses}
    check.require(
        len(statuses) == 3 and set(by_id) == {ended, unknown, running},
        f"asked for 3 ids, the statuses are of {', '.join(status.simulation_id for status in statuses) or 'none'}",
    )
    _require_state(by_id[unknown], "an unknown run", (pb.SIMULATION_STATE_NOT_FOUND,))
    _require_same(by_id[ended], await session.end_of(ended))
    sha = session.accepted[ended].config_sha
    check.require(by_id[ended].config_sha in ("", sha), f"config_sha is {by_id[ended].config_sha!r}, not {sha!r}")
    session.require_open(running)
    await session.dismiss(running)
    _require_state(by_id[running], "a run that has not ended", _OPEN)


async def capacity(session: kit.Session) -> None:
    """WatchCapacity sends the number of slots at once, and again when a run takes or frees a slot."""
    async with session.rpc.capacity() as watch:
        first, code, message = await watch.next(_AT_ONCE_SECONDS)
        kit.optional("WatchCapacity", code)
        check.require(first is not None, f"the first capacity must be sent at once; got {code} ({message})")
        assert first is not None
        check.require(first.slots > 0, f"slots is {first.slots}: no run could ever start")
        check.require(first.in_use >= 0 and first.queued >= 0, f"in_use {first.in_use}, queued {first.queued}")
        required = kit.LARGE_BYTES
        enough = first.max_message_bytes == 0 or first.max_message_bytes >= required
        check.require(enough, f"max_message_bytes is {first.max_message_bytes}: a configuration may have {required}")
        name = (await session.begin_long()).simulation_id
        second, code, message = await watch.next(session.options.timeout)
        check.require(second is not None, f"no capacity came when a run began: {code} ({message})")
        await session.dismiss(name)


async def nothing_left(session: kit.Session) -> None:
    """Every accepted run has ended once, and none of them takes a slot."""
    await session.ended()
    await session.ends_of(session.accepted)
    await session.settled()
    for name in session.accepted:
        ends = {event.kind for event in session.bus.events_of(name) if event.is_end}
        check.require(len(ends) == 1, f"{name} ended as {' and as '.join(sorted(ends))}")
    names = list(session.accepted)
    statuses, code, message = await session.rpc.status(names)
    if code != calls.UNIMPLEMENTED:
        check.require(code == "OK", f"GetSimulationStatus of {len(names)} runs was answered {code} ({message})")
        left = [status.simulation_id for status in statuses if status.state in (*_OPEN, pb.SIMULATION_STATE_PAUSED)]
        check.require(not left, f"these runs ended by their events, but not by their status: {', '.join(left)}")
    await _slots_given_back(session)


async def _slots_given_back(session: kit.Session) -> None:
    deadline = time.monotonic() + session.options.timeout
    async with session.rpc.capacity() as watch:
        before = session.busy_before
        taken = before + 1
        while taken > before:
            now, code, _ = await watch.next(max(0.0, deadline - time.monotonic()))
            if code == calls.UNIMPLEMENTED:
                return
            check.require(now is not None, f"{taken} slots are taken or waited for; before the first run: {before}")
            assert now is not None
            taken = now.in_use + now.queued


def _require_state(status: pb.SimulationStatus, run: str, states: tuple[pb.SimulationState.ValueType, ...]) -> None:
    names = [pb.SimulationState.Name(state).removeprefix("SIMULATION_STATE_") for state in (status.state, *states)]
    check.require(status.state in states, f"the status of {run} is {names[0]} instead of {' or '.join(names[1:])}")


def _require_same(status: pb.SimulationStatus, end: messages.Event) -> None:
    """The status of an ended run agrees with its last event."""
    completed = end.kind == messages.COMPLETED
    state = pb.SIMULATION_STATE_COMPLETED if completed else pb.SIMULATION_STATE_FAILED
    _require_state(status, f"a run that ended in {end.kind}", (state,))
    expected = {name: value for name, value in end.payload.get("metrics", {}).items() if value is not None}
    metrics = dict(status.metrics)
    same = expected.keys() == metrics.keys() and all(
        metrics[name] == value or (math.isnan(value) and math.isnan(metrics[name])) for name, value in expected.items()
    )
    check.require(same, f"the status has the metrics {metrics}, the event had {expected}")
    kind = end.payload.get("error_kind", "")
    same = status.error_kind == kind
    check.require(same, f"the status has the error_kind {status.error_kind!r}, the event had {kind!r}")


def _list(replies: list[calls.Reply]) -> str:
    return " and ".join(str(reply) for reply in replies) or "none"


def _pairs(counts: dict[tuple[str, str], int]) -> str:
    pairs = sorted(f"{name} {code}" for (name, code), count in counts.items() for _ in range(count))
    return ", ".join(pairs) or "nothing"
