"""Shows what a plan would run: its size, its time, some of its points, its first and last configurations."""

import difflib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ems_worker.cli import listing, numbers, shell, statuses
from ems_worker.core import ids
from ems_worker.core.documents import headings
from ems_worker.core.points import plan, render, space

# Stands for the experiment's id in the ids of runs if the plan has none.
_UNKNOWN_ID = "EXPERIMENT"
# Up to this number, all points are shown.
_MAX_WHOLE = 12


def show(parsed: plan.Plan, count: space.SpaceSize, decision: Mapping[str, Any] | None, argument: str) -> None:
    """Prints a checked plan's size and time, some points, and the first and last configurations as differences.

    `decision` is the worker's `ems.decision.v1` on the plan, None if no worker answers. `argument` named the plan.
    """
    shell.out(size(count, parsed.replicates))
    if decision is None:
        shell.out("estimated time: unknown, because no worker answers")
    else:
        shell.out(estimated_time(decision["estimate"], count.jobs))
    shell.out("")
    points = [next(space.points(parsed, number)) for number in _sample(count.points)]
    _table(parsed, points)
    # A name that could be an experiment's id needs a ./ before it.
    file = shlex.quote(f"./{argument}" if ids.EXPERIMENT_ID.fullmatch(argument) else argument)
    shell.out(f"all points: ems points {file}; all jobs: ems points --jobs {file}")
    template = render.Template(parsed)
    base = render.block(parsed.base)
    last = [(points[-1], parsed.replicates - 1)] if count.jobs > 1 else []
    for point, replicate in [(points[0], 0), *last]:
        shell.out("")
        for line in _difference(parsed, template, base, point=point, replicate=replicate):
            shell.out(line)


def size(count: space.SpaceSize, replicates: int) -> str:
    """The numbers of points and jobs as a phrase."""
    each = f" with {replicates:,} replicates each" if replicates > 1 else ""
    return f"{numbers.counted(count.points, 'point')}{each}: {numbers.counted(count.jobs, 'job')}"


def estimated_time(estimate: Mapping[str, Any] | None, jobs: int) -> str:
    """The estimate of an `ems.decision.v1` as a line: the time until the last run ends, and that of all runs."""
    if estimate is None:
        return "estimated time: unknown, because no earlier run is comparable"
    mean, slots = estimate["mean_run_seconds"], min(estimate["slots"], jobs)
    at_once = f", {slots:,} at once" if slots > 1 else ""
    whole = f"{statuses.duration(mean * jobs)} of runs" if slots > 1 else ""
    each = f"{mean:.3g} s a run, from {numbers.counted(estimate['runs'], 'earlier run')} of this model"
    return f"estimated time: {statuses.duration(estimate['seconds'])} ({whole}{at_once}{whole and '; '}{each})"


def _sample(points: int) -> list[int]:
    """The numbers of the first and the last points, and of a few between."""
    if points <= _MAX_WHOLE:
        return list(range(points))
    return [0, 1, 2, points // 4, points // 2, points * 3 // 4, points - 2, points - 1]


def _table(parsed: plan.Plan, points: list[space.Point]) -> None:
    # Each entry of `runs` may have parameters of its own.
    names = [parameter.name for parameter in parsed.parameters]
    names = [name for name in names if any(name in point.params for point in points)]
    table = listing.Table(names, parsed.replicates, headings.by_name(parsed.parameters))
    previous = -1
    for point in points:
        if point.index > previous + 1:
            table.add_gap()
        table.show(listing.of_point(parsed, point))
        previous = point.index
    table.flush()


def _difference(
    parsed: plan.Plan, template: render.Template, base: str, *, point: space.Point, replicate: int
) -> Iterator[str]:
    """A unified diff from the base configuration to a run's configuration."""
    run = ids.simulation_id(parsed.experiment_id or _UNKNOWN_ID, point.index, replicate, 1)
    config = template.render(point.params, parsed.seeds.of(point.index, replicate), run).decode()
    lines = difflib.unified_diff(base.splitlines(), config.splitlines(), "base configuration", run, lineterm="")
    return iter(list(lines) or [f"{run} gets the base configuration unchanged"])
