"""Deletes the directories of runs that ended long ago, also while the orchestrator runs.

Its database keeps the runs for 30 days after their end, whatever becomes of their directories: a repeated start of an
ended run is still recognized.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ems_worker.local.orchestrator import attempts


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many runs' directories were deleted, and how many bytes their files had."""

    runs: int = 0
    bytes: int = 0


def prune(data_dir: Path, before_ns: int, *, dry_run: bool = False) -> Pruned:
    """Deletes the directories of runs that ended before a time, and counts what is then gone.

    Those of open runs stay, and of earlier attempts at their jobs, which they may read. A run that the orchestrator has
    forgotten ended when its files were last changed. Raises sqlite3.Error if the database can't be read.
    """
    runs = deleted = 0
    with _ends(data_dir / "orchestrator.db") as end_of:
        for entry in _directories(data_dir / "runs"):
            ended_ns = end_of(entry.name)
            if ended_ns is None:
                ended_ns = _changed_ns(Path(entry.path))
            if 0 < ended_ns < before_ns:
                size = _bytes(Path(entry.path))
                if not dry_run:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    if os.path.lexists(entry.path):
                        deleted += max(0, size - _bytes(Path(entry.path)))
                        continue
                runs += 1
                deleted += size
    return Pruned(runs, deleted)


@contextlib.contextmanager
def _ends(database: Path) -> Iterator[Callable[[str], int | None]]:
    """A function that gives the time at which a run ended.

    It is 0 while the run or another attempt at its job is open, and None if it isn't known.
    """
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:

        def attempt_is_open(prefix: str) -> bool:
            # The colon is the character after 9. The condition finished_ns = 0 would make SQLite read all open runs.
            rows = connection.execute(
                "SELECT simulation_id, finished_ns FROM runs WHERE simulation_id BETWEEN ? AND ?",
                (prefix, f"{prefix}:"),
            )
            return any(finished_ns == 0 and attempts.prefix(other) == prefix for other, finished_ns in rows)

        def end_of(simulation_id: str) -> int | None:
            prefix = attempts.prefix(simulation_id)
            if prefix is not None and attempt_is_open(prefix):
                return 0
            row = connection.execute(
                "SELECT finished_ns FROM runs WHERE simulation_id = ?", (simulation_id,)
            ).fetchone()
            return None if row is None else int(row[0])

        yield end_of


def _directories(runs: Path) -> Iterator["os.DirEntry[str]"]:
    with contextlib.suppress(FileNotFoundError), os.scandir(runs) as entries:
        for entry in entries:
            # Directories that were moved aside have a ~ in their names, and are deleted anyway.
            if entry.is_dir(follow_symlinks=False) and "~" not in entry.name:
                yield entry


def _changed_ns(directory: Path) -> int:
    """When a directory was last changed, or the output in it; 0 if it is gone."""
    times = [0]
    for path in (directory, directory / "output"):
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime_ns)
    return max(times)


def _bytes(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
