"""How long an idle worker takes: `python -m benchmarks.latency`. It needs the compiled orchestrator."""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nats
from nats.aio.msg import Msg

from benchmarks import worker
from benchmarks.worker import Worker

# An idle system: everything that follows from one experiment is over when the next begins.
_REST_SECONDS = 0.3
TERMINAL = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Latencies:
    """Medians in milliseconds.

    `start`: from the publication of a plan of one job until its start call is received. `end`: from the publication of
    its event until its terminal status is received. `drain`: the same for the last event of an experiment.
    """

    start: float
    end: float
    drain: float


class Statuses:
    """When the terminal statuses of experiments were received, in seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._received: dict[str, asyncio.Future[float]] = {}

    def of(self, experiment_id: str) -> asyncio.Future[float]:
        return self._received.setdefault(experiment_id, asyncio.get_running_loop().create_future())

    async def receive(self, message: Msg) -> None:
        now = time.time()
        document = json.loads(message.data)
        future = self.of(document["experiment_id"])
        if document["state"] in TERMINAL and not future.done():
            future.set_result(now)


async def idle(folder: Path, times: int) -> tuple[list[float], list[float]]:
    """The times of `start` and of `end` in seconds, of so many experiments."""
    starts: list[float] = []
    ends: list[float] = []
    async with worker.started(folder, silent=True) as running:
        connection, statuses = await nats.connect(running.server), Statuses()
        await connection.subscribe("ems.experiment.status.*", cb=statuses.receive)
        for number in range(times):
            name = f"one-{number}"
            began = time.time()
            await connection.publish("ems.experiment.submit", json.dumps(worker.plan(name, 1)).encode())
            await asyncio.sleep(_REST_SECONDS)
            first, _ = await running.orchestrator.times()
            starts.append(first - began)
            event = {"simulation_id": f"{name}-p000000-r000-a1", "metrics": {"population": 1.0}}
            began = time.time()
            await connection.publish("sim.run_completed", json.dumps(event).encode())
            ends.append(await asyncio.wait_for(statuses.of(name), 10) - began)
            await asyncio.sleep(_REST_SECONDS)
        await connection.close()
    # The first ones pay for what is loaded once.
    return starts[2:], ends[2:]


async def drained(folder: Path, jobs: int) -> float:
    """The seconds from the last event of an experiment to its terminal status."""
    async with worker.started(folder) as running:
        return await _drain(running, jobs)


async def _drain(running: Worker, jobs: int) -> float:
    connection, statuses = await nats.connect(running.server), Statuses()
    await connection.subscribe("ems.experiment.status.*", cb=statuses.receive)
    await running.run(worker.plan("drained", jobs))
    _, last = await running.orchestrator.times()
    ended = await statuses.of("drained")
    await connection.close()
    return ended - last


async def measure(times: int, jobs: int, drains: int) -> Latencies:
    """All latencies."""
    with tempfile.TemporaryDirectory() as scratch:
        starts, ends = await idle(Path(scratch), times)
    drain: list[float] = []
    for _ in range(drains):
        with tempfile.TemporaryDirectory() as scratch:
            drain.append(await drained(Path(scratch), jobs))
    return Latencies(*(1000 * statistics.median(seconds) for seconds in (starts, ends, drain)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--drains", type=int, default=1)
    options = parser.parse_args()
    found = asyncio.run(measure(options.times, options.jobs, options.drains))
    print(f"start {found.start:.1f} ms, end {found.end:.1f} ms, drain {found.drain:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
