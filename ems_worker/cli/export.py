"""Jobs as flat rows, one a job: what notebooks and spreadsheets read."""

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from ems_worker.cli import exits
from ems_worker.core.documents import documents
from ems_worker.terminal import streams

Document = documents.Document

# The columns that every line has (`documents.line`), around those named after what an experiment varies and measures.
FIRST = ("experiment_id", "simulation_id", "point", "replicate", "attempt", "run_id_suffix", "seed", "state")
LAST = (
    "error_kind",
    "error_message",
    "submitted_at",
    "started_at",
    "finished_at",
    "model_version",
    "config_sha",
    "job_revision",
    "seq",
)
# What a spreadsheet takes for the begin of a formula (OWASP, CSV injection), full-width forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTED = re.compile(r'[,"\r\n]')
_GROUPS = ("param.", "metric.", "label.", "artifact.")


class Format(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"


async def write(
    jobs: AsyncIterator[Document], details: Document, kind: Format, file: Path | None, *, safe: bool = False
) -> int:
    """Writes a row for each job to the file (complete, or not at all) or to stdout; how many they were.

    What isn't a regular file (a pipe, a device) gets the rows as they come, and stays what it is.
    `details` is the experiment's `ems.api.get` document. With `safe` no cell of a CSV is a formula to a spreadsheet.
    Raises exits.Misused where the file can't be written, or where JSON should be `safe`.
    """
    if safe and kind is not Format.CSV:
        raise exits.Misused("--safe-for-spreadsheets is for --format csv: no spreadsheet computes JSON")
    try:
        with _target(file) as target:
            return await (_jsonl(jobs, target) if kind is Format.JSONL else _csv(jobs, details, target, safe))
    except OSError as failed:
        if isinstance(failed, BrokenPipeError):
            raise
        raise exits.Misused(f"{file or 'stdout'} can't be written: {failed.strerror}") from failed


async def _jsonl(jobs: AsyncIterator[Document], target: IO[str]) -> int:
    count = 0
    async for job in jobs:
        target.write(_json(documents.line(job)) + "\n")
        count += 1
    return count


async def _csv(jobs: AsyncIterator[Document], details: Document, target: IO[str], safe: bool) -> int:
    """Two passes: which columns there are is known only when the last job was seen."""
    names: dict[str, None] = dict.fromkeys(f"param.{name}" for name in details["parameters"])
    names |= dict.fromkeys(f"metric.{name}" for name in details["metrics"])
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        count = 0
        async for job in jobs:
            flat = documents.line(job)
            names |= dict.fromkeys(flat)
            spool.write(_json(flat) + "\n")
            count += 1
        spool.seek(0)
        columns = _columns(names)
        target.write(_row(columns, safe))
        for line in spool:
            job = json.loads(line)
            target.write(_row((job.get(name) for name in columns), safe))
    return count


def _columns(names: Iterable[str]) -> list[str]:
    """The fixed columns around the groups. Parameters and tracked metrics are in the plan's order."""
    named = list(names)
    groups = [name for prefix in _GROUPS for name in named if name.startswith(prefix)]
    return [*FIRST, *groups, *LAST]


def _row(cells: Iterable[Any], safe: bool) -> str:
    return ",".join(_cell(cell, safe) for cell in cells) + "\n"


def _cell(value: Any, safe: bool) -> str:
    """Null is an empty cell, true and false are words, lists and mappings are JSON, as numbers are.

    Python's csv doesn't quote a carriage return, and most readers begin a new row at one.
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else _json(value)
    if safe and isinstance(value, str) and text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@contextlib.contextmanager
def _target(file: Path | None) -> Iterator[IO[str]]:
    """Where rows go; a regular file appears under its name, or where a link of that name leads, once it is whole."""
    found = _found(file)
    if file is None or (found is not None and _is_stdout(found)):
        yield sys.stdout
    elif found is not None and not stat.S_ISREG(found.st_mode):
        with file.open("w", encoding="utf-8", newline="") as target:
            yield streams.guarded(target)
    else:
        whole = file.resolve()
        partial = whole.with_name(f".{whole.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8", newline="") as target:
                yield target
            partial.replace(whole)
        finally:
            partial.unlink(missing_ok=True)


def _found(file: Path | None) -> os.stat_result | None:
    """What the name leads to; None where there is nothing yet."""
    try:
        return None if file is None else file.stat()
    except FileNotFoundError:
        return None


def _is_stdout(found: os.stat_result) -> bool:
    """Whether it was named by another name, /dev/stdout mostly: what the shell has opened must not be replaced."""
    return os.path.samestat(found, os.fstat(sys.stdout.fileno()))
