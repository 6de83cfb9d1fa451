"""Lines that fit a screen: tables of the columns that have room, and sections that share the height."""

from collections.abc import Sequence
from dataclasses import dataclass

import rich.cells
import rich.text

from ems_worker.terminal import text

_GAP = 2
_FEW_WORDS = 16


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the screen. Its lines come most important first; `more` of them were left out before."""

    title: rich.text.Text
    lines: Sequence[rich.text.Text]
    header: rich.text.Text | None = None
    more: int = 0


def line(content: str, style: str = "") -> rich.text.Text:
    """A text from outside on one line."""
    return rich.text.Text(text.line(content), style, no_wrap=True, overflow="ellipsis")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, right: Sequence[int] = (), cut: bool = False
) -> tuple[rich.text.Text, list[rich.text.Text]]:
    """The header and the rows of a table with as many of the first columns as fit; columns in `right` end on the right.

    The first column is always there, and is cut only if it is wider than the screen. With `cut`, the last column takes
    what the others leave, if it is enough for a few words.
    """
    cleaned = [[text.line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(rich.cells.cell_len(row[index]) for row in cleaned) for index in range(len(header))]
    if cut:
        left = width - sum(widths[:-1]) - _GAP * (len(widths) - 1)
        widths[-1] = max(_FEW_WORDS, min(widths[-1], left))
    shown, used = 1, widths[0]
    while shown < len(widths) and used + _GAP + widths[shown] <= width:
        used += _GAP + widths[shown]
        shown += 1
    lines = []
    for row in cleaned:
        padded = []
        for index, whole in enumerate(row[:shown]):
            cell = whole if rich.cells.cell_len(whole) <= widths[index] else _cut(whole, widths[index])
            space = " " * (widths[index] - rich.cells.cell_len(cell))
            padded.append(f"{space}{cell}" if index in right else f"{cell}{space}")
        lines.append(rich.text.Text((" " * _GAP).join(padded).rstrip(), no_wrap=True, overflow="ellipsis"))
    lines[0].stylize("bright_black")
    return lines[0], lines[1:]


def _cut(cell: str, width: int) -> str:
    return rich.cells.set_cell_size(cell, width - 3) + "..."


def flowed(parts: Sequence[rich.text.Text], width: int, gap: str = "  ") -> list[rich.text.Text]:
    """The parts on as few lines as they need, each whole."""
    lines: list[rich.text.Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + len(gap) + part.cell_len <= width:
            lines[-1].append(gap).append_text(part)
        else:
            lines.append(part.copy())
    return lines


def sections(parts: Sequence[Section], height: int) -> list[rich.text.Text]:
    """The sections below each other, with an empty line before each. The longest are cut, then the last left out."""
    kept = [part for part in parts if part.lines]
    while (sizes := _sizes(kept, height)) is None:
        kept.pop()
    lines: list[rich.text.Text] = []
    for part, size in zip(kept, sizes or [], strict=True):
        lines += [rich.text.Text(""), part.title, *([part.header] if part.header is not None else [])]
        lines += part.lines[:size]
        if left := len(part.lines) - size + part.more:
            lines.append(rich.text.Text(f"... and {left:,} more", "bright_black"))
    return lines


def _sizes(parts: Sequence[Section], height: int) -> list[int] | None:
    """How many of its lines each section shows; None if not all sections have room."""
    sizes = [len(part.lines) for part in parts]
    while sizes and sum(sizes) + sum(map(_frame, parts, sizes)) > height:
        longest = max(range(len(sizes)), key=lambda index: sizes[index])
        if sizes[longest] == 1:
            return None
        sizes[longest] -= 1
    return sizes


def _frame(part: Section, size: int) -> int:
    """The lines of a section besides its own: empty line, title, header, and what says that there are more."""
    return 2 + (part.header is not None) + (size < len(part.lines) or part.more > 0)
