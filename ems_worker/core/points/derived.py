"""Derived values beside what the base configuration has where they go."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import problems, type_warnings
from ems_worker.core.points import scope

JSON = canonical.JSON

# So many points are looked at.
MOST: Final = 20


def judge(names: scope.Names, points: Iterable[dict[str, JSON]], odd: problems.Problems) -> None:
    """Warns of derived values of another kind than the base configuration's, by those of the first points."""
    first = list(islice(points, MOST)) if names.derivations else []
    for number in names.derivations:
        axis, there = names.axes[number], names.bases[number]
        if not isinstance(there, scope.Missing):
            given = [params[axis.name] for params in first if axis.name in params]
            type_warnings.judge(there, given, type_warnings.at((*axis.place, "expr")), odd, listed=False)
