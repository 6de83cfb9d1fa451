"""The combinations of a plan: counted without making any, and each found by its number.

A block is what varies together: one axis, the axes of a zip group, all sampled axes, or the entries of `runs`. A
combination has one digit a block. Conditions and constraints couple blocks into components. The combinations of each
component are worked out once, as a tree of digits with counts, which gives the number of all points by multiplication
and any point by its number; a component too large for that is open: its combinations are tried one by one when points
are made, and the number of points is an upper bound.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Final

from ems_worker.core import blocks, canonical, explicit, expressions, problems, scope

JSON = canonical.JSON

# What working out all components may cost, in steps of some half a microsecond: one a digit tried, more an evaluation.
_BUDGET: Final = 1_200_000
_EVALUATION: Final = 8
_EVALUATION_BY_SIZE: Final = 2
# How many combinations each derived value is tried at.
_TRIED: Final = 200
# What may have to be tried one by one, at some 10 us each.
MOST_TRIED: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class _Node:
    """The digits that a component has at one of its blocks, what is below each, and how many combinations up to it."""

    digits: tuple[int, ...]
    below: tuple["_Node", ...]
    upto: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.upto[-1] if self.upto else 0


class _TooMuchError(Exception):
    """A component is too large to be worked out."""


class Grid:
    """All combinations of a plan's blocks that its conditions and constraints leave."""

    def __init__(
        self,
        names: scope.Names,
        varying: Sequence[blocks.Block],
        runs: Sequence[explicit.Run],
        found: problems.Problems,
    ) -> None:
        self._names = names
        self._blocks = tuple(varying)
        self._runs = runs
        self._run_block = next((number for number, block in enumerate(varying) if not block.axes), None)
        self._block_of = {axis: number for number, block in enumerate(varying) for axis in block.axes}
        self._firsts: dict[tuple[int, tuple[bool, ...]], frozenset[int]] = {}
        self._known: dict[tuple[blocks.Rule, tuple[int, ...]], bool] = {}
        self._failing: set[blocks.Rule] = set()
        rules = self._rules()
        self._always = all(self._test(rule, [0] * len(varying), found) for rule in rules if not rule.blocks)
        self._component_of: list[int | None] = [None] * len(varying)
        self._roots: list[_Node] = []
        self._open: list[blocks.Rule] = []
        self._work_out([rule for rule in rules if rule.blocks], found)
        self._try_derivations(found)
        self._plain = not names.whens and not names.derivations
        free = prod(
            block.size for block, component in zip(varying, self._component_of, strict=True) if component is None
        )
        self.total = free * prod(root.total for root in self._roots) if self._always else 0
        self._latest = (0, 0)

    def tried(self) -> int:
        """The number of combinations, found by trying those of the open components, at some 10 us each."""
        about = sorted({block for rule in self._open for block in rule.blocks})
        sizes = [self._blocks[block].size for block in about]
        digits = [0] * len(self._blocks)
        holding = 0
        for row in product(*map(range, sizes)):
            for block, digit in zip(about, row, strict=True):
                digits[block] = digit
            holding += all(self._test(rule, digits, None) for rule in self._open)
        return self.total // prod(sizes) * holding

    @property
    def exact(self) -> bool:
        """True if `total` is the number of combinations, not only a bound of it."""
        return not self._open

    def combinations(self, start: int) -> Iterator[tuple[explicit.Run, dict[str, JSON]]]:
        """The entry of `runs` and the parameters of each combination from number `start` on, in order."""
        if self.exact:
            for number in range(start, self.total):
                yield self._at(self._digits(number))
            return
        # To go on where the last one stopped, the place of its number among those tried is remembered.
        number, position = self._latest if self._latest[0] <= start else (0, 0)
        while position < self.total:
            digits = self._digits(position)
            position += 1
            if all(self._test(rule, digits, None) for rule in self._open):
                number += 1
                if number > start:
                    self._latest = (number, position)
                    yield self._at(digits)

    def ingredients(self) -> tuple[Sequence[explicit.Run], Sequence[tuple[str, Sequence[JSON]]]]:
        """What all combinations are made of: the entries of `runs`, and the name and values of each axis.

        Derived values are none of them: they are single numbers, words or booleans.
        """
        return self._runs, [(axis.name, axis.values) for axis in self._names.axes]

    def _at(self, digits: Sequence[int]) -> tuple[explicit.Run, dict[str, JSON]]:
        run = self._run(digits)
        params = dict(run.overrides)
        if self._plain:
            for number, axis in enumerate(self._names.axes):
                params[axis.name] = axis.values[digits[self._block_of[number]] if number in self._block_of else 0]
            return run, params
        there = self._scope(digits, None)
        for number, axis in enumerate(self._names.axes):
            value = there.parameter(number)
            if not isinstance(value, scope.Missing):
                params[axis.name] = value
        return run, params

    def _run(self, digits: Sequence[int]) -> explicit.Run:
        return _NO_RUN if self._run_block is None else self._runs[digits[self._run_block]]

    def _scope(self, digits: Sequence[int], found: problems.Problems | None) -> scope.Scope:
        return scope.Scope(self._names, self._block_of, digits, self._run(digits), found)

    def _digits(self, number: int) -> list[int]:
        """The digits of combination `number`, the first block's slowest."""
        remaining = self.total
        nodes = list(self._roots)
        digits = []
        for block, component in zip(self._blocks, self._component_of, strict=True):
            if component is None:
                remaining //= block.size
                digit, number = divmod(number, remaining)
                digits.append(digit)
                continue
            node = nodes[component]
            others = remaining // node.total
            which = bisect_right(node.upto, number // others)
            before = node.upto[which - 1] if which else 0
            number -= before * others
            remaining = (node.upto[which] - before) * others
            nodes[component] = node.below[which] if node.below else _DONE
            digits.append(node.digits[which])
        return digits

    # Working out.

    def _rules(self) -> list[blocks.Rule]:
        names = self._names
        rules = [
            blocks.Rule(self._blocks_of(one), one, self._cost([one]), self._reads(one)) for one in names.constraints
        ]
        for number, block in enumerate(self._blocks):
            conditions = [names.whens[axis] for axis in block.axes if axis in names.whens]
            if conditions:
                about = {number, *(each for condition in conditions for each in self._blocks_of(condition))}
                rules.append(blocks.Rule((number, *sorted(about - {number})), None, self._cost(conditions)))
        return rules

    def _reads(self, condition: scope.Condition) -> tuple[tuple[Sequence[JSON], int | None], ...] | None:
        """The plain sources of a condition, so that it is tested without working out a scope; None if one is not."""
        reads: list[tuple[Sequence[JSON], int | None]] = []
        for source in condition.sources:
            if source.axis is None:
                if source.runs or isinstance(source.base, scope.Missing):
                    return None
                reads.append(([source.base], None))
            elif source.rest or source.axis in self._names.whens or source.axis in self._names.derivations:
                return None
            else:
                reads.append((self._names.axes[source.axis].values, self._block_of.get(source.axis)))
        return tuple(reads)

    def _cost(self, conditions: list[scope.Condition]) -> int:
        names = self._names
        reached = {axis for condition in conditions for axis in names.dependencies(condition)}
        further = [each[axis] for axis in reached for each in (names.whens, names.derivations) if axis in each]
        work = sum(condition.expression.size for condition in (*conditions, *further))
        return _EVALUATION + _EVALUATION_BY_SIZE * work

    def _blocks_of(self, condition: scope.Condition) -> tuple[int, ...]:
        about = {self._block_of[axis] for axis in self._names.dependencies(condition) if axis in self._block_of}
        if self._run_block is not None and self._names.reads_runs(condition):
            about.add(self._run_block)
        return tuple(sorted(about))

    def _work_out(self, rules: list[blocks.Rule], found: problems.Problems) -> None:
        """Makes the tree of each component, or leaves it open."""
        budget = [_BUDGET]
        for together, about in blocks.components(rules):
            try:
                root = self._tree(sorted(together), 0, about, [0] * len(self._blocks), budget, found)
            except _TooMuchError:
                self._open += about
                self._known.clear()
                continue
            for block in together:
                self._component_of[block] = len(self._roots)
            self._roots.append(root or _Node((), (), ()))

    def _try_derivations(self, found: problems.Problems) -> None:
        """Works derived values out at the first combinations of what they name, to tell of those that have none."""
        for axis, condition in self._names.derivations.items():
            about = self._blocks_of(condition)
            for digits in islice(product(*(range(self._blocks[block].size) for block in about)), _TRIED):
                row = [0] * len(self._blocks)
                for block, digit in zip(about, digits, strict=True):
                    row[block] = digit
                self._scope(row, found).parameter(axis)

    def _tree(
        self,
        together: list[int],
        depth: int,
        rules: list[blocks.Rule],
        digits: list[int],
        budget: list[int],
        found: problems.Problems,
    ) -> _Node | None:
        """The tree below the digits of the first `depth` blocks; None if nothing is there."""
        block = together[depth]
        ready = [rule for rule in rules if max(rule.blocks) == block]
        kept: list[int] = []
        below: list[_Node] = []
        upto: list[int] = []
        for digit in range(self._blocks[block].size):
            budget[0] -= 1 + len(ready)
            digits[block] = digit
            if not all(self._test_once(rule, digits, budget, found) for rule in ready):
                continue
            if depth + 1 < len(together):
                node = self._tree(together, depth + 1, rules, digits, budget, found)
                if node is None:
                    continue
                below.append(node)
            kept.append(digit)
            upto.append((upto[-1] if upto else 0) + (below[-1].total if below else 1))
        return _Node(tuple(kept), tuple(below), tuple(upto)) if kept else None

    def _test_once(self, rule: blocks.Rule, digits: list[int], budget: list[int], found: problems.Problems) -> bool:
        """As `_test`, remembered by the digits that the rule is about."""
        key = (rule, tuple([digits[block] for block in rule.blocks]))
        known = self._known.get(key)
        if known is None:
            budget[0] -= rule.cost
            if budget[0] < 0:
                raise _TooMuchError
            known = self._known[key] = self._test(rule, digits, found)
        return known

    def _test(self, rule: blocks.Rule, digits: Sequence[int], found: problems.Problems | None) -> bool:
        if rule in self._failing:
            return True  # what was reported is not tried again
        if rule.condition is not None and rule.reads is not None:
            values = [known[0 if block is None else digits[block]] for known, block in rule.reads]
            try:
                return rule.condition.expression.holds(values)
            except expressions.ExpressionError:
                if found is not None:
                    self._failing.add(rule)
        there = self._scope(digits, found)
        if rule.condition is not None:
            return there.holds(rule.condition, where_missing=True)
        number = rule.blocks[0]
        axes = self._blocks[number].axes
        shown = tuple(not isinstance(there.parameter(axis), scope.Missing) for axis in axes)
        return all(shown) or digits[number] in self._first(number, shown)

    def _first(self, number: int, shown: tuple[bool, ...]) -> frozenset[int]:
        """Of a block's entries those that are the first with the values of the axes that are not left out."""
        key = (number, shown)
        if key not in self._firsts:
            block = self._blocks[number]
            seen: dict[str, int] = {}
            columns = [self._names.axes[axis].values for axis, show in zip(block.axes, shown, strict=True) if show]
            for digit in range(block.size if columns else 1):
                seen.setdefault(canonical.text([column[digit] for column in columns]), digit)
            self._firsts[key] = frozenset(seen.values())
        return self._firsts[key]


_NO_RUN: Final = explicit.Run()
_DONE: Final = _Node((0,), (), (1,))
