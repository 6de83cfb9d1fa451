"""How long it takes to choose what to start among many live experiments: `python -m benchmarks.scheduling`.

The services of a worker run on a real manifest. Measured is the time from the wake-up of the dispatcher to its first
read of runs to claim, when it knows what each experiment may start; and the whole of it, with the claims on disk.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import structlog

from ems_worker.adapters.manifest import Manifest
from ems_worker.service import dispatch
from tests.support import desk as desks
from tests.support.desk import Desk

_NAME = "seaweed"
# The tables in which a live experiment has rows, with the columns that are its own.
_CLONED = {
    "experiments": {"key": "key + n.value", "experiment_id": "experiment_id || n.value"},
    "plans": {"experiment": "experiment + n.value"},
    "points": {"experiment": "experiment + n.value"},
    "runs": {"experiment": "experiment + n.value"},
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Medians in milliseconds: of a choice for as many runs as `room`, and of all that it takes to claim them."""

    experiments: int
    room: int
    choose_ms: float
    claim_ms: float


async def measure(experiments: int = 5_000, rounds: int = 15, rooms: tuple[int, ...] = (1, 256)) -> list[Choice]:
    """Measures with so many live experiments, all of which have due runs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with Desk.open(folder) as desk:
            points = 20 + (rounds + 1) * sum(rooms) // experiments
            await desk.begin(desks.plan(_NAME, points=points, metrics_to_track=["population"]))
        _clone(folder / "manifest.db", experiments - 1)
        async with Desk.open(folder, run_window=10**9) as desk:
            assert len(desk.ledger.experiments()) == experiments
            return [await _measure(desk, room, rounds) for room in rooms]


async def _measure(desk: Desk, room: int, rounds: int) -> Choice:
    chosen: list[float] = []
    claimed: list[float] = []
    with patch.object(dispatch, "BATCH", room):
        for _ in range(rounds + 1):
            async with asyncio.TaskGroup() as group:
                began = time.perf_counter()
                with _first_due(desk.manifest) as reads:
                    assert await desk.dispatcher.fill(group)
                claimed.append(1000 * (time.perf_counter() - began))
                chosen.append(1000 * (reads[0] - began))
    # The first choice looks at every experiment once.
    return Choice(
        len(desk.ledger.experiments()),
        room,
        round(statistics.median(chosen[1:]), 3),
        round(statistics.median(claimed[1:]), 3),
    )


@contextlib.contextmanager
def _first_due(manifest: Manifest) -> Iterator[list[float]]:
    """The times at which due runs are read."""
    reads: list[float] = []

    def noted(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*arguments: Any) -> Any:
            reads.append(time.perf_counter())
            return read(*arguments)

        return reading

    with (
        patch.object(manifest, "due", noted(manifest.due)),
        patch.object(manifest, "due_of", noted(manifest.due_of)),
    ):
        yield reads


def _clone(path: Path, copies: int) -> None:
    """Adds copies of the only experiment of a manifest."""
    if not copies:
        return
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for table, own in _CLONED.items():
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(own.get(column, f'"{column}"') for column in columns)
            names = ", ".join(f'"{column}"' for column in columns)
            database.execute(
                f"INSERT INTO {table} ({names}) WITH RECURSIVE n (value) AS "
                f"(VALUES (1) UNION ALL SELECT value + 1 FROM n WHERE value < ?) "
                f"SELECT {values} FROM (SELECT * FROM {table}) CROSS JOIN n",
                (copies,),
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    choices = asyncio.run(measure(arguments.experiments, arguments.rounds))
    print(json.dumps([asdict(choice) for choice in choices]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
