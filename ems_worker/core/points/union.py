"""The points of several spaces, one space after another. A point that an earlier space has is left out."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.comparison import Comparison
from ems_worker.core.points.counting import MAX_COUNTED
from ems_worker.core.points.grid import Grid
from ems_worker.core.points.names import Names
from ems_worker.core.points.work_limits import Work, WorkLimitExceeded

JSON = canonical.JSON

# Points that are compared one by one: some seconds, and some 30 MB.
MAX_COMPARED: Final = 300_000
# The steps of making a point.
_STEPS: Final = 20
_SPACE: Final = ("parameter_space",)


class Union:
    """The combinations of several grids, equal ones once. `names` are those of each grid."""

    def __init__(
        self,
        grids: Sequence[Grid],
        names: Sequence[Names],
        listed: Sequence[ListedPoint],
        *,
        problems: Problems,
        work: Work,
    ) -> None:
        self._grids = grids
        self._work = work
        self._entries = {id(point): number for number, point in enumerate(listed)}
        self._comparison = Comparison(names, work)
        # Of each grid, the numbers of the combinations that earlier ones have, in order.
        self._repeated = [array("Q") for _ in grids]
        self._comparing = self._compare()
        self._compared = False
        # What would have to be compared, if that is too much.
        self._excess = ""
        self.advance(work.early, problems)

    @property
    def total(self) -> int:
        """The number of combinations if it is exact, otherwise an upper bound."""
        total = min(sum(grid.total for grid in self._grids), MAX_COUNTED)
        return total - sum(map(len, self._repeated)) if self._compared else total

    @property
    def exact(self) -> bool:
        """True if the combinations are counted."""
        return self._compared

    @property
    def settled(self) -> bool:
        """True if nothing is left to evaluate: every expression has a value at every combination."""
        return self._compared and all(grid.settled for grid in self._grids)

    def advance(self, steps: float, problems: Problems, *, until_exact: bool = False) -> None:
        """Continues to evaluate for some steps, or until the total is exact, and reports what that finds."""
        until = self._work.steps + steps
        for grid in self._grids:
            grid.advance(max(0, until - self._work.steps), problems, until_exact=True)
            if not grid.exact:
                return
        self._advance_comparing(until, problems)
        for grid in self._grids if self._compared and not until_exact else ():
            grid.advance(max(0, until - self._work.steps), problems)

    def combinations(self, start: int, max_steps: float = math.inf) -> Iterator[tuple[ListedPoint, dict[str, JSON]]]:
        """The entry of `runs` and the parameters of each combination from number `start` on, in order.

        If they are not counted yet, that is done first, in at most `max_steps`; if these are too few, there are no
        combinations yet, and another call continues. Raises PlanRejected if there is a problem.
        """
        problems = Problems()
        self.advance(max_steps, problems, until_exact=True)
        if len(problems):
            raise errors.PlanRejected(problems.collected())
        for grid, repeated in zip(self._grids, self._repeated, strict=True) if self._compared else ():
            own = grid.total - len(repeated)
            if start < own:
                yield from _without(grid, repeated, start)
            start = max(0, start - own)

    def values(self) -> tuple[Sequence[ListedPoint], Sequence[tuple[str, Sequence[JSON]]]]:
        """The values that combinations are made of: see `Grid.values`."""
        of_grids = [grid.values() for grid in self._grids]
        return of_grids[0][0], [axis for _, axes in of_grids for axis in axes]

    def _advance_comparing(self, until: float, problems: Problems) -> None:
        try:
            while not (self._compared or self._excess) and self._work.steps < until:
                self._work.spend(0)  # raises again once there was too much work
                next(self._comparing, None)
        except WorkLimitExceeded:
            self._excess = "the points of these spaces"
        if self._excess:
            message = f"{self._excess} are too many to compare with each other one by one"
            remedy = "vary a path or variable in them that never has the same value in two of them"
            problems.add("too_many_combinations", _SPACE, f"{message}: {remedy}", on_key=True)

    def _compare(self) -> Generator[None, None, None]:
        """Finds the combinations that earlier grids have."""
        groups = yield from self._comparison.groups()
        compared = [number for group in groups for number in group]
        points = sum(self._grids[number].total for number in compared)
        if points > MAX_COMPARED:
            shown = ", ".join(map(str, sorted(compared)[:5])) + (", ..." if len(compared) > 5 else "")
            self._excess = f"the {points:,} points of spaces that may have some in common ({shown})"
            return
        for group in groups:
            earlier: set[bytes] = set()
            for number in group:
                own = []
                for combination, (listed, params) in enumerate(self._grids[number].combinations(0)):
                    self._work.spend(_STEPS)
                    key = self._comparison.key(self._entries.get(id(listed), 0), params)
                    if key in earlier:
                        self._repeated[number].append(combination)
                    else:
                        self._work.keep(2)
                        own.append(key)
                    yield
                earlier.update(own)
        self._compared = True


def _without(grid: Grid, repeated: Sequence[int], start: int) -> Iterator[tuple[ListedPoint, dict[str, JSON]]]:
    """The combinations of a grid without repeated ones, from the one with this number among them on."""
    skipped = bisect_right(range(len(repeated)), start, key=lambda index: repeated[index] - index)
    first = start + skipped
    for number, combination in enumerate(grid.combinations(first), first):
        if skipped < len(repeated) and repeated[skipped] == number:
            skipped += 1
        else:
            yield combination
