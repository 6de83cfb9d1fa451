"""Evaluates rules and derived values at single combinations."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import decimals, first_occurrences
from ems_worker.core.language.expressions import ExpressionError
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.dimensions import Derivation, DimensionMap, Reads, Rule
from ems_worker.core.points.names import Names
from ems_worker.core.points.scope import Scope

JSON = canonical.JSON

_NOT_LISTED: Final = ListedPoint()


class PrecomputationNeeded(Exception):
    """The evaluation needs a result that takes a while: run `steps` to the end, once, and evaluate again.

    The steps compare this number of `values`.
    """

    def __init__(self, steps: Iterator[None], values: int) -> None:
        super().__init__()
        self.steps = steps
        self.values = values


class Evaluator:
    """Evaluates rules at combinations. A rule without a value is reported once, and counts as satisfied afterwards."""

    def __init__(self, names: Names, dimension_map: DimensionMap, listed: Sequence[ListedPoint]) -> None:
        self._names = names
        self._map = dimension_map
        self._listed = listed
        self._first_occurrences: dict[tuple[int, tuple[bool, ...]], bytearray] = {}
        self._reported: set[Rule] = set()

    def listed_point(self, digits: Sequence[int]) -> ListedPoint:
        """The entry of `runs` that a combination belongs to; one without overrides if the plan has no `runs`."""
        number = self._map.listed_dimension
        return _NOT_LISTED if number is None else self._listed[digits[number]]

    def scope(self, digits: Sequence[int], problems: Problems | None) -> Scope:
        """The meaning of names at a combination."""
        return Scope(self._names, self._map.dimension_of, digits, listed=self.listed_point(digits), problems=problems)

    def has_value(self, derivation: Derivation, digits: Sequence[int]) -> bool:
        """Whether a derived value can be computed at a combination, or is left out there."""
        if derivation.reads is None:
            problems = Problems()
            self.scope(digits, problems).parameter(derivation.axis)
            return not len(problems)
        try:
            derivation.condition.expression.evaluate(_values(derivation.reads, digits))
        except ExpressionError:
            return False
        return True

    def satisfied(self, rules: Sequence[Rule], digits: Sequence[int], problems: Problems | None) -> bool:
        """Whether a combination satisfies rules. Raises PrecomputationNeeded.

        A rule that has no value is reported, unless another rule excludes the combination anyway. Without `problems`
        the combination counts as excluded.
        """
        failing = failing_rules(rules, lambda rule: self.evaluate(rule, digits))
        if failing is None:
            return False
        if problems is None:
            return not failing
        for rule in failing:
            self.report(rule, digits, problems)
        return True

    def evaluate(self, rule: Rule, digits: Sequence[int]) -> bool | None:
        """Whether a combination satisfies a rule; None if the rule has no value. Raises PrecomputationNeeded."""
        if rule in self._reported:
            return True
        if rule.condition is not None and rule.reads is not None:
            try:
                return rule.condition.expression.holds(_values(rule.reads, digits))
            except ExpressionError:
                return None
        problems = Problems()
        scope = self.scope(digits, problems)
        if rule.condition is not None:
            satisfied = scope.holds(rule.condition, if_missing=True)
        else:
            number = rule.dimensions[0]
            shown = tuple([scope.shows(axis) for axis in self._map.dimensions[number].axes])
            if all(shown):
                satisfied = True
            else:  # of the values that are equal now, the first counts
                satisfied = self._is_first(number, shown, digits[number]) if any(shown) else not digits[number]
        return None if len(problems) else satisfied

    def report(self, rule: Rule, digits: Sequence[int], problems: Problems) -> None:
        """Reports a rule that has no value at a combination, once."""
        if rule in self._reported:
            return
        self._reported.add(rule)
        scope = self.scope(digits, problems)
        if rule.condition is not None:
            scope.holds(rule.condition, if_missing=True)
        else:
            for axis in self._map.dimensions[rule.dimensions[0]].axes:
                scope.shows(axis)

    def _is_first(self, number: int, shown: tuple[bool, ...], digit: int) -> bool:
        """Whether no earlier digit of a dimension gives the same values to the axes that are shown.

        Raises PrecomputationNeeded the first time.
        """
        key = (number, shown)
        if key not in self._first_occurrences:
            values = self._map.dimensions[number].size * sum(shown)
            raise PrecomputationNeeded(self._find_first_occurrences(number, shown), values)
        marks = self._first_occurrences[key]
        return not marks or bool(marks[digit])

    def _find_first_occurrences(self, number: int, shown: tuple[bool, ...]) -> Iterator[None]:
        dimension = self._map.dimensions[number]
        columns = [self._names.values[axis] for axis, show in zip(dimension.axes, shown, strict=True) if show]
        self._first_occurrences[number, shown] = yield from first_occurrences.find(columns, dimension.size)


def _values(reads: Reads, digits: Sequence[int]) -> list[decimals.Operand]:
    return [values[0 if number is None else digits[number]] for values, number in reads]


def failing_rules(rules: Iterable[Rule], evaluate: Callable[[Rule], bool | None]) -> list[Rule] | None:
    """The rules that have no value at a combination; None if another rule excludes the combination."""
    failing: list[Rule] = []
    for rule in rules:
        satisfied = evaluate(rule)
        if satisfied is False:
            return None
        if satisfied is None:
            failing.append(rule)
    return failing
