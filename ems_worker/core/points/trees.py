"""The combinations that satisfy rules, as a tree of digits with counts: finds any combination by its number."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core.language.problems import Problems
from ems_worker.core.points import evaluation
from ems_worker.core.points.dimensions import Dimension, Rule
from ems_worker.core.points.evaluation import Evaluator, PrecomputationNeeded

# The steps that comparing a value costs.
_COMPARISON: Final = 8


@dataclass(frozen=True, slots=True)
class Node:
    """The digits that occur in one dimension of a component, the node below each, and the cumulative counts.

    `cumulative[i]` is the number of combinations with one of the first i + 1 digits.
    """

    digits: tuple[int, ...]
    children: tuple["Node", ...]
    cumulative: tuple[int, ...]

    @property
    def total(self) -> int:
        """The number of combinations."""
        return self.cumulative[-1] if self.cumulative else 0


class WorkBudgetExceeded(Exception):
    """The result would take more steps than may be spent on it at once."""


class TreeBuilder:
    """Builds trees, with a budget of steps for all of them.

    A rule is evaluated as soon as all the digits that it needs are known. If it has no value there and no other rule
    excludes the combination, it is reported and counts as satisfied.
    """

    def __init__(self, dimensions: Sequence[Dimension], evaluator: Evaluator, budget: int, problems: Problems) -> None:
        self._dimensions = dimensions
        self._evaluator = evaluator
        self._budget = budget
        self._problems = problems
        self._results: dict[tuple[Rule, tuple[int, ...]], bool | None] = {}

    def build(self, component: Sequence[int], rules: Sequence[Rule]) -> Node:
        """The tree of the dimensions in a component; without branches if no combination satisfies the rules.

        Raises WorkBudgetExceeded.
        """
        self._results = {}
        return self._below(component, rules, [0] * len(self._dimensions), failing=()) or Node((), (), ())

    def _below(
        self, component: Sequence[int], rules: Sequence[Rule], digits: list[int], *, failing: tuple[Rule, ...]
    ) -> Node | None:
        """The tree of the dimensions in `component`, given the digits of those before; None if it is empty.

        `failing` are the rules that had no value at the digits before.
        """
        number, *rest = component
        ready = [rule for rule in rules if max(rule.dimensions) == number]
        kept: list[int] = []
        children: list[Node] = []
        cumulative: list[int] = []
        for digit in range(self._dimensions[number].size):
            self._spend(1 + len(ready))
            digits[number] = digit
            without_value = evaluation.failing_rules(ready, lambda rule: self._evaluate(rule, digits))
            if without_value is None:
                continue
            all_failing = (*failing, *without_value)
            if rest:
                child = self._below(rest, rules, digits, failing=all_failing)
                if child is None:
                    continue
                children.append(child)
            else:
                for rule in all_failing:
                    self._evaluator.report(rule, digits, self._problems)
            kept.append(digit)
            cumulative.append((cumulative[-1] if cumulative else 0) + (children[-1].total if children else 1))
        return Node(tuple(kept), tuple(children), tuple(cumulative)) if kept else None

    def _evaluate(self, rule: Rule, digits: Sequence[int]) -> bool | None:
        """The result of a rule, remembered by the digits that it needs."""
        key = (rule, tuple([digits[number] for number in rule.dimensions]))
        if key not in self._results:
            self._spend(rule.cost)
            try:
                self._results[key] = self._evaluator.evaluate(rule, digits)
            except PrecomputationNeeded as needed:
                self._spend(needed.values * _COMPARISON)
                deque(needed.steps, maxlen=0)
                self._results[key] = self._evaluator.evaluate(rule, digits)
        return self._results[key]

    def _spend(self, steps: int) -> None:
        self._budget -= steps
        if self._budget < 0:
            raise WorkBudgetExceeded
