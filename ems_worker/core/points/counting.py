"""Counts the points of a plan without trying every combination, and finds any point by its number.

A combination has a digit in each dimension. Rules say which combinations are points (`rules`): all constraints hold,
and of combinations that conditions make equal it is the first. The dimensions are taken in order, and each digit leaves
a smaller term of each rule (`terms`): of `a + b <= 3`, the digit at which `a` is 2 leaves `b <= 1`. Digits that leave
the same rules lead to the same node of a decision diagram (`diagrams`), so that the work depends on how many different
questions are left open, not on how many combinations there are. Sums leave particularly few (`sums`). A node knows how
many combinations follow. That gives the number of points, and leads from a number to its point.

Rules that share no dimension are counted apart, each such component with a diagram of its own. An expression that has
no value is searched for in the same way: it is a rule that it has none.
"""

from bisect import bisect_right
from collections.abc import Generator, Sequence
from typing import Final

from ems_worker.core.points import diagrams, terms
from ems_worker.core.points.diagrams import DiagramBuilder, Node
from ems_worker.core.points.rules import Requirement, Rules
from ems_worker.core.points.term_operations import Decided, Rule
from ems_worker.core.points.terms import FAILED, Part, Terms
from ems_worker.core.points.work_limits import Work

# Larger numbers are not exact: they are too many points in any case.
MAX_COUNTED: Final = 2**62


class Counting:
    """The count of combinations: `total` is their number if `exact`, otherwise an upper bound.

    `settled`: nothing is left to evaluate. `failures` are expressions and the digits at which they have no value.
    """

    def __init__(self, sizes: Sequence[int], rules: Rules, terms_: Terms, work: Work) -> None:
        self._sizes = sizes
        self._rules = rules
        self._terms = terms_
        self._work = work
        self._builder = DiagramBuilder(sizes, terms_, work)
        self._component_of: list[int | None] = [None] * len(sizes)
        self._roots: list[Node] = []
        self._evaluation = self._evaluate()
        self.exact = self.settled = False
        self.failures: list[tuple[Requirement, Sequence[int]]] = []
        # What the evaluation is about, for the case that it takes too much work: an expression, and its dimensions.
        self.subject: tuple[Requirement | None, Sequence[int]] = (None, ())
        self._set_total()

    def advance(self, steps: float, *, until_exact: bool = False) -> None:
        """Continues the evaluation for some steps, or until the total is exact. Raises WorkLimitExceeded."""
        until = self._work.steps + steps
        while self._work.steps < until and not (self.settled or (until_exact and self.exact)):
            self._work.spend(0)  # raises again once there was too much work
            next(self._evaluation, None)

    def digits(self, number: int) -> list[int]:
        """The digits of a combination by its number; the first dimension varies slowest. The total is exact."""
        remaining = self.total
        nodes = list(self._roots)
        digits = []
        for size, component in zip(self._sizes, self._component_of, strict=True):
            if component is None:
                remaining //= size
                digit, number = divmod(number, remaining)
                digits.append(digit)
                continue
            node = nodes[component]
            others = remaining // node.total
            index = bisect_right(node.cumulative, number // others)
            before = node.cumulative[index - 1] if index else 0
            number -= before * others
            remaining = (node.cumulative[index] - before) * others
            nodes[component] = node.below[index] if node.below else diagrams.END
            digits.append(node.digits[index])
        return digits

    def _set_total(self) -> None:
        free = [size for size, component in zip(self._sizes, self._component_of, strict=True) if component is None]
        self.total = 1
        for factor in (*free, *[root.total for root in self._roots]):
            self.total = min(self.total * factor, MAX_COUNTED)

    def _evaluate(self) -> Generator[None, None, None]:
        """Counts the combinations, and then looks for points at which an expression has no value."""
        requirements = [*self._rules.all()]
        rules = [Rule() for _ in requirements]
        parts = [rule.combine(self._terms, (each.term,)) for rule, each in zip(rules, requirements, strict=True)]
        for component, connected in _components(parts):
            self.subject = None, component
            root = yield from self._builder.build(component, connected)
            for number in component:
                self._component_of[number] = len(self._roots)
            self._roots.append(root)
            self._set_total()
        self.exact = True
        if self.total:
            for rule, requirement in zip(rules, requirements, strict=True):
                if rule.failed:
                    fails = Decided(_has_no_answer).combine(self._terms, (requirement.term,))
                    yield from self._find_failure(requirement, fails, parts)
            for requirement in self._rules.values():
                fails = Decided(_has_no_value).combine(self._terms, (requirement.term,))
                needed = sorted(terms.dimensions([fails]))
                self.subject = requirement, needed
                root = yield from self._builder.build(needed, [fails])
                if root.total:
                    yield from self._find_failure(requirement, fails, parts)
        self.settled = True

    def _find_failure(
        self, requirement: Requirement, fails: Part, rules: Sequence[Part]
    ) -> Generator[None, None, None]:
        """Finds the first point at which an expression has no value, if `fails` and all rules are true at any."""
        components = _components([fails, *rules])
        component, connected = next(each for each in components if any(part is fails for part in each[1]))
        self.subject = requirement, component
        node = yield from self._builder.build(component, connected)
        if node.total:
            digits = [0] * len(self._sizes)
            for number in component:
                digits[number] = node.digits[0]
                node = node.below[0] if node.below else diagrams.END
            self.failures.append((requirement, digits))


def _has_no_answer(value: Part) -> bool:
    return type(value) is not bool


def _has_no_value(value: Part) -> bool:
    return value is FAILED


def _components(rules: Sequence[Part]) -> list[tuple[Sequence[int], list[Part]]]:
    """The dimensions that rules connect, in order, each time with these rules."""
    components: list[tuple[set[int], list[Part]]] = []
    for rule in rules:
        needed, connected = terms.dimensions([rule]), [rule]
        separate = []
        for other in components:
            if other[0] & needed:
                needed, connected = needed | other[0], [*other[1], *connected]
            else:
                separate.append(other)
        components = [*separate, (needed, connected)]
    return [(sorted(needed), connected) for needed, connected in components]
