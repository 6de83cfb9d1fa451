"""A bar of jobs by state. Each state has a character of its own, so that the bar can be read without colours."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import rich.text

from ems_worker.core.lifecycle.tally import Bucket


class Look(NamedTuple):
    """How a state looks: its character, the one for terminals without UTF-8, and its style."""

    character: str
    plain: str
    style: str


# From left to right: what has ended, what is under way, what waits.
LOOKS: Final[Mapping[Bucket, Look]] = {
    Bucket.COMPLETED: Look("█", "#", "green"),
    Bucket.AWAITING_METRICS: Look("▓", "w", "cyan"),
    Bucket.INFEASIBLE: Look("~", "~", "magenta"),
    Bucket.CANCELLED: Look("-", "-", "bright_black"),
    Bucket.FAILED: Look("x", "x", "red"),
    Bucket.LOST: Look("?", "?", "red"),
    Bucket.RUNNING: Look("▒", ">", "yellow"),
    Bucket.SUBMITTED: Look("░", "=", "blue"),
    Bucket.SUBMITTING: Look("░", "=", "blue"),
    Bucket.PENDING: Look("·", ".", "bright_black"),
}


def cells(counts: Mapping[str, int], width: int) -> dict[Bucket, int]:
    """How many of `width` columns each state gets: in proportion, but at least one if it has a job.

    None gets any if there is no job, or no room for all states.
    """
    numbers = {bucket: counts.get(bucket.value, 0) for bucket in LOOKS}
    total = sum(numbers.values())
    present = [bucket for bucket, number in numbers.items() if number > 0]
    if not total or width < len(present):
        return {}
    given = {bucket: max(1, numbers[bucket] * width // total) for bucket in present}

    def beyond(bucket: Bucket) -> float:
        """What a state has beyond its share."""
        return given[bucket] - numbers[bucket] * width / total

    while sum(given.values()) > width:
        given[max((bucket for bucket in present if given[bucket] > 1), key=beyond)] -= 1
    while sum(given.values()) < width:
        given[min(present, key=beyond)] += 1
    return given


def bar(counts: Mapping[str, int], width: int, *, utf8: bool) -> rich.text.Text:
    """The bar; empty dots if there are no jobs yet."""
    drawn = rich.text.Text(no_wrap=True)
    pending = LOOKS[Bucket.PENDING]
    given = cells(counts, width)
    for bucket, number in given.items():
        drawn.append(_character(LOOKS[bucket], utf8) * number, LOOKS[bucket].style)
    if not given:
        drawn.append(_character(pending, utf8) * width, pending.style)
    return drawn


def legend(counts: Mapping[str, int], *, utf8: bool) -> list[rich.text.Text]:
    """For each state that has jobs: its character, their number, its name."""
    return [
        rich.text.Text.assemble(
            (_character(look, utf8), look.style), f" {counts[bucket.value]:,} {bucket.value.replace('_', ' ')}"
        )
        for bucket, look in LOOKS.items()
        if counts.get(bucket.value)
    ]


def _character(look: Look, utf8: bool) -> str:
    return look.character if utf8 else look.plain


def is_utf8(encoding: str | None) -> bool:
    """Whether a terminal with this encoding shows blocks and dots."""
    return (encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")
