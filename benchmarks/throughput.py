"""Jobs a second of the worker, and its CPU time a job, beside the raw calls: `python -m benchmarks.throughput`."""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import orchestrator, worker
from benchmarks.processes import Meter, Turn, Usage
from tests.support import servers

RAW_UNARY: Final = "raw unary"
RAW_BATCHES: Final = "raw batches"
UNARY: Final = "unary"
BATCHES: Final = "batches"
# What is measured in each round, in this order.
KINDS: Final = (RAW_UNARY, UNARY, RAW_BATCHES, BATCHES)
# The process whose cost is that of the kind.
MEASURED: Final = {RAW_UNARY: "client", RAW_BATCHES: "client", UNARY: "worker", BATCHES: "worker"}
BATCH: Final = 256
# Raw calls of whole batches are over too soon to be measured well.
_MORE_RAW: Final = 4


async def turn(kind: str, jobs: int) -> Turn:
    """One turn of this kind, with servers of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if kind == RAW_UNARY:
            return await raw(folder, jobs, 1)
        if kind == RAW_BATCHES:
            return await raw(folder, _MORE_RAW * jobs, BATCH)
        return await managed(folder, jobs, batches=kind == BATCHES)


async def raw(folder: Path, jobs: int, batch: int) -> Turn:
    """The raw calls, to an orchestrator that publishes nothing."""
    async with orchestrator.started(folder, None) as accepting:
        meter = Meter({"orchestrator": accepting.program.pid})
        options = ["--target", accepting.target, "--jobs", str(jobs), "--batch", str(batch)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.raw", *options, cwd=servers.ROOT, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        used = meter.read()
    assert process.returncode == 0
    found = json.loads(printed)
    return Turn(jobs, found["seconds"], {**used, "client": Usage(found["cpu_seconds"], found["peak_bytes"])})


async def managed(folder: Path, jobs: int, *, batches: bool) -> Turn:
    """The worker, from a plan's publication to its terminal status."""
    async with worker.started(folder, batches=batches) as running:
        # The first experiment pays for what is loaded once.
        await running.run(worker.plan("warm", 100))
        return await running.run(worker.plan("measured", jobs))


def shown(kind: str, rate: float, cpu_us: float) -> str:
    """A line for people."""
    return f"{kind:12} {rate:8,.0f} jobs/s {cpu_us:6.0f} us CPU a job"


async def rounds(number: int, jobs: int, kinds: Sequence[str] = KINDS) -> dict[str, list[Turn]]:
    """So many rounds of each kind, interleaved."""
    measured: dict[str, list[Turn]] = {kind: [] for kind in kinds}
    for _ in range(number):
        for kind in kinds:
            taken = await turn(kind, jobs)
            measured[kind].append(taken)
            print(shown(kind, taken.rate, taken.cpu_us(MEASURED[kind])), file=sys.stderr, flush=True)
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    for kind, turns in asyncio.run(rounds(options.rounds, options.jobs, options.kinds)).items():
        rate = statistics.median(turn.rate for turn in turns)
        print("median", shown(kind, rate, statistics.median(turn.cpu_us(MEASURED[kind]) for turn in turns)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
