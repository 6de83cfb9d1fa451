"""Checks of StartSimulation: the only required call, idempotent by simulation_id."""

import asyncio
import collections
import contextlib

from ems_worker.conformance import calls, check, configurations, kit, messages
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_CONNECTIONS = 10


async def start_accepted(session: kit.Session) -> None:
    """A new id is ACCEPTED."""
    command = session.command()
    reply = await session.rpc.start(command)
    if reply.code == calls.UNIMPLEMENTED:
        raise check.Failed("StartSimulation answers UNIMPLEMENTED: is fes.orchestrator.v1 served at this address?")
    check.require(reply.code == calls.ACCEPTED, f"a new run was answered {reply} instead of ACCEPTED")
    session.accepted[command.simulation_id] = command


async def run_ends(session: kit.Session) -> None:
    """An accepted run ends in one stored event."""
    command = await session.ended()
    end = await session.end_of(command.simulation_id)
    message = end.payload.get("message", "")
    check.require(
        end.kind == messages.COMPLETED,
        f"the run of the short configuration ended in {end.kind} ({message}): give --config one that can complete",
    )


async def known_while_running(session: kit.Session) -> None:
    """The id of a running run is ALREADY_EXISTS."""
    command = await session.begin_long()
    reply = await session.rpc.start(command)
    session.require_open(command.simulation_id)
    await session.dismiss(command.simulation_id)
    _require_known(reply, "a running run")


async def known_when_ended(session: kit.Session) -> None:
    """The id of an ended run is ALREADY_EXISTS."""
    command = await session.ended()
    _require_known(await session.rpc.start(command), "an ended run")


async def known_after_restart(session: kit.Session) -> None:
    """After a restart the ids of ended and of open runs are ALREADY_EXISTS, and an open run still ends in an event."""
    if session.options.restart is None:
        raise check.Skipped("give --restart-command, which stops the orchestrator and starts it again")
    running = await session.begin_long()
    session.open_at_restart.add(running.simulation_id)
    await session.options.restart()
    _require_known(await session.reachable(), "a run that had ended before the restart")
    _require_known(await session.rpc.start(running), "a run that was open at the restart")
    await session.dismiss(running.simulation_id)
    await session.end_of(running.simulation_id)


async def ten_connections(session: kit.Session) -> None:
    """The same new id at once on ten connections is ACCEPTED on one and ALREADY_EXISTS on nine."""
    command = session.command()
    async with contextlib.AsyncExitStack() as stack:
        address = session.options.orchestrator
        connections = [
            await stack.enter_async_context(calls.connect(address, kit.CONNECT_SECONDS)) for _ in range(_CONNECTIONS)
        ]
        replies = await asyncio.gather(*(rpc.start(command) for rpc in connections))
    codes = collections.Counter(reply.code for reply in replies)
    if codes[calls.ACCEPTED]:
        session.accepted[command.simulation_id] = command
    expected = {calls.ACCEPTED: 1, calls.ALREADY_EXISTS: _CONNECTIONS - 1}
    check.require(codes == expected, f"expected {_counts(expected)}; got {_counts(codes)}")


async def other_config_sha(session: kit.Session) -> None:
    """A known id with another config_sha is FAILED_PRECONDITION."""
    known = await session.ended()
    reply = await session.rpc.start(changed(known))
    check.require(
        reply.code == "FAILED_PRECONDITION",
        f"a known id with another config_sha was answered {reply} instead of FAILED_PRECONDITION",
    )


async def large_configuration(session: kit.Session) -> None:
    """A configuration of 3 MB is accepted, and its run completes."""
    command = session.command(configurations.padded(session.options.short, kit.LARGE_BYTES))
    end = await session.end_of(await session.begin(command))
    message = end.payload.get("message", "")
    check.require(
        end.kind == messages.COMPLETED, f"the short configuration with 3 MB of comments ended in {end.kind}: {message}"
    )


def changed(known: pb.StartSimulationCommand) -> pb.StartSimulationCommand:
    """A command with the same id and another configuration."""
    command = pb.StartSimulationCommand()
    command.CopyFrom(known)
    command.config_sha = known.config_sha[::-1]
    command.config += b"# changed\n"
    return command


def _require_known(reply: calls.Reply, run: str) -> None:
    check.require(reply.code == calls.ALREADY_EXISTS, f"the id of {run} was answered {reply} instead of ALREADY_EXISTS")


def _counts(codes: dict[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
