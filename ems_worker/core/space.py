"""The points of a plan: how many there are, by arithmetic, and each of them, one at a time and from any of them on.

The order is stable: entries of `runs` first, within each the grid of `parameter_space` in the plan's order, the last
axis fastest. Point i is worked out from i alone, so that an interrupted expansion goes on where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ems_worker.core import canonical, ranges
from ems_worker.core import plan as plans

JSON = canonical.JSON


@dataclass(frozen=True, slots=True)
class Count:
    """How much a plan asks for. Unless `exact`, both numbers are upper bounds."""

    points: int
    jobs: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """One point: its parameters by name, and what its entry of `runs` says; the plan's own labels are not repeated."""

    index: int
    params: dict[str, JSON]
    run_id_suffix: str | None
    labels: dict[str, str]


def count(plan: plans.Plan) -> Count:
    """The number of points and jobs, without making any."""
    points = _grid(plan) * _runs(plan)
    return Count(points, points * plan.replicates)


def points(plan: plans.Plan, start: int = 0) -> Iterator[Point]:
    """The points from number `start` on, in order. Beginning in the middle costs no more than at 0."""
    grid = _grid(plan)
    names = [axis.name for axis in plan.axes]
    entries = plan.runs if plan.runs is not None else (plans.Run(),)
    index = start
    for number in range(start // grid, len(entries)):
        entry = entries[number]
        for values in _combinations(plan, start % grid if number == start // grid else 0):
            params = {**entry.overrides, **dict(zip(names, values, strict=True))}
            yield Point(index, params, entry.run_id_suffix, entry.labels)
            index += 1


def _grid(plan: plans.Plan) -> int:
    return prod(ranges.size(axis.values) for axis in plan.axes)


def _runs(plan: plans.Plan) -> int:
    return 1 if plan.runs is None else len(plan.runs)


def _combinations(plan: plans.Plan, start: int) -> Iterator[tuple[JSON, ...]]:
    """The grid's combinations from number `start` on."""
    sizes = [ranges.size(axis.values) for axis in plan.axes]
    digits = []
    for size in reversed(sizes):
        start, digit = divmod(start, size)
        digits.append(digit)
    yield from _from(plan.axes, digits[::-1])


def _from(axes: tuple[plans.Axis, ...], digits: list[int]) -> Iterator[tuple[JSON, ...]]:
    if not axes:
        yield ()
        return
    first, rest = axes[0].values, axes[1:]
    for values in _from(rest, digits[1:]):
        yield (first[digits[0]], *values)
    for index in range(digits[0] + 1, ranges.size(first)):
        value = first[index]
        for values in _from(rest, [0] * len(rest)):
            yield (value, *values)
