"""What a worker costs that does nothing: `python -m benchmarks.starting` measures starts, idling and imports."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import structlog

from benchmarks import orchestrator, worker
from ems_worker.settings import private
from tests.support import desk as desks
from tests.support import servers
from tests.support.desk import Desk

_REPLICATES = 10
_ENDED = (
    "UPDATE runs SET state = 'completed', submitted_ms = 1, started_ms = 2, finished_ms = 3, job_revision = 1, "
    "metrics = '{\"population\": 1.5}', ended_seq = point * 10 + replicate + 1 WHERE experiment = :key",
    "UPDATE experiments SET state = 'completed', finished_ms = 3, ended_seq = jobs, published_seq = jobs, "
    "revision = 1, published_revision = 1, settled_round = 1 WHERE key = :key",
)


async def start_seconds(rounds: int = 3, ended: int = 1_000_000, pending: int = 500_000) -> float:
    """The median from the start of the process until it is ready, with so many jobs in the manifest."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        await _manifest(whole, ended, pending)
        for number in range(rounds):
            folder = Path(scratch) / str(number)
            shutil.copytree(whole, folder / "data")
            os.sync()
            async with (
                servers.NatsServer(folder / "nats") as server,
                orchestrator.started(folder, None, batches=True, slots=1000) as accepting,
            ):
                began = time.perf_counter()
                # On hold, so that it starts none of the pending jobs.
                async with worker.running(folder, server.url, accepting, EMS_HOLD="true"):
                    found.append(time.perf_counter() - began)
            shutil.rmtree(folder)
    return statistics.median(found)


async def idle_percent(seconds: float = 20.0) -> float:
    """How much of a core an idle worker uses."""
    with tempfile.TemporaryDirectory() as scratch:
        async with worker.started(Path(scratch)) as running:
            # What follows the start is over by then.
            await asyncio.sleep(3)
            before, began = _used_seconds(running.program.pid), time.perf_counter()
            await asyncio.sleep(seconds)
            return 100 * (_used_seconds(running.program.pid) - before) / (time.perf_counter() - began)


def import_ms(rounds: int = 7) -> float:
    """The median time of a process that only imports the client."""
    return _process_ms([sys.executable, "-c", "import ems_worker.client"], rounds)


def help_ms(rounds: int = 7) -> float:
    """The median time of `ems --help`."""
    return _process_ms([sys.executable, "-m", "ems_worker.cli.ems", "--help"], rounds)


def _process_ms(command: list[str], rounds: int) -> float:
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        found.append(1000 * (time.perf_counter() - began))
    # The first one may compile modules.
    return statistics.median(found[1:])


def _used_seconds(pid: int) -> float:
    """The CPU time of all threads of a process, as exactly as the scheduler counts it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _manifest(folder: Path, ended: int, pending: int) -> None:
    """A manifest of one experiment that has ended, and one of which nothing has started."""
    private.data_directory(folder, ())
    async with Desk.open(folder, max_jobs=2 * (ended + pending)) as desk:
        keys = {}
        for name, jobs in (("ended", ended), ("pending", pending)):
            span = {"range": {"start": 0, "stop": jobs // _REPLICATES - 1, "step": 1}}
            plan = desks.plan(name, replicates=_REPLICATES, metrics_to_track=["population"])
            keys[name] = (await desk.begin({**plan, "parameter_space": {"food": span}})).key
    with contextlib.closing(sqlite3.connect(folder / "manifest.db")) as database, database:
        for statement in _ENDED:
            database.execute(statement, {"key": keys["ended"]})
        database.execute("UPDATE submissions SET published = 1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found = {
        "start_seconds": asyncio.run(start_seconds(rounds)),
        "idle_percent": asyncio.run(idle_percent()),
        "import_ms": import_ms(),
        "help_ms": help_ms(),
    }
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
