"""Values that a plan says twice: what varies together counts once where all of it is equal, with a warning."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import first_occurrences, problems, ranges

JSON = canonical.JSON

# Values of a range are worked out one by one to find those that are equal.
_MOST_DENSE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one axis, and where the plan says them."""

    name: str
    values: Sequence[JSON]
    place: problems.Place


def without(
    columns: Sequence[Column], place: problems.Place, found: problems.Problems, odd: problems.Problems
) -> list[Sequence[JSON]]:
    """The values of axes that vary together, as many of each, without the rows that are there already.

    A row that is, is told where a list says it; of ranges all are told at once, at `place`. Ranges that would have to
    be walked for too long go to `found`.
    """
    as_they_are = [column.values for column in columns]
    spaced = [column.values for column in columns if isinstance(column.values, ranges.Spaced)]
    if not all(values.dense for values in spaced):
        return as_they_are  # a column of which no two values are equal
    written = [column for column in columns if not isinstance(column.values, ranges.Spaced)]
    size = ranges.size(as_they_are[0])
    if not written and size > _MOST_DENSE:
        message = f"values closer to each other than numbers are exact; a range has {_MOST_DENSE:,} of these at most"
        found.add("out_of_range", place, message)
        return as_they_are
    marks = first_occurrences.marks(as_they_are, size)
    once = sum(marks)
    if once == size:
        return as_they_are
    for index in (index for index, is_first in enumerate(marks) if written and not is_first):
        row = [values[index] for values in as_they_are]
        told = problems.brief(row[0]) if len(columns) == 1 else _combination(columns, row)
        odd.add("duplicate_value", (*written[0].place, index), f"{told} is there twice and counts once")
    if not written:
        odd.add("duplicate_value", place, f"{size - once} of these {size} values equal others: each counts once")
    return [list(compress(values, marks)) for values in as_they_are]


def _combination(columns: Sequence[Column], row: Sequence[JSON]) -> str:
    values = zip(columns, row, strict=True)
    return f"the combination {', '.join(f'{column.name} = {problems.brief(value)}' for column, value in values)}"
