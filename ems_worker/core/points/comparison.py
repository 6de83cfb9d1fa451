"""Which points of several spaces are equal: those that give every parameter of all spaces the same value.

A parameter that a point leaves out has the base configuration's value. A mapping counts as what it is when it is
merged.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import paths, ranges
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Constant, Sampled, Varied
from ems_worker.core.language.samples import Choice
from ems_worker.core.points.names import MISSING, Missing, Names, Value
from ems_worker.core.points.work_limits import Work

JSON = canonical.JSON

# Longer texts, lists and mappings are compared by their digests, which are kept.
_MAX_TEXT: Final = 64
_MAX_KEPT: Final = 10_000
# The steps of a value.
_STEPS: Final = 4
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
        self._spaces = spaces
        self._work = work
        first = spaces[0]
        self._columns = [
            _Column(axis.name, base, axis.replace) for axis, base in zip(first.axes, first.bases, strict=True)
        ]
        # By column and id of the value, which is kept beside its mark so that the id stays unique.
        self._marks: dict[tuple[str, int], tuple[JSON, JSON]] = {}

    def key(self, entry: int, params: Mapping[str, JSON]) -> bytes:
        """A digest of a point of an entry of `runs`. Points are equal if their digests are."""
        self._work.spend(len(self._columns) * _STEPS)
        row = [self._mark(column, params.get(column.name, MISSING)) for column in self._columns]
        return hashlib.blake2b(canonical.text([entry, *row]).encode(), digest_size=16).digest()

    def groups(self) -> Iterator[list[list[int]] | None]:
        """The numbers of the spaces that may have points in common, in groups; None until the last step.

        Two spaces have none if there is a parameter that never has the same value in both.
        """
        possible: list[list[frozenset[str] | None]] = []
        for names in self._spaces:
            by_name = {axis.name: axis for axis in names.axes}
            possible.append([])
            for column in self._columns:
                possible[-1].append(self._possible(column, by_name[column.name]))
                yield None
        groups: list[list[int]] = []
        for number, own in enumerate(possible):
            joined, separate = [number], []
            for group in groups:
                if any(self._may_meet(own, possible[other]) for other in group):
                    joined += group
                else:
                    separate.append(group)
                yield None
            groups = [*separate, joined]
        yield [sorted(group) for group in groups if len(group) > 1]

    def _possible(self, column: _Column, axis: Axis) -> frozenset[str] | None:
        """The values that an axis can have, as text; None if they are too many, or not known."""
        values: Sequence[JSON] = ()
        match axis.source:
            case Varied() | Constant():
                values = axis.values
            case Sampled(distribution=Choice()):
                values = axis.source.choices
        size = ranges.size(values)
        if not 0 < size <= _MAX_LISTED:
            return None
        self._work.spend(size * _STEPS)
        found = {canonical.text(self._mark(column, values[index])) for index in range(size)}
        if axis.when is not None:
            found.add(canonical.text(self._mark(column, MISSING)))
        return frozenset(found)

    def _may_meet(self, own: Sequence[frozenset[str] | None], others: Sequence[frozenset[str] | None]) -> bool:
        for values, other in zip(own, others, strict=True):
            if values is not None and other is not None:
                self._work.spend(min(len(values), len(other)) // _STEPS)
                if values.isdisjoint(other):
                    return False
        return True

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


def _merged(column: _Column, value: JSON) -> JSON:
    """A value as a part of the configuration."""
    if not (isinstance(value, dict) and isinstance(column.base, dict)) or column.replace:
        return value
    merged: object = paths.copied(column.base)
    for path, leaf in paths.leaves(column.base, value):
        merged = paths.put(merged, path, paths.copied(leaf))
    return merged  # type: ignore[return-value]  # what plain data is merged to
