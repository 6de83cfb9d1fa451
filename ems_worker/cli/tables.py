"""Tables and numbers for people: columns that fit the terminal, plain aligned text anywhere else."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

from ems_worker.terminal import drawing, text

# Off a terminal lines are as long as they are: a program or an editor reads them.
_UNBOUNDED = 100_000


def show(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> None:
    """Prints a table on stdout; the columns in `numbers` are aligned to the right.

    On a narrow terminal cells are broken between words; where that isn't enough, lines are longer than the terminal:
    an id in pieces can't be copied. The rule under the header is left out then.
    """
    terminal = sys.stdout.isatty()
    cells = [[text.line(cell) for cell in row] for row in (header, *rows)]
    drawn = _drawn(cells, set(numbers), fitting=terminal)
    if terminal and any(word not in drawn for row in cells for cell in row for word in cell.split()):
        drawn = _drawn(cells, set(numbers), fitting=False)
    for line in drawn.splitlines():
        drawing.emit(sys.stdout, line.rstrip())


def _drawn(cells: Sequence[Sequence[str]], right: set[int], *, fitting: bool) -> str:
    """The table as wide as the terminal and with a rule, or as wide as it is."""
    header, *rows = cells
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD if fitting else None,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1 if fitting else 2, 0, 0),
    )
    for index, title in enumerate(header):
        justify: rich.console.JustifyMethod = "right" if index in right else "left"
        one_word = all(len(row[index].split()) <= 1 for row in cells)
        table.add_column(title, justify=justify, overflow="fold", no_wrap=one_word, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console = drawing.Console(sys.stdout, None if fitting else _UNBOUNDED)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def number(value: float | int | None) -> str:
    """A number with six digits that matter; `-` where there is none."""
    return "-" if value is None else f"{value:.6g}"


def moment(at: str) -> str:
    """A time to the minute, as short as it stays clear: `2026-11-22T22:53Z`."""
    return f"{at[:16]}Z"


def value(given: Any) -> str:
    """A parameter's value, in a width that a table can bear."""
    if isinstance(given, bool) or given is None:
        words = {True: "true", False: "false", None: "null"}[given]
    elif isinstance(given, dict) and set(given) == {"sha256", "bytes"}:
        words = f"<{given['bytes']} bytes>"
    else:
        words = str(given)
    return words if len(words) <= 40 else f"{words[:37]}..."


def mean(aggregate: Mapping[str, Any] | None) -> str:
    """A metric over several runs: mean and, where there is one, standard deviation."""
    if not aggregate or aggregate["mean"] is None:
        return "-"
    spread = "" if aggregate["std"] is None else f" ± {aggregate['std']:.3g}"
    return f"{number(aggregate['mean'])}{spread}"


def short(paths: Sequence[str]) -> list[str]:
    """Dotted paths by their last words, as few as tell them apart."""
    shortest = []
    for path in paths:
        steps = path.split(".")
        ends = (".".join(steps[-length:]) for length in range(1, len(steps)))
        unique = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in paths) == 1)
        shortest.append(next(unique, path))
    return shortest
