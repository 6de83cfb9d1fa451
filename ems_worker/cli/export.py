"""Exports jobs as flat rows for notebooks and spreadsheets; `core.documents.results` defines the columns."""

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ems_worker.cli import exits
from ems_worker.cli.formats import Format
from ems_worker.core.documents import documents, results
from ems_worker.terminal import streams

Document = documents.Document

# Characters that begin a formula in a spreadsheet, including their full-width forms (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTED = re.compile(r'[,"\r\n]')


async def write(
    jobs: AsyncIterator[Document], details: Document, row_format: Format, file: Path | None, *, safe: bool = False
) -> int:
    """Writes a row for each job to stdout or a file, which is written completely or not at all. Returns the count.

    A pipe or a device receives the rows as they arrive, and is not replaced. `details` is the `ems.api.get` document of
    the experiment. With `safe` no cell of a CSV is a formula in a spreadsheet. Raises exits.Misused if the file can't
    be written, or if `safe` is combined with JSON.
    """
    if safe and row_format is not Format.CSV:
        raise exits.Misused("--safe-for-spreadsheets needs --format csv: spreadsheets don't evaluate JSON")
    try:
        with _target(file) as target:
            return await (_jsonl(jobs, target) if row_format is Format.JSONL else _csv(jobs, details, target, safe))
    except OSError as failed:
        if isinstance(failed, BrokenPipeError):
            raise
        raise exits.Misused(f"{file or 'stdout'} can't be written: {failed.strerror}") from failed


async def _jsonl(jobs: AsyncIterator[Document], target: IO[str]) -> int:
    count = 0
    async for job in jobs:
        target.write(_json(results.line(job)) + "\n")
        count += 1
    return count


async def _csv(jobs: AsyncIterator[Document], details: Document, target: IO[str], safe: bool) -> int:
    """Writes in two passes: the columns are known only after the last job."""
    names: dict[str, None] = dict.fromkeys(f"param.{name}" for name in details["parameters"])
    names |= dict.fromkeys(f"metric.{name}" for name in details["metrics"])
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        count = 0
        async for job in jobs:
            flat = results.line(job)
            names |= dict.fromkeys(flat)
            spool.write(_json(flat) + "\n")
            count += 1
        spool.seek(0)
        # Parameters and tracked metrics are in the plan's order.
        columns = results.columns(names)
        target.write(_row(columns, safe))
        for line in spool:
            job = json.loads(line)
            target.write(_row((job.get(name) for name in columns), safe))
    return count


def _row(cells: Iterable[Any], safe: bool) -> str:
    return ",".join(_cell(cell, safe) for cell in cells) + "\n"


def _cell(value: Any, safe: bool) -> str:
    """Null is an empty cell, text is written unchanged, and everything else as JSON.

    The csv module is not used because it doesn't quote a carriage return, at which most readers begin a new row.
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
    """The file to write rows to. A regular file, or the one that a link leads to, is replaced once it is complete."""
    existing = _existing(file)
    if file is None or (existing is not None and _is_stdout(existing)):
        yield sys.stdout
    elif existing is not None and not stat.S_ISREG(existing.st_mode):
        with file.open("w", encoding="utf-8", newline="") as target:
            yield streams.guarded(target)
    else:
        complete = file.resolve()
        partial = complete.with_name(f".{complete.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8", newline="") as target:
                yield target
            partial.replace(complete)
        finally:
            partial.unlink(missing_ok=True)


def _existing(file: Path | None) -> os.stat_result | None:
    """What exists under this name; None if nothing does."""
    try:
        return None if file is None else file.stat()
    except FileNotFoundError:
        return None


def _is_stdout(existing: os.stat_result) -> bool:
    """Whether this is stdout by another name (/dev/stdout): a file that the shell opened must not be replaced."""
    return os.path.samestat(existing, os.fstat(sys.stdout.fileno()))
