"""Which points of several spaces are equal: those that give every parameter of all spaces the same value.

A parameter that a point leaves out has the base configuration's value. A mapping counts as what it is when it is
merged.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import paths, ranges
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Constant, Sampled, Varied
from ems_worker.core.language.quantiles import Choice
from ems_worker.core.points.names import MISSING, Missing, Names, Value
from ems_worker.core.points.work_limits import Work

JSON = canonical.JSON

# Longer texts, lists and mappings are compared by their digests, which are kept.
_MAX_TEXT: Final = 64
_MAX_KEPT: Final = 10_000
# The steps of a value.
_STEPS: Final = 4
# The steps of a value that is computed to look at it.
_LOOK: Final = 20
# Axes of more values are not looked through: their points are compared one by one.
_MAX_LISTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Column:
    """A parameter, and the base configuration's value."""

    name: str
    base: Value
    replace: bool


class Comparison:
    """Compares points by the parameters of all spaces; each `Names` has all of them."""

    def __init__(self, spaces: Sequence[Names], work: Work) -> None:
        self._work = work
        self._axes = [{axis.name: axis for axis in names.axes} for names in spaces]
        columns = [
            _Column(axis.name, base, axis.replace) for axis, base in zip(spaces[0].axes, spaces[0].bases, strict=True)
        ]
        # Those with few values first: often they show that spaces have no points in common.
        self._columns = sorted(columns, key=lambda column: sum(len(_listed(axes[column.name])) for axes in self._axes))
        self._sets: dict[tuple[int, str], frozenset[str] | None] = {}
        # By column and id of the value, which is kept beside its mark so that the id stays unique.
        self._marks: dict[tuple[str, int], tuple[JSON, JSON]] = {}

    def key(self, entry: int, params: Mapping[str, JSON]) -> bytes:
        """A digest of a point of an entry of `runs`. Points are equal if their digests are."""
        self._work.spend(len(self._columns) * _STEPS)
        row = [self._mark(column, params.get(column.name, MISSING)) for column in self._columns]
        return hashlib.blake2b(canonical.text([entry, *row]).encode(), digest_size=16).digest()

    def groups(self) -> Generator[None, None, list[list[int]]]:
        """The numbers of the spaces that may have points in common, in groups. It is found in short steps.

        Two spaces have none if there is a parameter that never has the same value in both.
        """
        groups: list[list[int]] = []
        for number in range(len(self._axes)):
            joined, separate = [number], []
            for group in groups:
                meets = False
                for other in group:
                    meets = meets or (yield from self._may_meet(number, other))
                if meets:
                    joined += group
                else:
                    separate.append(group)
            groups = [*separate, joined]
        return [sorted(group) for group in groups if len(group) > 1]

    def _may_meet(self, one: int, other: int) -> Generator[None, None, bool]:
        self._work.spend(len(self._columns))
        for column in self._columns:
            values, others = self._possible(one, column), self._possible(other, column)
            if values is not None and others is not None and values.isdisjoint(others):
                self._work.spend(min(len(values), len(others)))
                return False
            yield
        return True

    def _possible(self, space: int, column: _Column) -> frozenset[str] | None:
        """The values that a parameter can have in a space, as text; None if they are too many, or not known."""
        place = (space, column.name)
        if place not in self._sets:
            axis = self._axes[space][column.name]
            listed = _listed(axis)
            self._work.spend(len(listed) * _LOOK)
            found = {canonical.text(self._mark(column, listed[index])) for index in range(len(listed))}
            if axis.when is not None:
                found.add(canonical.text(self._mark(column, MISSING)))
            self._work.keep(4 + 2 * len(found))
            self._sets[place] = frozenset(found) if listed else None
        return self._sets[place]

    def _mark(self, column: _Column, value: Value) -> JSON:
        """What stands for a value: itself, or a list if it is long or missing."""
        if isinstance(value, Missing):
            value = column.base
        if isinstance(value, Missing):
            return []
        if not isinstance(value, str | list | dict) or (isinstance(value, str) and len(value) <= _MAX_TEXT):
            return value
        place = (column.name, id(value))
        if place not in self._marks:
            if len(self._marks) >= _MAX_KEPT:
                self._marks.clear()
            text = canonical.text(_merged(column, value))
            self._marks[place] = (value, [hashlib.blake2b(text.encode(), digest_size=16).hexdigest()])
        return self._marks[place][1]


def _listed(axis: Axis) -> Sequence[JSON]:
    """All values that an axis can have; none if they are too many, or not known."""
    values: Sequence[JSON] = ()
    match axis.source:
        case Varied() | Constant():
            values = axis.values
        case Sampled(distribution=Choice()):
            values = axis.source.choices
    return values if ranges.size(values) <= _MAX_LISTED else ()


def _merged(column: _Column, value: JSON) -> JSON:
    """A value as a part of the configuration."""
    if not (isinstance(value, dict) and isinstance(column.base, dict)) or column.replace:
        return value
    merged: object = paths.copied(column.base)
    for path, leaf in paths.leaves(column.base, value):
        merged = paths.put(merged, path, paths.copied(leaf))
    return merged  # type: ignore[return-value]  # what plain data is merged to
