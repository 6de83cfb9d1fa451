"""Dimensions: what varies together. Combinations are numbers with one digit per dimension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from ems_worker.core.language import ranges
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.points.names import Names

# The number of the dimension of `runs`, if the plan has them.
LISTED: Final = 0


@dataclass(frozen=True, slots=True)
class Dimension:
    """Values that vary together: `size` values for each of these axes. Without axes: the entries of `runs`."""

    axes: tuple[int, ...]
    size: int


def arrange(names: Names, zips: Sequence[Sequence[int]], listed: Sequence[ListedPoint] | None) -> tuple[Dimension, ...]:
    """The dimensions in the order of points: entries of `runs`, axes and zip groups in the plan's order, samples."""
    group_of = {axis: tuple(sorted(group)) for group in zips for axis in group}
    varied: dict[tuple[int, ...], Dimension] = {}
    sampled: list[int] = []
    for number, axis in enumerate(names.axes):
        match axis.source:
            case Sampled():
                sampled.append(number)
            case Varied():
                group = group_of.get(number, (number,))
                size = ranges.size(axis.values)
                if size > 1:  # a single value needs no digit
                    varied.setdefault(group, Dimension(group, size))
            case Constant() | Derived() | None:
                pass
            case _:
                assert_never(axis.source)
    arranged = [] if listed is None else [Dimension((), len(listed))]
    arranged += varied.values()
    if sampled:
        arranged.append(Dimension(tuple(sampled), len(names.axes[sampled[0]].values)))
    return tuple(arranged)
