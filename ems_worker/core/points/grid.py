"""The combinations of a plan, each with its parameters.

A dimension is what varies together: an axis, the axes of a zip group, all sampled axes, or the entries of `runs`. A
combination has one digit per dimension.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.counting import Counting
from ems_worker.core.points.dimensions import LISTED, Dimension
from ems_worker.core.points.names import Missing, Names
from ems_worker.core.points.rules import Rules
from ems_worker.core.points.scope import Scope
from ems_worker.core.points.terms import Terms
from ems_worker.core.points.work_limits import Work, WorkLimitExceeded

JSON = canonical.JSON

_NOT_LISTED: Final = ListedPoint()
# The names that a message shows.
_MAX_NAMED: Final = 5


class Grid:
    """All combinations of a plan's dimensions that satisfy its conditions and constraints."""

    def __init__(
        self,
        names: Names,
        varying: Sequence[Dimension],
        listed: Sequence[ListedPoint],
        *,
        problems: Problems,
        work: Work,
    ) -> None:
        self._names = names
        self._dimensions = varying
        self._listed = listed
        self._dimension_of = {axis: number for number, each in enumerate(varying) for axis in each.axes}
        sizes = [dimension.size for dimension in varying]
        terms = Terms(sizes, work)
        rules = Rules(names, varying, listed, terms=terms, work=work)
        self._counting = Counting(sizes, rules, terms, work)
        # Without conditions and derived values, the values of each axis are read directly.
        self._plain = not names.whens and not names.derivations
        self._columns = [
            (axis.name, axis.values, self._dimension_of.get(number)) for number, axis in enumerate(names.axes)
        ]
        self.advance(work.early, problems)

    @property
    def total(self) -> int:
        """The number of combinations if it is exact, otherwise an upper bound."""
        return self._counting.total

    @property
    def exact(self) -> bool:
        """True if the combinations are counted."""
        return self._counting.exact

    @property
    def settled(self) -> bool:
        """True if nothing is left to evaluate: every expression has a value at every combination."""
        return self._counting.settled

    def combinations(self, start: int, max_steps: float = math.inf) -> Iterator[tuple[ListedPoint, dict[str, JSON]]]:
        """The entry of `runs` and the parameters of each combination from number `start` on, in order.

        If they are not counted yet, that is done first, in at most `max_steps`; if these are too few, there are no
        combinations yet, and another call continues. Raises PlanRejected if there is a problem.
        """
        problems = Problems()
        self.advance(max_steps, problems, until_exact=True)
        if len(problems):
            raise errors.PlanRejected(problems.collected())
        for number in range(start, self.total if self.exact else 0):
            yield self._combination(self._counting.digits(number))

    def example(self) -> dict[str, JSON]:
        """The parameters of the first combination; of one that may not be a point if they are not counted yet."""
        is_known = self.exact and self.total > 0
        return self._combination(self._counting.digits(0) if is_known else [0] * len(self._dimensions))[1]

    def values(self) -> tuple[Sequence[ListedPoint], Sequence[tuple[str, Sequence[JSON]]]]:
        """The values that combinations are made of: the entries of `runs`, and the name and values of each axis.

        Derived values are not among them: each of them is a number, a short text or a boolean.
        """
        return self._listed, [(axis.name, axis.values) for axis in self._names.axes]

    def _combination(self, digits: Sequence[int]) -> tuple[ListedPoint, dict[str, JSON]]:
        point = self._listed_point(digits)
        params = dict(point.overrides)
        if self._plain:
            for name, values, dimension in self._columns:
                params[name] = values[0 if dimension is None else digits[dimension]]
            return point, params
        scope = self._scope(digits, None)
        for number, axis in enumerate(self._names.axes):
            value = scope.parameter(number)
            if not isinstance(value, Missing):
                params[axis.name] = value
        return point, params

    def _listed_point(self, digits: Sequence[int]) -> ListedPoint:
        """The entry of `runs` that a combination belongs to; one without overrides if the plan has no `runs`."""
        return self._listed[digits[LISTED]] if self._listed else _NOT_LISTED

    def _scope(self, digits: Sequence[int], problems: Problems | None) -> Scope:
        """The meaning of names at a combination."""
        return Scope(self._names, self._dimension_of, digits, listed=self._listed_point(digits), problems=problems)

    def advance(self, steps: float, problems: Problems, *, until_exact: bool = False) -> None:
        """Continues to evaluate for some steps, or until the total is exact, and reports what that finds."""
        counting = self._counting
        try:
            counting.advance(steps, until_exact=until_exact)
        except WorkLimitExceeded:
            self._report_excess(problems)
        for requirement, digits in counting.failures:
            requirement.report(self._scope(digits, problems))
        counting.failures.clear()

    def _report_excess(self, problems: Problems) -> None:
        """Reports that counting takes too much work."""
        requirement, connected = self._counting.subject
        names = [self._names.axes[axis].name for number in connected for axis in self._dimensions[number].axes]
        shown = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
        if requirement is not None:
            location, what = requirement.location, f"this has to be evaluated at too many combinations of {shown}"
        else:
            constraints = self._names.constraints
            location = constraints[-1].location[:-1] if constraints else ("parameter_space",)
            what = f"constraints and conditions connect {shown} in too many ways to count the combinations"
        remedy = "give these parameters fewer values, or name fewer of them in one expression"
        problems.add("too_many_combinations", location, f"{what}: {remedy}", on_key=requirement is None)
