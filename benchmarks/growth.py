"""Whether a job costs more in a larger experiment: `python -m benchmarks.growth`."""

import argparse
import asyncio
import contextlib
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import worker
from benchmarks.worker import Turn


@dataclass(frozen=True, slots=True)
class Size:
    """What an experiment of `jobs` jobs took, and the bytes of the manifest for each, beyond parameters and metrics."""

    turn: Turn
    bytes_per_job: float


async def experiment(jobs: int) -> Size:
    """One experiment of so many jobs, on a new worker."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with worker.started(folder) as running:
            await running.run(worker.plan("warm", 100))
            empty = _size(running.data)
            turn = await running.run(worker.plan("measured", jobs))
            grown = _size(running.data) - empty
        return Size(turn, grown / jobs)


async def experiments(number: int, jobs: int) -> Turn:
    """So many experiments of so many jobs each, at once."""
    with tempfile.TemporaryDirectory() as scratch:
        async with worker.started(Path(scratch)) as running:
            await running.run(worker.plan("warm", 100))
            return await running.run(*(worker.plan(f"measured-{each}", jobs) for each in range(number)))


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
    for jobs in parser.parse_args().jobs:
        size = asyncio.run(experiment(jobs))
        peak = size.turn.peak_bytes / 1e6
        print(
            f"{jobs:9,} jobs: {size.turn.cpu_us:.0f} us CPU a job, {size.turn.rate:,.0f} jobs/s, peak {peak:.0f} MB, "
            f"{size.bytes_per_job:.0f} bytes a job",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
