"""Writes jobs, or points, as flat rows for notebooks and spreadsheets."""

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ems_worker.cli import exits
from ems_worker.cli.formats import Format
from ems_worker.core.documents import documents, results
from ems_worker.terminal import streams

Document = documents.Document
AddRow = Callable[[Document], object]
# The columns of a table whose rows have these names.
Columns = Callable[[Iterable[str]], Sequence[str]]

# Characters that begin a formula in a spreadsheet, including their full-width forms (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTED = re.compile(r'[,"\r\n]')
# json.dumps would make an encoder for each value.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


async def write(
    jobs: AsyncIterator[Document], details: Document, row_format: Format, file: Path | None, *, safe: bool = False
) -> int:
    """Writes a row for each job. Returns the count. `details` is the `ems.api.get` document of the experiment.

    Raises the same errors as `rows`.
    """
    # Parameters and tracked metrics are in the plan's order.
    first = [*(f"param.{name}" for name in details["parameters"]), *(f"metric.{name}" for name in details["metrics"])]
    count = 0
    with rows(row_format, file, lambda seen: results.columns(dict.fromkeys((*first, *seen))), safe=safe) as add:
        async for job in jobs:
            add(results.line(job))
            count += 1
    return count


@contextlib.contextmanager
def rows(
    row_format: Format, file: Path | None, columns: Sequence[str] | Columns, *, safe: bool = False
) -> Iterator[AddRow]:
    """Yields a function that writes a row to stdout or a file, which is written completely or not at all.

    A pipe or a device receives the rows as they arrive, and is not replaced. If `columns` is a function, a CSV is
    written after the last row. With `safe` no cell of a CSV is a formula in a spreadsheet. Raises exits.Misused if the
    file can't be written, or if `safe` is combined with JSON.
    """
    if safe and row_format is not Format.CSV:
        raise exits.Misused("--safe-for-spreadsheets needs --format csv: spreadsheets don't evaluate JSON")
    with target(file) as written:
        if row_format is Format.JSONL:
            yield lambda row: written.write(f"{_json(row)}\n")
        elif callable(columns):
            with _spooled(written, columns, safe) as add:
                yield add
        else:
            written.write(_row(columns, safe))
            yield lambda row: written.write(_row((row.get(name) for name in columns), safe))


def text(content: str, file: Path) -> None:
    """Writes a text to a file as `rows` writes rows. Raises exits.Misused if it can't be written."""
    with target(file) as written:
        written.write(content)


@contextlib.contextmanager
def _spooled(written: IO[str], columns: Columns, safe: bool) -> Iterator[AddRow]:
    """Writes a CSV in two passes: its columns are known only after the last row."""
    names: dict[str, None] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:

        def add(row: Document) -> None:
            names.update(dict.fromkeys(row))
            spool.write(f"{_json(row)}\n")

        yield add
        spool.seek(0)
        known = columns(names)
        written.write(_row(known, safe))
        for line in spool:
            row = json.loads(line)
            written.write(_row((row.get(name) for name in known), safe))


def _row(cells: Iterable[Any], safe: bool) -> str:
    return ",".join(_cell(cell, safe) for cell in cells) + "\n"


def _cell(value: Any, safe: bool) -> str:
    """Null is an empty cell, text is written unchanged, and everything else as JSON.

    The csv module is not used because it doesn't quote a carriage return, at which most readers begin a new row.
    """
    if value is None:
        return ""
    if type(value) is int:  # quickly, because most cells are
        return repr(value)
    text = value if isinstance(value, str) else _json(value)
    if safe and isinstance(value, str) and text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


@contextlib.contextmanager
def target(file: Path | None) -> Iterator[IO[str]]:
    """A file to write a text to, or stdout. Raises exits.Misused if it can't be written."""
    try:
        with _opened(file) as opened:
            yield opened
    except OSError as failed:
        if isinstance(failed, BrokenPipeError):
            raise
        raise exits.Misused(f"{file or 'stdout'} can't be written: {failed.strerror}") from failed


@contextlib.contextmanager
def _opened(file: Path | None) -> Iterator[IO[str]]:
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
