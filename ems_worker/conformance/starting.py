"""Checks of StartSimulation: the one call that every orchestrator must have, idempotent by simulation_id."""

import asyncio
import collections
import contextlib

from ems_worker.conformance import calls, check, configurations, kit, messages
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_CONNECTIONS = 10


async def start_accepted(subject: kit.Kit) -> None:
    """A new id is ACCEPTED."""
    command = subject.command()
    reply = await subject.rpc.start(command)
    if reply.verdict == calls.UNIMPLEMENTED:
        raise check.Failed("StartSimulation answers UNIMPLEMENTED: is fes.orchestrator.v1 served at this address?")
    check.require(reply.verdict == calls.ACCEPTED, f"a new run was answered {reply} instead of ACCEPTED")
    subject.accepted[command.simulation_id] = command


async def run_ends(subject: kit.Kit) -> None:
    """An accepted run ends in one stored event."""
    command = await subject.ended()
    end = await subject.end_of(command.simulation_id)
    words = end.payload.get("message", "")
    check.require(
        end.kind == messages.COMPLETED,
        f"the run of the short configuration ended in {end.kind} ({words}): give --config one that can be completed",
    )


async def known_while_running(subject: kit.Kit) -> None:
    """A running run's id is ALREADY_EXISTS."""
    command = await subject.begin_long()
    reply = await subject.rpc.start(command)
    subject.require_open(command.simulation_id)
    await subject.dismiss(command.simulation_id)
    _require_known(reply, "a running run")


async def known_when_ended(subject: kit.Kit) -> None:
    """An ended run's id is ALREADY_EXISTS."""
    command = await subject.ended()
    _require_known(await subject.rpc.start(command), "an ended run")


async def known_after_restart(subject: kit.Kit) -> None:
    """After a restart the ids of ended and of open runs are ALREADY_EXISTS, and an open run still ends in an event."""
    if subject.options.restart is None:
        raise check.Skipped("give --restart-command, which stops the orchestrator and starts it again")
    running = await subject.begin_long()
    await subject.options.restart()
    _require_known(await subject.reachable(), "a run that had ended before the restart")
    _require_known(await subject.rpc.start(running), "a run that was open at the restart")
    await subject.dismiss(running.simulation_id)
    await subject.end_of(running.simulation_id)


async def ten_connections(subject: kit.Kit) -> None:
    """The same new id at once on ten connections is ACCEPTED on one and ALREADY_EXISTS on nine."""
    command = subject.command()
    async with contextlib.AsyncExitStack() as stack:
        address = subject.options.orchestrator
        opened = [
            await stack.enter_async_context(calls.connect(address, kit.CONNECT_SECONDS)) for _ in range(_CONNECTIONS)
        ]
        replies = await asyncio.gather(*(one.start(command) for one in opened))
    verdicts = collections.Counter(one.verdict for one in replies)
    if verdicts[calls.ACCEPTED]:
        subject.accepted[command.simulation_id] = command
    expected = {calls.ACCEPTED: 1, calls.ALREADY_EXISTS: _CONNECTIONS - 1}
    check.require(verdicts == expected, f"expected {_counts(expected)}; came {_counts(verdicts)}")


async def other_config_sha(subject: kit.Kit) -> None:
    """A known id with another config_sha is FAILED_PRECONDITION."""
    known = await subject.ended()
    reply = await subject.rpc.start(changed(known))
    check.require(
        reply.verdict == "FAILED_PRECONDITION",
        f"a known id with another config_sha was answered {reply} instead of FAILED_PRECONDITION",
    )


async def large_configuration(subject: kit.Kit) -> None:
    """A configuration of 3 MB is taken and run."""
    command = subject.command(configurations.padded(subject.options.short, kit.LARGE_BYTES))
    end = await subject.end_of(await subject.begin(command))
    words = end.payload.get("message", "")
    check.require(
        end.kind == messages.COMPLETED, f"the short configuration with 3 MB of comments ended in {end.kind}: {words}"
    )


def changed(known: pb.StartSimulationCommand) -> pb.StartSimulationCommand:
    """The start of the same id for other work."""
    command = pb.StartSimulationCommand()
    command.CopyFrom(known)
    command.config_sha = known.config_sha[::-1]
    command.config += b"# changed\n"
    return command


def _require_known(reply: calls.Reply, what: str) -> None:
    check.require(
        reply.verdict == calls.ALREADY_EXISTS, f"the id of {what} was answered {reply} instead of ALREADY_EXISTS"
    )


def _counts(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items()))
