"""Tables and numbers for people: columns that fit the terminal, or plain aligned text without one."""

import collections
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import rich.box
import rich.cells
import rich.console
import rich.table

from ems_worker.terminal import drawing, streams, text

# Without a terminal, lines are never broken: a program or an editor reads them.
_UNLIMITED = 100_000
# The numbers of rows and of cells in memory of a table of any length.
_BLOCK = 1000
_MAX_CELLS = 20_000
# A cell that doesn't keep its column from being one of numbers.
_NUMBER = re.compile(r"-?\d[\d.e+-]*|-|\.\.\.|")


def show(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> None:
    """Prints a table on stdout. The columns in `numbers` are right-aligned.

    On a narrow terminal, cells are wrapped between words. If that isn't enough, lines are longer than the terminal and
    the header has no rule under it, as an id that is wrapped can't be copied.
    """
    terminal = sys.stdout.isatty()
    cells = [[text.line(cell) for cell in row] for row in (header, *rows)]
    drawn = _drawn(cells, set(numbers), fit=terminal)
    if terminal and any(word not in drawn for row in cells for cell in row for word in cell.split()):
        drawn = _drawn(cells, set(numbers), fit=False)
    for line in drawn.splitlines():
        drawing.emit(sys.stdout, line.rstrip())


def _drawn(cells: Sequence[Sequence[str]], right: set[int], *, fit: bool) -> str:
    """Draws the table: fitted to the terminal with a rule under the header, or at its full width without one."""
    header, *rows = cells
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD if fit else None,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1 if fit else 2, 0, 0),
    )
    for index, title in enumerate(header):
        justify: rich.console.JustifyMethod = "right" if index in right else "left"
        one_word = all(len(row[index].split()) <= 1 for row in cells)
        table.add_column(title, justify=justify, overflow="fold", no_wrap=one_word, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console = drawing.Console(sys.stdout, None if fit else _UNLIMITED)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


class Growing:
    """A table of any length on stdout, printed in blocks of rows: each column is as wide as its widest cell so far.

    A column without any text so far is left out; the header is printed again when it appears. Columns of numbers are
    right-aligned. `flush` prints the last rows.
    """

    def __init__(self, header: Sequence[str]) -> None:
        self._header = [text.line(title) for title in header]
        self._widths = [0] * len(header)
        self._numbers = [True] * len(header)
        self._shown: list[int] = []
        self._rows: list[list[str]] = []
        self._block = max(1, min(_BLOCK, _MAX_CELLS // len(header)))

    def add(self, cells: Sequence[str]) -> None:
        self._rows.append([text.line(cell) for cell in cells])
        if len(self._rows) == self._block:
            self.flush()

    def add_gap(self) -> None:
        """Adds a row that stands for rows that are left out."""
        self._rows.append(["...", *[""] * (len(self._header) - 1)])

    def flush(self) -> None:
        """Prints the rows that have been added since the last block."""
        rows, self._rows = self._rows, []
        for index in range(len(self._header)):
            column = [row[index] for row in rows]
            self._numbers[index] = self._numbers[index] and all(map(_NUMBER.fullmatch, column))
            self._widths[index] = max([self._widths[index], *map(_width, column)])
        shown = [index for index, width in enumerate(self._widths) if width]
        if shown != self._shown:
            if self._shown:
                streams.out("")
            self._shown = shown
            for index in shown:
                self._widths[index] = max(self._widths[index], _width(self._header[index]))
            drawing.show(sys.stdout, (self._line(self._header), "bold"))
        if rows:
            streams.out("\n".join(map(self._line, rows)))

    def _line(self, cells: Sequence[str]) -> str:
        padded = []
        for index in self._shown:
            padding = " " * (self._widths[index] - _width(cells[index]))
            padded.append(f"{padding}{cells[index]}" if self._numbers[index] else f"{cells[index]}{padding}")
        return "  ".join(padded).rstrip()


def _width(cell: str) -> int:
    return len(cell) if cell.isascii() else rich.cells.cell_len(cell)


def number(value: float | int | None) -> str:
    """A number with six significant digits; `-` for None."""
    return "-" if value is None else f"{value:.6g}"


def moment(at: str) -> str:
    """A time to the minute, such as `2026-11-22T22:53Z`."""
    return f"{at[:16]}Z"


def value(parameter: Any) -> str:
    """A parameter's value, shortened to fit a table."""
    if isinstance(parameter, bool) or parameter is None:
        return {True: "true", False: "false", None: "null"}[parameter]
    if isinstance(parameter, dict) and set(parameter) == {"sha256", "bytes"}:
        return f"<{parameter['bytes']} bytes>"
    shown = json.dumps(parameter, ensure_ascii=False) if isinstance(parameter, dict | list) else str(parameter)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def mean(aggregate: Mapping[str, Any] | None) -> str:
    """The mean of a metric, and its standard deviation if it has one; `-` without a mean."""
    if not aggregate or aggregate["mean"] is None:
        return "-"
    spread = "" if aggregate["std"] is None else f" ± {aggregate['std']:.3g}"
    return f"{number(aggregate['mean'])}{spread}"


def short(paths: Sequence[str]) -> list[str]:
    """Shortens each dotted path to the fewest last segments that no other path ends with."""
    endings = collections.Counter(suffix for path in paths for suffix in _suffixes(path))
    return [next((suffix for suffix in _suffixes(path) if endings[suffix] == 1), path) for path in paths]


def _suffixes(path: str) -> Iterator[str]:
    """The last segment, the last two, ..., the whole path."""
    segments = path.split(".")
    return (".".join(segments[start:]) for start in reversed(range(len(segments))))
