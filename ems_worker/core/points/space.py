"""The points of a plan: their number, and the points themselves, from any of them on.

The order is stable: entries of `runs` vary slowest, then the axes of `parameter_space` in the plan's order (a zip group
has the position of its first axis); samples vary fastest. Point i follows from i alone, so that an interrupted
expansion continues where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.plan import Plan

JSON = canonical.JSON


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
    return SpaceSize(plan.grid.total, plan.grid.total * plan.replicates, plan.grid.exact)


def settle(plan: Plan, max_jobs: int | None = None) -> Iterator[SpaceSize]:
    """Evaluates, step by step, what parsing left open. Yields the numbers so far, at last the exact ones.

    It may take half a minute or more, in steps of about 20 ms. `max_jobs` is the worker's limit. Raises PlanRejected as
    soon as an expression has no value at a point, or the plan has no points or too many jobs.
    """
    bound = count(plan)
    _refuse_too_many_jobs(plan, max_jobs, bound if bound.exact else SpaceSize(0, 0), bound)
    problems = Problems()
    total = bound.points
    for total in () if plan.grid.settled else plan.grid.settle(problems):
        so_far = SpaceSize(total, total * plan.replicates, exact=False)
        _refuse_too_many_jobs(plan, max_jobs, so_far, bound)
        yield so_far
    if total == 0 and not len(problems):
        problems.add("no_points", ("constraints",), "no combination satisfies the constraints", on_key=True)
    if len(problems):
        raise errors.PlanRejected(problems.collected())
    yield SpaceSize(total, total * plan.replicates)


def _refuse_too_many_jobs(plan: Plan, max_jobs: int | None, so_far: SpaceSize, bound: SpaceSize) -> None:
    """Raises PlanRejected if there are more jobs than the plan or the worker allows."""
    jobs = f"{so_far.jobs:,} jobs" if bound.exact else f"{so_far.jobs:,} jobs or more ({bound.jobs:,} at most)"
    problems = Problems()
    if plan.design.max_jobs is not None and so_far.jobs > plan.design.max_jobs:
        message = f"the plan has {jobs}, and its max_jobs is {plan.design.max_jobs:,}"
        problems.add("too_many_jobs", ("design", "max_jobs"), message)
    if max_jobs is not None and so_far.jobs > max_jobs:
        message = f"the plan has {jobs}; this worker accepts at most {max_jobs:,} (EMS_MAX_JOBS)"
        problems.add("too_many_jobs", (), message, on_key=True)
    if len(problems):
        raise errors.PlanRejected(problems.collected())


def points(plan: Plan, start: int = 0, max_evaluations: int | None = None) -> Iterator[Point]:
    """The points from number `start` on, in order. Starting in the middle costs no more than starting at 0.

    If the count is only an upper bound, combinations are evaluated one by one, at most `max_evaluations` of them:
    continuing after the latest point costs no more, but starting at any other evaluates all combinations before it.
    """
    for index, (listed, params) in enumerate(plan.grid.combinations(start, max_evaluations), start):
        yield Point(index, params, listed.run_id_suffix, listed.labels)
