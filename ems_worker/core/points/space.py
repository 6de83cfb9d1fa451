"""The points of a plan: how many there are, and each of them, one at a time and from any of them on.

The order is stable: entries of `runs` first, within each the grid of `parameter_space` in the plan's order (a zip group
at its first axis), the last axis fastest, and samples within each cell of the grid. Point i is worked out from i alone,
so that an interrupted expansion goes on where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import problems
from ems_worker.core.points import plan as plans

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


def settling(plan: plans.Plan, most_jobs: int | None = None) -> Iterator[Count]:
    """What reading a plan left open, found out step by step: the count so far after each, in the end the exact one.

    That may take half a minute or more, in steps of some 20 ms. `most_jobs`: of whoever is to run it. Raises
    PlanRejected where an expression has no value at some point, there are no points or too many jobs; as soon as that
    is known.
    """
    bound = count(plan)
    _refuse_many(plan, most_jobs, bound if bound.exact else Count(0, 0), bound)
    found = problems.Problems()
    total = bound.points
    for total in () if plan.grid.settled else plan.grid.trying(found):
        so_far = Count(total, total * plan.replicates, exact=False)
        _refuse_many(plan, most_jobs, so_far, bound)
        yield so_far
    if total == 0 and not len(found):
        found.add("no_points", ("constraints",), "no combination is left", on_key=True)
    if len(found):
        raise errors.PlanRejected(found.found())
    yield Count(total, total * plan.replicates)


def _refuse_many(plan: plans.Plan, most_jobs: int | None, so_far: Count, bound: Count) -> None:
    """Raises PlanRejected if there are more jobs than the plan allows, or whoever is to run it."""
    jobs = f"{so_far.jobs:,} jobs" if bound.exact else f"{so_far.jobs:,} jobs or more ({bound.jobs:,} at most)"
    found = problems.Problems()
    if plan.design.max_jobs is not None and so_far.jobs > plan.design.max_jobs:
        message = f"{jobs}, and this plan allows {plan.design.max_jobs:,}"
        found.add("too_many_jobs", ("design", "max_jobs"), message)
    if most_jobs is not None and so_far.jobs > most_jobs:
        message = f"the plan has {jobs}; this worker takes {most_jobs:,} at most (EMS_MAX_JOBS)"
        found.add("too_many_jobs", (), message, on_key=True)
    if len(found):
        raise errors.PlanRejected(found.found())


def exact_count(plan: plans.Plan) -> Count:
    """As `count`, exact always; raises what `settling` does."""
    *_, found = settling(plan)
    return found


def points(plan: plans.Plan, start: int = 0, tries: int | None = None) -> Iterator[Point]:
    """The points from number `start` on, in order. Beginning in the middle costs no more than at 0.

    Where the count is a bound only, combinations are tried in turn, so many `tries` at most: going on after the last
    one tried costs no more, beginning anywhere else costs what trying all before it does.
    """
    for index, (run, params) in enumerate(plan.grid.combinations(start, tries), start):
        yield Point(index, params, run.run_id_suffix, run.labels)
