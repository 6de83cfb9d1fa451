"""The orchestrator's client, connected to a scripted server in another process."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.lifecycle.outcome import Answer, Call
from ems_worker.core.wire import Start
from tests.support import servers, wait

MODULE = "tests.support.scripted_orchestrator"


@contextlib.asynccontextmanager
async def pair(
    log: Path, *arguments: str, deadline: float = 10.0, window: int = 64
) -> AsyncIterator[tuple[servers.GrpcProgram, Orchestrator]]:
    """A scripted orchestrator with these arguments, and a client that is connected to it."""
    async with servers.GrpcProgram(MODULE, arguments, log=log) as program:
        async with connected(program, deadline=deadline, window=window) as client:
            yield program, client


@contextlib.asynccontextmanager
async def connected(program: servers.GrpcProgram, *, deadline: float, window: int) -> AsyncIterator[Orchestrator]:
    """A client that is connected to this program."""
    async with Orchestrator.connect(program.target, deadline_seconds=deadline, window=window) as client:
        await wait.until(client.ready, what="the channel")
        yield client


async def answers(
    client: Orchestrator, starts: Sequence[Start], wanted: Callable[[str], bool] = lambda _: True
) -> list[Answer]:
    """Has the client start these runs, and returns the last answer to each, in order."""
    last: dict[str, Answer] = {}

    def report(call: Call) -> None:
        last.update({answer.simulation_id: answer for answer in call.answers})

    await client.start(starts, report, wanted)
    return [last[start.simulation_id] for start in starts]


def start(name: str, *, config: bytes = b"a: 1\n", **script: str) -> Start:
    """A start command whose labels script its answer; with `alone` it stays out of batches."""
    return Start(name, config, "sha", 2**64 - 1, "reef", script, alone="alone" in script)


async def calls(client: Orchestrator) -> dict[str, float | None]:
    """The number of calls by name, and as "open" the maximum that were open at once."""
    statuses = await client.status(["calls"])
    assert statuses is not None
    signal = statuses["calls"]
    assert signal is not None
    return dict(signal.metrics or {})
