"""Tables for people: columns that fit the terminal, or all of them without one. docs/tables.md has the rules."""

import collections
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import rich.console
import rich.text

from ems_worker.cli import fitting, numbers
from ems_worker.cli.fitting import Column
from ems_worker.terminal import drawing, streams, text

# A text, a number of parameters, or None for what isn't there.
Cell = str | float | int | None

# The numbers of rows and of cells in memory of a table of any length.
_BLOCK = 1000
_MAX_CELLS = 20_000
# A text that doesn't keep its column from being one of numbers, such as 5/8, 1,200, 45%, 1.5 kB, 1.50 ± 0.03 (n=4).
_NUMBER = re.compile(r"-?\d[\d.,e+%/-]*+(?: [kMGTPE]B| bytes?)?+(?: ± +[\d.,e+-]++)?+ *+(?:\(n=[\d,]++\))?+|-|\.\.\.|")
_MISSING: Final = "-"
# Names of columns in a message.
_MAX_NAMED = 8
_MAX_VALUE = 40


def show(columns: Sequence[Column | str], rows: Iterable[Sequence[Cell]], *, instead: str = "") -> None:
    """Prints a table on stdout. Columns of numbers are right-aligned, each with one precision.

    `instead`: how to see the columns that a narrow terminal has no room for.
    """
    table = Growing(columns, block=None, instead=instead)
    for row in rows:
        table.add(row)
    table.flush()


