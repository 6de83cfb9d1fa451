"""How long an idle worker takes to start a run and to report its end: `python -m benchmarks.latency`."""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import orchestrator, worker
from benchmarks.worker import Worker
from tests.support import wait

# An idle system: everything that follows from one experiment is over when the next begins.
_REST_SECONDS = 0.5
# The first experiments pay for what is loaded once.
_WARM = 2
_LIMIT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Latencies:
    """In seconds, of each experiment of one job.

    `starts`: from the publication of the plan until the orchestrator receives the start call. `ends`: from the
    publication of the event of its run until its terminal status is received.
    """

    starts: list[float]
    ends: list[float]


async def measure(times: int) -> Latencies:
    """The latencies of so many experiments, one after another."""
    starts: list[float] = []
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        async with worker.started(Path(scratch), silent=True) as running:
            await wait.let_pass(1.0)
            for number in range(_WARM + times):
                name = f"one-{number}"
                began = time.time()
                await running.connection.publish("ems.experiment.submit", worker.json_of(worker.plan(name, 1)))
                starts.append(await next_start(running) - began)
                began = time.time()
                await running.connection.publish("sim.run_completed", completed(f"{name}-p000000-r000-a1"))
                ends.append(await asyncio.wait_for(running.statuses.of(name), _LIMIT_SECONDS) - began)
                await wait.let_pass(_REST_SECONDS)
    return Latencies(starts[_WARM:], ends[_WARM:])


async def next_start(running: Worker) -> float:
    """When the orchestrator received the first start call since it was last asked; returns when all is at rest."""
    async with asyncio.timeout(_LIMIT_SECONDS):
        while True:
            await wait.let_pass(_REST_SECONDS)
            first, _ = await running.orchestrator.times()
            if first:
                return first


def completed(simulation_id: str) -> bytes:
    """The event of the end of a run."""
    metrics = {name: float(number) for number, name in enumerate(orchestrator.METRICS)}
    return json.dumps({"simulation_id": simulation_id, "metrics": metrics}).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    found = asyncio.run(measure(parser.parse_args().times))
    for what, seconds in (("plan to start", found.starts), ("event to status", found.ends)):
        print(f"{what:15} median {1000 * statistics.median(seconds):5.1f} ms, at most {1000 * max(seconds):5.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
