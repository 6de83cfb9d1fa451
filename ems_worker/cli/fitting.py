"""Which columns of a table fit a terminal, and how wide they are. Pure; docs/tables.md has the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import rich.cells

# Between columns.
GAP: Final = 2
_CUT: Final = "..."


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `cut`: where the table is too wide, texts are cut down to so many columns of the terminal before any column is left
    out; 0: never, as for ids. `drop`: the column with the highest number is left out first; 0: it stays. `left`:
    whether it is aligned left even if all its cells are numbers.
    """

    title: str
    drop: int = 0
    cut: int = 0
    left: bool = False


def fit(columns: Sequence[Column], widths: Sequence[int], room: int | None) -> Mapping[int, int]:
    """The columns to show, by their positions, with their widths. `widths` are those of their widest cells.

    Without `room` everything is shown.
    """
    shown = dict(enumerate(widths))
    if room is None:
        return shown
    least = {index: min(width, columns[index].cut or width) for index, width in shown.items()}
    for index in sorted((index for index in shown if columns[index].drop), key=lambda index: -columns[index].drop):
        if _total(least) <= room:
            break
        del least[index]
    spare = room - _total(least)
    fitted = {}
    for index, width in least.items():
        more = max(0, min(spare, shown[index] - width))
        spare -= more
        fitted[index] = width + more
    return fitted


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def cut(text: str, width: int) -> str:
    """The text, shortened to so many columns of the terminal; three dots stand for its end."""
    if len(text) <= width and text.isascii():
        return text
    if rich.cells.cell_len(text) <= width:
        return text
    return rich.cells.set_cell_size(text, max(0, width - len(_CUT))).rstrip() + _CUT[:width]


def width(text: str) -> int:
    """How many columns of the terminal a text takes."""
    return len(text) if text.isascii() else rich.cells.cell_len(text)


def padded(text: str, size: int, *, right: bool) -> str:
    """The text, filled up to so many columns of the terminal."""
    size -= width(text) - len(text)
    return text.rjust(size) if right else text.ljust(size)
