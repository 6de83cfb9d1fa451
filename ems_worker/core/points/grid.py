"""The combinations of a plan: counted without making them, and each one found by its number.

A dimension is what varies together: an axis, the axes of a zip group, all sampled axes, or the entries of `runs`. A
combination has one digit per dimension. Conditions and constraints connect dimensions into components. The valid
combinations of each component are computed once, as a tree of digits with counts. From the trees follow the number of
all points, by multiplication, and any point by its number. A component that is too large for a tree is open: its
combinations are evaluated one by one when points are made, and the number of points is an upper bound.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.problems import Problems
from ems_worker.core.points import dimensions
from ems_worker.core.points.dimensions import Derivation, Dimension, DimensionMap, Rule
from ems_worker.core.points.evaluation import Evaluator, PrecomputationNeeded
from ems_worker.core.points.names import Missing, Names
from ems_worker.core.points.trees import Node, TreeBuilder, WorkBudgetExceeded
from ems_worker.core.points.work_limits import WorkLimits

JSON = canonical.JSON

# The number of steps that cost as much as looking at another combination.
_STEPS_PER_LOOK: Final = 100
_NO_MORE_DIGITS: Final = Node((0,), (), (1,))


class Grid:
    """All combinations of a plan's dimensions that satisfy its conditions and constraints."""

    def __init__(
        self,
        names: Names,
        varying: Sequence[Dimension],
        listed: Sequence[ListedPoint],
        *,
        problems: Problems,
        limits: WorkLimits,
    ) -> None:
        self._names = names
        self._dimensions = tuple(varying)
        self._listed = listed
        self._limits = limits
        self._map = DimensionMap(names, self._dimensions)
        self._evaluator = Evaluator(names, self._map, listed)
        rules = self._map.rules()
        constant = [rule for rule in rules if not rule.dimensions]
        failing = Problems()
        self._possible = self._evaluator.satisfied(constant, [0] * len(varying), failing)
        self._component_of: list[int | None] = [None] * len(varying)
        self._roots: list[Node] = []
        self._components: list[list[int]] = []
        self._open: list[Rule] = []
        self._build_trees([rule for rule in rules if rule.dimensions], failing)
        self._cost = sum(rule.cost for rule in self._open)
        sizes = zip(varying, self._component_of, strict=True)
        free = prod(dimension.size for dimension, component in sizes if component is None)
        self.total = free * prod(root.total for root in self._roots) if self._possible else 0
        if self.total:
            problems.take(failing)
        self._derivations = [self._map.derivation(axis) for axis in names.derivations]
        self._looks = limits.early_looks
        # True once nothing is left to evaluate.
        self.settled = not self._open
        if self.exact or self.total <= self.max_evaluated:
            self._evaluate_early(problems)
        # Without conditions and derived values, the values of each axis are read directly.
        self._plain = not names.whens and not names.derivations
        self._columns = [
            (axis.name, axis.values, self._map.dimension_of.get(number)) for number, axis in enumerate(names.axes)
        ]
        self._latest = (0, 0)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of `parameter_space`, in the plan's order."""
        return self._names.axes

    @property
    def exact(self) -> bool:
        """True if `total` is the number of combinations; otherwise it is an upper bound."""
        return not self._open

    @property
    def exhausted(self) -> bool:
        """True unless there are combinations that `combinations` has not evaluated yet."""
        return self.exact or self._latest[1] >= self.total

    @property
    def max_evaluated(self) -> int:
        """The largest number of combinations that may be evaluated one by one."""
        return min(self._limits.combinations, self._limits.combination_steps // max(1, self._cost))

    @property
    def too_many_derivations(self) -> bool:
        """True if derived values depend on too many combinations to evaluate them at all of them."""
        steps = sum(derivation.combinations * derivation.cost for derivation in self._derivations)
        return steps > self._limits.derivation_steps

    def settle(self, problems: Problems) -> Iterator[int]:
        """Evaluates, in steps, what was too much at once. Yields the number of combinations so far, at last of all.

        It ends early if an expression has no value at a combination, which is reported to `problems`.
        """
        self._looks = self._limits.looks
        number = 0 if self._open else self.total
        varying = sorted({each for rule in self._open for each in rule.dimensions})
        weight = self.total // prod(self._dimensions[each].size for each in varying)
        pace, compared = self._pace(self._cost), 0
        for evaluated, digits in enumerate(self._map.rows(varying) if self._open else ()):
            while True:
                try:
                    number += weight * self._evaluator.satisfied(self._open, digits, problems)
                    break
                except PrecomputationNeeded as needed:
                    compared += needed.values
                    if compared > self._limits.comparisons:
                        message = "parameters are left out in too many ways to find the combinations that become equal"
                        problems.add("too_many_combinations", ("parameter_space",), message, on_key=True)
                        return
                    for _ in needed.steps:
                        yield number
            if len(problems):
                return
            if evaluated % pace == 0:
                yield number
        for derivation in self._derivations:
            for _ in self._evaluate(derivation, problems):
                yield number
            if len(problems):
                return
        yield number

    def combinations(
        self, start: int, max_evaluations: int | None = None
    ) -> Iterator[tuple[ListedPoint, dict[str, JSON]]]:
        """The entry of `runs` and the parameters of each combination from number `start` on, in order.

        If combinations have to be evaluated, it ends after this many evaluations; another call continues from there.
        """
        if self.exact:
            for number in range(start, self.total):
                yield self._combination(self._digits(number))
            return
        # The latest combination is remembered with its position among those evaluated, to continue from there.
        number, position = self._latest if self._latest[0] <= start else (0, 0)
        end = self.total if max_evaluations is None else min(self.total, position + max_evaluations)
        while position < end:
            digits = self._digits(position)
            position += 1
            satisfied = self._satisfied(digits)
            number += satisfied
            self._latest = (number, position)
            if satisfied and number > start:
                yield self._combination(digits)

    def values(self) -> tuple[Sequence[ListedPoint], Sequence[tuple[str, Sequence[JSON]]]]:
        """The values that combinations are made of: the entries of `runs`, and the name and values of each axis.

        Derived values are not among them: each of them is a number, a short text or a boolean.
        """
        return self._listed, [(axis.name, axis.values) for axis in self._names.axes]

    def _combination(self, digits: Sequence[int]) -> tuple[ListedPoint, dict[str, JSON]]:
        point = self._evaluator.listed_point(digits)
        params = dict(point.overrides)
        if self._plain:
            for name, values, dimension in self._columns:
                params[name] = values[0 if dimension is None else digits[dimension]]
            return point, params
        scope = self._evaluator.scope(digits, None)
        for number, axis in enumerate(self._names.axes):
            value = scope.parameter(number)
            if not isinstance(value, Missing):
                params[axis.name] = value
        return point, params

    def _digits(self, number: int) -> list[int]:
        """The digits of a combination by its number; the first dimension varies slowest."""
        remaining = self.total
        nodes = list(self._roots)
        digits = []
        for dimension, component in zip(self._dimensions, self._component_of, strict=True):
            if component is None:
                remaining //= dimension.size
                digit, number = divmod(number, remaining)
                digits.append(digit)
                continue
            node = nodes[component]
            others = remaining // node.total
            index = bisect_right(node.cumulative, number // others)
            before = node.cumulative[index - 1] if index else 0
            number -= before * others
            remaining = (node.cumulative[index] - before) * others
            nodes[component] = node.children[index] if node.children else _NO_MORE_DIGITS
            digits.append(node.digits[index])
        return digits

    def _build_trees(self, rules: list[Rule], problems: Problems) -> None:
        """Builds the tree of each component, or leaves the component open."""
        builder = TreeBuilder(self._dimensions, self._evaluator, self._limits.tree_steps, problems)
        for component, its_rules in dimensions.components(rules):
            try:
                root = builder.build(sorted(component), its_rules)
            except WorkBudgetExceeded:
                self._open += its_rules
                continue
            for number in component:
                self._component_of[number] = len(self._roots)
            self._roots.append(root)
            self._components.append(sorted(component))

    def _evaluate_early(self, problems: Problems) -> None:
        """Evaluates derived values at the first combinations of what they depend on."""
        steps = self._limits.early_steps
        for derivation in self._derivations:
            evaluations = min(self._limits.early_evaluations, steps // derivation.cost)
            steps -= derivation.cost * min(evaluations, derivation.combinations)
            self.settled = self.settled and derivation.combinations <= evaluations
            deque(self._evaluate(derivation, problems, evaluations), maxlen=0)

    def _satisfied(self, digits: Sequence[int]) -> bool:
        """Whether a combination satisfies the open rules. Rules without a value are left for `settle` to report."""
        while True:
            try:
                return self._evaluator.satisfied(self._open, digits, None)
            except PrecomputationNeeded as needed:
                deque(needed.steps, maxlen=0)

    def _evaluate(
        self, derivation: Derivation, problems: Problems, max_evaluations: int | None = None
    ) -> Iterator[None]:
        """Evaluates a derived value at all combinations of what it depends on, or at the first of them, in steps.

        Reports the first point at which it has no value. With `max_evaluations` it leaves open what takes too long.
        """
        pace = self._pace(derivation.cost)
        for evaluated, row in enumerate(islice(self._map.rows(derivation.dimensions), max_evaluations)):
            if evaluated % pace == pace - 1:
                yield
            if self._evaluator.has_value(derivation, row):
                continue
            is_point = self._has_point(row, frozenset(derivation.dimensions))
            if is_point is None and max_evaluations is not None:
                self.settled = False
                return
            if is_point is not False:
                self._evaluator.scope(row, problems).parameter(derivation.axis)
                return

    def _has_point(self, row: Sequence[int], fixed: frozenset[int]) -> bool | None:
        """Whether any point has these digits in the fixed dimensions; None if it takes too long to find out."""
        if not self._possible:
            return False
        try:
            for component, root in zip(self._components, self._roots, strict=True):
                if not self._in_tree(root, component, row, fixed):
                    return False
            others = sorted({number for rule in self._open for number in rule.dimensions} - fixed)
            for digits in self._map.rows(others):
                self._look(1 + self._cost // _STEPS_PER_LOOK)
                combination = list(row)
                for number in others:
                    combination[number] = digits[number]
                if self._evaluator.satisfied(self._open, combination, None):
                    return True
        except (WorkBudgetExceeded, PrecomputationNeeded):
            return None
        return False

    def _in_tree(self, node: Node, component: Sequence[int], row: Sequence[int], fixed: frozenset[int]) -> bool:
        """Whether a tree has a combination with these digits in the fixed dimensions."""
        self._look()
        for index, digit in enumerate(node.digits):
            if component[0] in fixed and digit != row[component[0]]:
                continue
            if len(component) == 1 or self._in_tree(node.children[index], component[1:], row, fixed):
                return True
        return False

    def _look(self, looks: int = 1) -> None:
        self._looks -= looks
        if self._looks < 0:
            raise WorkBudgetExceeded

    def _pace(self, cost: int) -> int:
        """The number of combinations to evaluate between two yields, given the cost of each in steps."""
        return max(1, min(self._limits.combinations_per_yield, self._limits.steps_per_yield // max(1, cost)))
