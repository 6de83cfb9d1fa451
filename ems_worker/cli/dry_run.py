"""What a plan would do, without doing it: how much, which configurations, which seeds."""

import difflib
import itertools
from collections.abc import Iterator

from ems_worker.cli import shell, tables
from ems_worker.core import ids, plan, render, space

# Rows of the seed table, for plans with a seed for each job.
_SEEDS = 12
# Stands in the names of runs for an id that the worker will give.
_NO_ID_YET = "EXPERIMENT"


def show(parsed: plan.Plan, count: space.Count) -> None:
    """Prints the size of the plan, the first and the last configuration as differences from the base, the seeds."""
    shell.out(size(count, parsed.replicates))
    template = render.Template(parsed)
    base = render.block(parsed.base)
    last = count.points - 1
    jobs = [(0, 0), (last, parsed.replicates - 1)] if count.jobs > 1 else [(0, 0)]
    for point, replicate in jobs:
        shell.out("")
        for line in _difference(parsed, template, base, point, replicate):
            shell.out(line)
    shell.out("")
    _seed_table(parsed, count)


def size(count: space.Count, replicates: int) -> str:
    """Points and jobs, as a sentence."""
    most = "" if count.exact else "at most "
    each = f" with {replicates} replicates each" if replicates > 1 else ""
    return f"{most}{_many(count.points, 'point')}{each}: {_many(count.jobs, 'job')}"


def _difference(parsed: plan.Plan, template: render.Template, base: str, number: int, replicate: int) -> Iterator[str]:
    """One run's configuration against the base, as a unified diff."""
    point = next(space.points(parsed, number))
    seed = _seed(parsed, number, replicate)
    run = ids.simulation_id(parsed.experiment_id or _NO_ID_YET, number, replicate, 1)
    config = template.render(point.params, seed, run).decode()
    lines = difflib.unified_diff(base.splitlines(), config.splitlines(), "base configuration", run, lineterm="")
    changed = list(lines)
    return iter(changed or [f"{run} gets the base configuration as it is"])


def _seed_table(parsed: plan.Plan, count: space.Count) -> None:
    """The first seeds: one a replicate where all points share them, else one a job."""
    each_job = parsed.seeds.policy == "independent"
    total = count.jobs if each_job else parsed.replicates
    jobs = itertools.islice(itertools.product(range(count.points), range(parsed.replicates)), min(total, _SEEDS))
    rows = [(str(p) if each_job else "all", str(r), str(_seed(parsed, p, r))) for p, r in jobs]
    tables.show(("point", "replicate", "seed"), rows, numbers=(0, 1, 2))
    if total > len(rows):
        shell.out(f"... and {total - len(rows):,} more")


def _seed(parsed: plan.Plan, point: int, replicate: int) -> int:
    return parsed.seeds.of(point, replicate)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
