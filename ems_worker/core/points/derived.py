"""Warnings for derived values whose type differs from the base configuration's."""

from itertools import islice
from typing import Final

from ems_worker.core.language import type_warnings
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.grid import Grid
from ems_worker.core.points.names import Missing, Names

# The number of points whose values are checked.
MAX_POINTS: Final = 20


def judge(names: Names, grid: Grid, problems: Problems) -> None:
    """Warns about derived values whose type the base configuration's value doesn't accept, at the first points."""
    if not names.derivations:
        return
    first = [params for _, params in islice(grid.combinations(0), MAX_POINTS)] if grid.exact else [grid.example()]
    for number in names.derivations:
        axis, existing = names.axes[number], names.bases[number]
        if not isinstance(existing, Missing):
            values = [params[axis.name] for params in first if axis.name in params]
            locate = type_warnings.at((*axis.location, "expr"))
            type_warnings.judge(existing, values, locate, problems, listed=False)
