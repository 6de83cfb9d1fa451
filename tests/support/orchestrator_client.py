"""The orchestrator's client, joined to a scripted server in another process."""

import contextlib
from collections.abc import AsyncIterator, Sequence
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
    """A client that is connected to it."""
    async with Orchestrator.connect(program.target, deadline_seconds=deadline, window=window) as client:
        await wait.until(client.ready, what="the channel")
        yield client


async def answers(client: Orchestrator, starts: Sequence[Start]) -> list[Answer]:
    """Has the client start these runs; the last answer to each, in order."""
    told: dict[str, Answer] = {}

    def hear(call: Call) -> None:
        told.update({answer.simulation_id: answer for answer in call.answers})

    await client.start(starts, hear)
    return [told[start.simulation_id] for start in starts]


def start(name: str, *, config: bytes = b"a: 1\n", **script: str) -> Start:
    """A start command whose labels are the script for its answer; with `alone` it stays out of batches."""
    return Start(name, config, "sha", 2**64 - 1, "reef", script, alone="alone" in script)


async def calls(client: Orchestrator) -> dict[str, float | None]:
    """How often each call was made, and under "open" the most that were open at once."""
    found = await client.status(["calls"])
    assert found is not None
    signal = found["calls"]
    assert signal is not None
    return dict(signal.metrics or {})
