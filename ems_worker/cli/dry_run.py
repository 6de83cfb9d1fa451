"""What a plan would do, without doing it: how much, which configurations, which seeds."""

import collections
import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ems_worker.cli import follow, shell, tables
from ems_worker.core import ids
from ems_worker.core.points import plan, render, space

# Rows of the seed table, for plans with a seed for each job.
_SEEDS = 12
# Combinations that are tried to tell how many satisfy the constraints.
_TRIED = 100_000
# Stands in the names of runs for an id that the worker will give.
_NO_ID_YET = "EXPERIMENT"


def show(parsed: plan.Plan, count: space.SpaceSize, guess: Mapping[str, Any] | None = None) -> None:
    """Prints the size of the plan, the first and the last configuration as differences from the base, the seeds.

    `guess` is the worker's estimate of the time, where it has one.
    """
    count = _counted(parsed, count)
    shell.out(size(count, parsed.replicates))
    if guess is not None:
        shell.out(estimated(guess))
    if count.points == 0:
        return
    template = render.Template(parsed)
    base = render.block(parsed.base)
    for point, replicate in _first_and_last(parsed, count):
        shell.out("")
        for line in _difference(parsed, template, base, point, replicate):
            shell.out(line)
    shell.out("")
    _seed_table(parsed, count)


def size(count: space.SpaceSize, replicates: int) -> str:
    """Points and jobs, as a sentence."""
    most = "" if count.exact else "at most "
    each = f" with {replicates} replicates each" if replicates > 1 else ""
    return f"{most}{_many(count.points, 'point')}{each}: {_many(count.jobs, 'job')}"


def estimated(guess: Mapping[str, Any]) -> str:
    """The estimate of `ems.decision.v1`, as a sentence."""
    each = f"{guess['mean_run_seconds']:.3g} s a run, from {_many(guess['runs'], 'earlier run')} of this model"
    return f"estimated time: {follow.duration(guess['seconds'])} ({each}; {guess['slots']:,} at once)"


def _counted(parsed: plan.Plan, count: space.SpaceSize) -> space.SpaceSize:
    """The exact count, where making all points to find out doesn't take long."""
    if count.exact or count.points > _TRIED:
        return count
    points = sum(1 for _ in space.points(parsed))
    return space.SpaceSize(points, points * parsed.replicates)


def _first_and_last(parsed: plan.Plan, count: space.SpaceSize) -> Iterator[tuple[space.Point, int]]:
    """The first job and the last, as point and replicate; the last only where it is known which that is."""
    yield next(space.points(parsed)), 0
    if count.exact and count.jobs > 1:
        (last,) = collections.deque(space.points(parsed, count.points - 1), maxlen=1)
        yield last, parsed.replicates - 1


def _difference(
    parsed: plan.Plan, template: render.Template, base: str, point: space.Point, replicate: int
) -> Iterator[str]:
    """One run's configuration against the base, as a unified diff."""
    run = ids.simulation_id(parsed.experiment_id or _NO_ID_YET, point.index, replicate, 1)
    config = template.render(point.params, parsed.seeds.of(point.index, replicate), run).decode()
    lines = difflib.unified_diff(base.splitlines(), config.splitlines(), "base configuration", run, lineterm="")
    return iter(list(lines) or [f"{run} gets the base configuration as it is"])


def _seed_table(parsed: plan.Plan, count: space.SpaceSize) -> None:
    """The first seeds: one a replicate where all points share them, else one a job."""
    each_job = parsed.seeds.policy == "independent"
    total = count.jobs if each_job else parsed.replicates
    jobs = itertools.islice(itertools.product(range(count.points), range(parsed.replicates)), min(total, _SEEDS))
    rows = [(str(p) if each_job else "all", str(r), str(parsed.seeds.of(p, r))) for p, r in jobs]
    tables.show(("point", "replicate", "seed"), rows, numbers=(0, 1, 2))
    if total > len(rows):
        shell.out(f"... and {total - len(rows):,} more")


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
