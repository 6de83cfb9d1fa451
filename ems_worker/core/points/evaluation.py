"""Rules and derived values tried at one combination: what its digits mean, and whether it holds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ems_worker.core.language import expressions, first_occurrences, listed, problems
from ems_worker.core.points import dimensions, scope

_NO_RUN: Final = listed.Run()


class UnreadyError(Exception):
    """Something has to be worked out first: `steps` are to be walked, once, and compare so many `values`."""

    def __init__(self, steps: Iterator[None], values: int) -> None:
        super().__init__()
        self.steps = steps
        self.values = values


class Trials:
    """Tries rules at digits. What has no value is told once, and then counts as holding."""

    def __init__(self, names: scope.Names, layout: dimensions.Layout, runs: Sequence[listed.Run]) -> None:
        self._names = names
        self._layout = layout
        self._runs = runs
        self._firsts: dict[tuple[int, tuple[bool, ...]], bytearray] = {}
        self._told: set[dimensions.Rule] = set()

    def run(self, digits: Sequence[int]) -> listed.Run:
        """The entry of `runs`."""
        block = self._layout.run_block
        return _NO_RUN if block is None else self._runs[digits[block]]

    def scope(self, digits: Sequence[int], found: problems.Problems | None) -> scope.Scope:
        """What names mean there."""
        return scope.Scope(self._names, self._layout.block_of, digits, self.run(digits), found)

    def has_value(self, one: dimensions.Derived, digits: Sequence[int]) -> bool:
        """Whether a derived value can be worked out, or is left out."""
        if one.reads is None:
            odd = problems.Problems()
            self.scope(digits, odd).parameter(one.axis)
            return not len(odd)
        try:
            one.condition.expression.value([known[0 if block is None else digits[block]] for known, block in one.reads])
        except expressions.ExpressionError:
            return False
        return True

    def holds(self, rules: Sequence[dimensions.Rule], digits: Sequence[int], found: problems.Problems | None) -> bool:
        """Whether rules leave a combination.

        Those that have no value there neither leave it nor leave it out: they are told if no other rule leaves it out.
        Raises UnreadyError.
        """
        failing = undecided(rules, lambda rule: self.verdict(rule, digits))
        if failing is None:
            return False
        if found is None:
            return not failing
        for rule in failing:
            self.tell(rule, digits, found)
        return True

    def verdict(self, rule: dimensions.Rule, digits: Sequence[int]) -> bool | None:
        """Whether a rule leaves a combination; None where it has no value. Raises UnreadyError."""
        if rule in self._told:
            return True
        if rule.condition is not None and rule.reads is not None:
            values = [known[0 if block is None else digits[block]] for known, block in rule.reads]
            try:
                return rule.condition.expression.holds(values)
            except expressions.ExpressionError:
                return None
        odd = problems.Problems()
        there = self.scope(digits, odd)
        if rule.condition is not None:
            holds = there.holds(rule.condition, where_missing=True)
        else:
            number = rule.blocks[0]
            shown = tuple([there.shows(axis) for axis in self._layout.blocks[number].axes])
            holds = all(shown) or (self._is_first(number, shown, digits[number]) if any(shown) else not digits[number])
        return None if len(odd) else holds

    def tell(self, rule: dimensions.Rule, digits: Sequence[int], found: problems.Problems) -> None:
        """Reports a rule that has no value at a combination, the first time."""
        if rule in self._told:
            return
        self._told.add(rule)
        there = self.scope(digits, found)
        if rule.condition is not None:
            there.holds(rule.condition, where_missing=True)
        else:
            for axis in self._layout.blocks[rule.blocks[0]].axes:
                there.shows(axis)

    def _is_first(self, number: int, shown: tuple[bool, ...], digit: int) -> bool:
        """Whether an entry of a block is the first with its values of the axes that are not left out.

        Raises UnreadyError the first time.
        """
        key = (number, shown)
        if key not in self._firsts:
            raise UnreadyError(self._find_firsts(number, shown), self._layout.blocks[number].size * sum(shown))
        return not self._firsts[key] or bool(self._firsts[key][digit])

    def _find_firsts(self, number: int, shown: tuple[bool, ...]) -> Iterator[None]:
        axes = zip(self._layout.blocks[number].axes, shown, strict=True)
        columns = [self._names.axes[axis].values for axis, show in axes if show]
        self._firsts[number, shown] = yield from first_occurrences.find(columns, self._layout.blocks[number].size)


def undecided(
    rules: Iterable[dimensions.Rule], verdict: Callable[[dimensions.Rule], bool | None]
) -> list[dimensions.Rule] | None:
    """The rules that have no value at a combination; None if one of the others leaves it out."""
    found: list[dimensions.Rule] = []
    for rule in rules:
        holds = verdict(rule)
        if holds is False:
            return None
        if holds is None:
            found.append(rule)
    return found
