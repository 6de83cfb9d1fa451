"""Draws several experiments, a line each, of which one is chosen."""

from collections.abc import Sequence
from typing import Any

import rich.cells
import rich.text

from ems_worker.cli import statuses
from ems_worker.cli.live import bars
from ems_worker.terminal import text

Document = dict[str, Any]

_MIN_BAR, _MAX_BAR = 8, 30
_GAP = "  "
KEYS = "up/down choose   enter open   p pause   c cancel   q quit"


def lines(
    listed: Sequence[Document], chosen: str | None, width: int, height: int, *, utf8: bool
) -> list[rich.text.Text]:
    """The experiments around the chosen one, as many as fit; how many there are if that isn't all."""
    if not listed:
        return [rich.text.Text("no experiments yet")]
    rows = max(1, height - 1)
    at = next((index for index, status in enumerate(listed) if status["experiment_id"] == chosen), 0)
    first = max(0, min(at - rows // 2, len(listed) - rows))
    shown = listed[first : first + rows]
    drawn = _table(shown, chosen, width, utf8=utf8)
    if len(shown) < len(listed):
        last = first + len(shown)
        drawn.append(rich.text.Text(f"{first + 1:,} to {last:,} of {len(listed):,}", "bright_black"))
    return drawn[:height]


def _table(shown: Sequence[Document], chosen: str | None, width: int, *, utf8: bool) -> list[rich.text.Text]:
    """Id, state, bar, ended and all jobs, time left, problems. From the right, what has no room is left out."""
    cells = [
        [
            text.line(status["experiment_id"]),
            text.line(status["state"]),
            f"{statuses.ended(status):,}/{status['total']:,}",
            statuses.time_left(status) if status["finished_at"] is None else "",
            statuses.problems(status),
        ]
        for status in shown
    ]
    widths = [max(rich.cells.cell_len(row[index]) for row in cells) for index in range(5)]
    # An id that is longer than the others fit beside is cut: what is chosen can be opened.
    widths[0] = min(widths[0], max(12, width - widths[1] - widths[2] - 2 * len(_GAP) - 2))
    free = width - 2 - sum(widths[:3]) - 2 * len(_GAP)
    further = []
    for index in (3, 4):
        needed = len(_GAP) + widths[index]
        if widths[index] and needed <= free - _MIN_BAR - len(_GAP):
            further.append(index)
            free -= needed
    bar = min(free - len(_GAP), _MAX_BAR)
    lines = []
    for status, row in zip(shown, cells, strict=True):
        marked = status["experiment_id"] == chosen
        line = rich.text.Text("> " if marked else "  ", no_wrap=True, overflow="ellipsis")
        line.append(_padded(row[0], widths[0]), "bold" if marked else "").append(_GAP)
        line.append(_padded(row[1], widths[1]))
        if bar >= _MIN_BAR:
            line.append(_GAP).append_text(bars.bar(status["counts"], bar, utf8=utf8))
        line.append(_GAP).append(" " * (widths[2] - len(row[2])) + row[2])
        for index in further:
            line.append(_GAP).append(_padded(row[index], widths[index]))
        lines.append(line)
    return lines


def _padded(cell: str, width: int) -> str:
    length = rich.cells.cell_len(cell)
    if length > width:
        return rich.cells.set_cell_size(cell, width - 3) + "..."
    return cell + " " * (width - length)
