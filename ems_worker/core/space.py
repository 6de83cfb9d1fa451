"""The points of a plan: how many there are, and each of them, one at a time and from any of them on.

The order is stable: entries of `runs` first, within each the grid of `parameter_space` in the plan's order (a zip group
at its first axis), the last axis fastest, and samples within each cell of the grid. Point i is worked out from i alone,
so that an interrupted expansion goes on where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ems_worker.core import canonical
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
    return Count(plan.grid.total, plan.grid.total * plan.replicates, plan.grid.exact)


def exact_count(plan: plans.Plan) -> Count:
    """As `count`, exact always: where that is a bound, combinations are tried, which may take some twenty seconds."""
    if plan.grid.exact:
        return count(plan)
    found = plan.grid.tried()
    return Count(found, found * plan.replicates)


def points(plan: plans.Plan, start: int = 0) -> Iterator[Point]:
    """The points from number `start` on, in order. Beginning in the middle costs no more than at 0.

    Where the count is a bound only, combinations are tried in turn: going on after the last point made costs no more,
    beginning anywhere else costs what trying all before it does.
    """
    for index, (run, params) in enumerate(plan.grid.combinations(start), start):
        yield Point(index, params, run.run_id_suffix, run.labels)
