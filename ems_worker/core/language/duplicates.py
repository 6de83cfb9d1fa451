"""Duplicate values of axes: of values that vary together, equal rows count once, with a warning."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import quotes, ranges
from ems_worker.core.language.axis_values import Varied
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

# To find the equal values of a range, all of them have to be computed.
_MAX_DENSE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one axis by its name."""

    name: str
    source: Varied

    @property
    def values(self) -> Sequence[JSON]:
        return self.source.values


def dropped(columns: Sequence[Column], location: Location, problems: Problems) -> list[Sequence[JSON]]:
    """The values of axes that vary together, equally many each, without repeated rows.

    Repeated rows of lists get a warning each, at the first list; those of ranges get a single one, at `location`.
    Ranges that would take too long to compare are a problem.
    """
    unchanged = [column.values for column in columns]
    spaced = [column.values for column in columns if isinstance(column.values, ranges.Spaced)]
    if not all(values.dense for values in spaced):
        return unchanged  # the values of one column are all different
    lists = [column for column in columns if not isinstance(column.values, ranges.Spaced)]
    size = ranges.size(unchanged[0])
    if not lists and size > _MAX_DENSE:
        message = "the values are closer together than floating-point numbers"
        problems.add("out_of_range", location, f"{message}; such a range has at most {_MAX_DENSE:,} values")
        return unchanged
    firsts: dict[int, int] = {}
    marks = bytes([firsts.setdefault(digest(unchanged, row), row) == row for row in range(size)])
    distinct = len(firsts)
    if distinct == size:
        return unchanged
    for index in (index for index, is_first in enumerate(marks) if lists and not is_first):
        row = [values[index] for values in unchanged]
        what = quotes.brief(row[0]) if len(columns) == 1 else _combination(columns, row)
        problems.warn("duplicate_value", lists[0].source.at(index), f"{what} is repeated and counts once")
    if not lists:
        message = f"{size - distinct} of these {size} values equal earlier ones; each counts once"
        problems.warn("duplicate_value", location, message)
    return [list(compress(values, marks)) for values in unchanged]


def digest(columns: Sequence[Sequence[JSON]], row: int) -> int:
    """A number for a row; rows are equal if their numbers are."""
    text = canonical.text([column[row] for column in columns])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _combination(columns: Sequence[Column], row: Sequence[JSON]) -> str:
    values = zip(columns, row, strict=True)
    return f"the combination {', '.join(f'{column.name} = {quotes.brief(value)}' for column, value in values)}"
