"""Jobs a second of the worker, and its CPU time a job, beside the raw calls: `python -m benchmarks.throughput`."""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import orchestrator, worker
from benchmarks.worker import Turn
from tests.support import servers

# What is measured in each round, in this order.
KINDS = ("raw unary", "worker unary", "raw batches", "worker batches")
BATCH = 256


async def raw(folder: Path, jobs: int, batch: int) -> Turn:
    """The raw calls, to an orchestrator that publishes nothing."""
    async with servers.NatsServer(folder / "nats") as server:
        url = None if orchestrator.compiled() else server.url
        async with orchestrator.started(folder, url) as accepting:
            options = ["--target", accepting.target, "--jobs", str(jobs), "--batch", str(batch)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.raw", *options, stdout=asyncio.subprocess.PIPE
            )
            printed, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(printed)
    return Turn(jobs, found["seconds"], found["cpu_seconds"])


async def managed(folder: Path, jobs: int, *, batches: bool) -> Turn:
    """The worker, from a plan's publication to its terminal status."""
    async with worker.started(folder, batches=batches) as running:
        # The first experiment pays for what is loaded once.
        await running.run(worker.plan("warm", 100))
        return await running.run(worker.plan("measured", jobs))


async def rounds(number: int, jobs: int, kinds: Sequence[str] = KINDS) -> Mapping[str, list[Turn]]:
    """So many rounds of each kind, interleaved."""
    measured: dict[str, list[Turn]] = {kind: [] for kind in kinds}
    for _ in range(number):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as scratch:
                what, _, how = kind.partition(" ")
                if what == "raw":
                    turn = await raw(Path(scratch), jobs * (1 if how == "unary" else 4), 1 if how == "unary" else BATCH)
                else:
                    turn = await managed(Path(scratch), jobs, batches=how == "batches")
            measured[kind].append(turn)
            print(f"{kind:15} {turn.rate:8,.0f} jobs/s {turn.cpu_us:6.0f} us CPU a job", file=sys.stderr, flush=True)
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    for kind, turns in asyncio.run(rounds(options.rounds, options.jobs, options.kinds)).items():
        rate, cpu = (statistics.median(getattr(turn, name) for turn in turns) for name in ("rate", "cpu_us"))
        print(f"{kind:15} median {rate:8,.0f} jobs/s {cpu:6.0f} us CPU a job")
    return 0


if __name__ == "__main__":
    sys.exit(main())
