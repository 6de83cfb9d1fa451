"""Rules and derived values tried at one combination: what its digits mean, and whether it holds."""

from collections.abc import Sequence
from typing import Final

from ems_worker.core import blocks, canonical, explicit, expressions, problems, scope

_NO_RUN: Final = explicit.Run()


class Trials:
    """Tries rules at digits. What fails is told once, and then counts as holding where that is told at all."""

    def __init__(self, names: scope.Names, layout: blocks.Layout, runs: Sequence[explicit.Run]) -> None:
        self._names = names
        self._layout = layout
        self._runs = runs
        self._firsts: dict[tuple[int, tuple[bool, ...]], frozenset[int]] = {}
        self._failing: set[blocks.Rule] = set()

    def run(self, digits: Sequence[int]) -> explicit.Run:
        """The entry of `runs`."""
        block = self._layout.run_block
        return _NO_RUN if block is None else self._runs[digits[block]]

    def scope(self, digits: Sequence[int], found: problems.Problems | None) -> scope.Scope:
        """What names mean there."""
        return scope.Scope(self._names, self._layout.block_of, digits, self.run(digits), found)

    def has_value(self, one: blocks.Derived, digits: Sequence[int]) -> bool:
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

    def holds(self, rule: blocks.Rule, digits: Sequence[int], found: problems.Problems | None) -> bool:
        """Whether a rule leaves a combination; an expression without a value doesn't, and is told."""
        if rule in self._failing:
            return True  # what was reported is not tried again
        if rule.condition is not None and rule.reads is not None:
            values = [known[0 if block is None else digits[block]] for known, block in rule.reads]
            try:
                return rule.condition.expression.holds(values)
            except expressions.ExpressionError:
                if found is not None:
                    self._failing.add(rule)
        there = self.scope(digits, found)
        if rule.condition is not None:
            return there.holds(rule.condition, where_missing=True)
        number = rule.blocks[0]
        axes = self._layout.blocks[number].axes
        shown = tuple(not isinstance(there.parameter(axis), scope.Missing) for axis in axes)
        return all(shown) or digits[number] in self._first(number, shown)

    def _first(self, number: int, shown: tuple[bool, ...]) -> frozenset[int]:
        """Of a block's entries those that are the first with the values of the axes that are not left out."""
        key = (number, shown)
        if key not in self._firsts:
            block = self._layout.blocks[number]
            seen: dict[str, int] = {}
            columns = [self._names.axes[axis].values for axis, show in zip(block.axes, shown, strict=True) if show]
            for digit in range(block.size if columns else 1):
                seen.setdefault(canonical.text([column[digit] for column in columns]), digit)
            self._firsts[key] = frozenset(seen.values())
        return self._firsts[key]
