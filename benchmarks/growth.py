"""Whether a job costs more in a larger experiment, or in many small ones: `python -m benchmarks.growth`."""

import argparse
import asyncio
import contextlib
import sqlite3
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import worker
from benchmarks.processes import Turn

# Experiments that together have the jobs of one.
PARTS = 10


@dataclass(frozen=True, slots=True)
class Size:
    """What experiments of one size took on one worker, and the bytes of its manifest for each of their jobs.

    The bytes are those beyond parameters and metrics.
    """

    turns: list[Turn]
    bytes_per_job: float

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU time a job."""
        return statistics.median(turn.cpu_us("worker") for turn in self.turns)

    @property
    def peak_mb(self) -> float:
        """The peak memory of the worker in megabytes."""
        return max(turn.peak_mb("worker") for turn in self.turns)


async def experiments(jobs: int, times: int = 1) -> Size:
    """So many experiments of so many jobs, one after another on a new worker."""
    with tempfile.TemporaryDirectory() as scratch:
        async with worker.started(Path(scratch)) as running:
            await running.run(worker.plan("warm", 100))
            empty = _size(running.data)
            turns = [await running.run(worker.plan(f"measured-{number}", jobs)) for number in range(times)]
            return Size(turns, (_size(running.data) - empty) / (jobs * times))


@dataclass(frozen=True, slots=True)
class Parts:
    """The same jobs in one experiment, and in ten at once; turn by turn on the same worker."""

    one: list[Turn]
    ten: list[Turn]


async def parts(jobs: int, times: int) -> Parts:
    """Measures both so many times in alternation."""
    found = Parts([], [])
    with tempfile.TemporaryDirectory() as scratch:
        async with worker.started(Path(scratch)) as running:
            await running.run(worker.plan("warm", 100))
            for number in range(times):
                found.one.append(await running.run(worker.plan(f"one-{number}", jobs)))
                plans = [worker.plan(f"ten-{number}-{part}", jobs // PARTS) for part in range(PARTS)]
                found.ten.append(await running.run(*plans))
    return found


def _size(data: Path) -> int:
    """The bytes of the database in use, without its metrics and parameters."""
    with contextlib.closing(sqlite3.connect(data / "manifest.db")) as database:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        [[pages, free, page]] = database.execute(
            "SELECT page_count, freelist_count, page_size "
            "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        ).fetchall()
        [[metrics]] = database.execute("SELECT coalesce(sum(length(metrics)), 0) FROM runs").fetchall()
        [[params]] = database.execute("SELECT coalesce(sum(length(params)), 0) FROM points").fetchall()
    return int((pages - free) * page - metrics - params)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    for jobs in options.jobs:
        size = asyncio.run(experiments(jobs, options.times))
        rate = statistics.median(turn.rate for turn in size.turns)
        print(
            f"{jobs:9,} jobs: {size.cpu_us:.0f} us CPU a job, {rate:,.0f} jobs/s, peak {size.peak_mb:.0f} MB, "
            f"{size.bytes_per_job:.0f} bytes a job",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