class Growing:
    """A table of any length on stdout, printed in blocks of rows: each column is as wide as its widest cell so far.

    A column without any text so far is left out; the header is printed again when the columns change. `flush` prints
    the last rows, and names the columns that the terminal had no room for.
    """

    def __init__(self, columns: Sequence[Column | str], *, block: int | None = _BLOCK, instead: str = "") -> None:
        """`block`: how many rows are kept in memory at most; None: all, and empty columns are shown."""
        given = [Column(column) if isinstance(column, str) else column for column in columns]
        self._columns = [dataclasses.replace(one, title=text.line(one.title)) for one in given]
        self._whole = block is None
        self._block = None if block is None else max(1, min(block, _MAX_CELLS // len(given)))
        self._instead = instead
        self._widths = [0] * len(given)
        self._right = [not column.left for column in self._columns]
        self._places: list[int | None] = [0] * len(given)
        self._shown: dict[int, int] = {}
        self._dropped: list[str] = []
        self._rows: list[Sequence[Cell]] = []

    def add(self, cells: Sequence[Cell]) -> None:
        self._rows.append(cells)
        if len(self._rows) == self._block:
            self._print()

    def add_gap(self) -> None:
        """Adds a row that stands for rows that are left out."""
        self._rows.append(["...", *[""] * (len(self._columns) - 1)])

    def flush(self) -> None:
        """Prints the rows that have been added since the last block, and what was left out."""
        self._print()
        if self._dropped:
            names = ", ".join(self._dropped[:_MAX_NAMED])
            more = len(self._dropped) - _MAX_NAMED
            others = f" and {numbers.counted(more, 'other column')}" if more > 0 else ""
            note(f"not shown: {names}{others} ({self._instead or 'a wider window'})")

    def _print(self) -> None:
        rows, self._rows = self._rows, []
        written = list(
            zip(
                *(self._written(index, [row[index] for row in rows]) for index in range(len(self._columns))),
                strict=True,
            )
        )
        for index, column in enumerate(self._columns):
            cells = [row[index] for row in written]
            self._right[index] = self._right[index] and all(map(_NUMBER.fullmatch, cells))
            self._widths[index] = max([self._widths[index], *map(fitting.width, cells)])
            if self._widths[index] or self._whole:
                self._widths[index] = max(self._widths[index], fitting.width(column.title))
        self._choose()
        if written:
            streams.out("\n".join(map(self._line, written)))

    def _written(self, index: int, cells: Sequence[Cell]) -> list[str]:
        """The cells of a column as texts. Numbers have as many decimals as those of earlier blocks, or more."""
        given = [cell for cell in cells if numbers.is_number(cell)]
        if not given:
            return [text.line(_MISSING if cell is None else str(cell)) for cell in cells]
        places = numbers.exact(given)
        if self._places[index] is not None:
            self._places[index] = None if places is None else max(places, self._places[index] or 0)
        places = self._places[index]
        return [
            numbers.written(cell, places)
            if numbers.is_number(cell)
            else text.line(_MISSING if cell is None else str(cell))
            for cell in cells
        ]

    def _choose(self) -> None:
        """Chooses the columns to show, and prints the header if they are others than before."""
        present = [index for index, width in enumerate(self._widths) if width]
        columns, widths = [self._columns[index] for index in present], [self._widths[index] for index in present]
        fitted = fitting.fit(columns, widths, room())
        shown = {present[index]: width for index, width in fitted.items()}
        self._dropped = [self._columns[index].title for index in present if index not in shown]
        before, self._shown = list(self._shown), shown
        if before != list(shown):
            if before:
                streams.out("")
            titles = [column.title for column in self._columns]
            drawing.show(sys.stdout, (self._line(titles), "bold"))

    def _line(self, cells: Sequence[str]) -> str:
        padded = []
        for index, width in self._shown.items():
            cell = cells[index] if width >= self._widths[index] else fitting.cut(cells[index], width)
            padded.append(fitting.padded(cell, width, right=self._right[index]))
        return (" " * fitting.GAP).join(padded).rstrip()


def note(remark: str) -> None:
    """Prints a remark about a table on stderr, on a terminal without breaking words."""
    streams.say("\n".join(_wrapped(remark, shutil.get_terminal_size().columns if sys.stderr.isatty() else None)))


def paragraph(content: str, indent: int) -> None:
    """Prints a text on stdout. On a terminal its lines are broken between words, and the later ones are indented."""
    first, *more = _wrapped(content, room(), indent)
    streams.out("\n".join([first, *(f"{' ' * indent}{line}" for line in more)]))


def _wrapped(content: str, columns: int | None, indent: int = 0) -> list[str]:
    content = text.line(content)
    if columns is None or fitting.width(content) <= columns:
        return [content]
    lines = rich.text.Text(content).wrap(rich.console.Console(), max(columns - indent, indent + 1))
    return [line.plain.rstrip() for line in lines]


def room() -> int | None:
    """How many columns the terminal on stdout has; None without a terminal: programs and editors read long lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def moment(at: str) -> str:
    """A time to the minute, such as `2026-11-22T22:53Z`."""
    return f"{at[:16]}Z"


def value(parameter: Any) -> str:
    """A parameter's value, shortened to fit a table. Lists and mappings are JSON."""
    if isinstance(parameter, bool) or parameter is None:
        return {True: "true", False: "false", None: "null"}[parameter]
    if isinstance(parameter, dict) and set(parameter) == {"sha256", "bytes"}:
        return f"<{numbers.size(parameter['bytes'])}>"
    shown = json.dumps(parameter, ensure_ascii=False) if isinstance(parameter, dict | list) else str(parameter)
    return fitting.cut(shown, _MAX_VALUE)


def cell(parameter: Any) -> Cell:
    """A parameter's value as a cell: a number, which is aligned with others, or a text."""
    return parameter if numbers.is_number(parameter) else value(parameter)


def mean(aggregate: Mapping[str, Any] | None) -> str:
    """The mean of a metric with the half-width of its 95 percent interval; `-` without a mean."""
    return numbers.means([aggregate])[0]


def short(paths: Sequence[str]) -> list[str]:
    """Shortens each dotted path to the fewest last segments that no other path ends with."""
    endings = collections.Counter(suffix for path in paths for suffix in _suffixes(path))
    return [next((suffix for suffix in _suffixes(path) if endings[suffix] == 1), path) for path in paths]


def _suffixes(path: str) -> Iterator[str]:
    """The last segment, the last two, ..., the whole path."""
    segments = path.split(".")
    return (".".join(segments[start:]) for start in reversed(range(len(segments))))
