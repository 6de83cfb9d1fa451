"""The points of a plan: their number, and the points themselves, from any of them on.

The order is stable: entries of `runs` vary slowest, then the axes of `variables` and `parameter_space` in the plan's
order (a zip group has the position of its first axis); samples vary fastest. Spaces follow one after another. Point i
follows from i alone, so that an interrupted expansion continues where it stopped.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical, seeds
from ems_worker.core.language.problems import Problems
from ems_worker.core.points import plan as plans
from ems_worker.core.points.plan import Plan

JSON = canonical.JSON

# The steps between two yields: about 20 ms.
_STEPS_PER_YIELD: Final = 40_000


@dataclass(frozen=True, slots=True)
class SpaceSize:
    """The number of points and jobs of a plan. Unless `exact`, both are upper bounds."""

    points: int
    jobs: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """A point: its parameters by name, and the suffix and labels of its entry of `runs`, without the plan's labels."""

    index: int
    params: dict[str, JSON]
    run_id_suffix: str | None
    labels: dict[str, str]


def count(plan: Plan) -> SpaceSize:
    """The number of points and jobs as far as it is known without making points."""
    grid = plan.grid
    points = grid.total if grid.exact else min(grid.total, seeds.POINTS - 1)
    return SpaceSize(points, points * plan.replicates, grid.exact)


def settle(plan: Plan, max_jobs: int | None = None) -> Iterator[SpaceSize]:
    """Evaluates, step by step, what parsing left open. Yields the numbers so far, at last the exact ones.

    It may take many seconds, in steps of about 20 ms. `max_jobs` is the worker's limit. Raises PlanRejected as soon as
    an expression has no value at a point, or the plan has no points or too many of them or of jobs.
    """
    problems, grid = Problems(), plan.grid
    while not (grid.exact or len(problems)):
        grid.advance(_STEPS_PER_YIELD, problems)
        yield count(plan)
    if not len(problems):
        plans.check_size(grid, plan.max_jobs, plan.replicates, problems)
        jobs = grid.total * plan.replicates
        if max_jobs is not None and jobs > max_jobs:
            message = f"the plan has {jobs:,} jobs; this worker accepts at most {max_jobs:,} (EMS_MAX_JOBS)"
            problems.add("too_many_jobs", (), message, on_key=True)
    while not (grid.settled or len(problems)):
        grid.advance(_STEPS_PER_YIELD, problems)
        yield count(plan)
    if len(problems):
        raise errors.PlanRejected(problems.collected())
    yield count(plan)


def points(plan: Plan, start: int = 0, max_steps: float = math.inf) -> Iterator[Point]:
    """The points from number `start` on, in order. Starting in the middle costs no more than starting at 0.

    If the count is only an upper bound, the points are counted first, in at most `max_steps`. If these are too few,
    there are no points yet, and another call continues.
    """
    for index, (listed, params) in enumerate(plan.grid.combinations(start, max_steps), start):
        yield Point(index, params, listed.run_id_suffix, listed.labels)
