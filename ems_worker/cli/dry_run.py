"""Shows what a plan would run: its size, its first and last configurations, and its seeds."""

import collections
import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ems_worker.cli import shell, statuses, tables
from ems_worker.core import ids
from ems_worker.core.points import plan, render, space

# The number of rows in the seed table: a plan may have a seed for each job.
_MAX_SEEDS = 12
# Stands for the experiment's id in the ids of runs if the plan has none.
_UNKNOWN_ID = "EXPERIMENT"


def show(parsed: plan.Plan, count: space.SpaceSize, estimate: Mapping[str, Any] | None = None) -> None:
    """Prints a checked plan's size, its first and last configurations as differences from the base, and its seeds.

    `estimate` is the worker's estimate of the time, if it has one.
    """
    shell.out(size(count, parsed.replicates))
    if estimate is not None:
        shell.out(estimated_time(estimate))
    template = render.Template(parsed)
    base = render.block(parsed.base)
    for point, replicate in _first_and_last(parsed, count):
        shell.out("")
        for line in _difference(parsed, template, base, point=point, replicate=replicate):
            shell.out(line)
    shell.out("")
    _seed_table(parsed, count)


def size(count: space.SpaceSize, replicates: int) -> str:
    """The numbers of points and jobs as a phrase."""
    each = f" with {replicates} replicates each" if replicates > 1 else ""
    return f"{_counted(count.points, 'point')}{each}: {_counted(count.jobs, 'job')}"


def estimated_time(estimate: Mapping[str, Any]) -> str:
    """The estimate of an `ems.decision.v1` as a line."""
    each = f"{estimate['mean_run_seconds']:.3g} s a run, from {_counted(estimate['runs'], 'earlier run')} of this model"
    return f"estimated time: {statuses.duration(estimate['seconds'])} ({each}; {estimate['slots']:,} at once)"


def _first_and_last(parsed: plan.Plan, count: space.SpaceSize) -> Iterator[tuple[space.Point, int]]:
    """The first and the last job, each as its point and replicate."""
    yield next(space.points(parsed)), 0
    if count.jobs > 1:
        (last,) = collections.deque(space.points(parsed, count.points - 1), maxlen=1)
        yield last, parsed.replicates - 1


def _difference(
    parsed: plan.Plan, template: render.Template, base: str, *, point: space.Point, replicate: int
) -> Iterator[str]:
    """A unified diff from the base configuration to a run's configuration."""
    run = ids.simulation_id(parsed.experiment_id or _UNKNOWN_ID, point.index, replicate, 1)
    config = template.render(point.params, parsed.seeds.of(point.index, replicate), run).decode()
    lines = difflib.unified_diff(base.splitlines(), config.splitlines(), "base configuration", run, lineterm="")
    return iter(list(lines) or [f"{run} gets the base configuration unchanged"])


def _seed_table(parsed: plan.Plan, count: space.SpaceSize) -> None:
    """Prints the first seeds: of each replicate if all points share them, else of each job."""
    each_job = parsed.seeds.policy == "independent"
    total = count.jobs if each_job else parsed.replicates
    jobs = itertools.islice(itertools.product(range(count.points), range(parsed.replicates)), min(total, _MAX_SEEDS))
    rows = [
        (str(point) if each_job else "all", str(replicate), str(parsed.seeds.of(point, replicate)))
        for point, replicate in jobs
    ]
    tables.show(("point", "replicate", "seed"), rows, numbers=(0, 1, 2))
    if total > len(rows):
        shell.out(f"... and {total - len(rows):,} more")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
