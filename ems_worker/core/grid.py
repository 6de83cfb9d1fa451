"""The combinations of a plan: counted without making any, and each found by its number.

A block is what varies together: one axis, the axes of a zip group, all sampled axes, or the entries of `runs`. A
combination has one digit a block. Conditions and constraints couple blocks into components. The combinations of each
component are worked out once, as a tree of digits with counts, which gives the number of all points by multiplication
and any point by its number; a component too large for that is open: its combinations are tried one by one when points
are made, and the number of points is an upper bound.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Final

from ems_worker.core import blocks, canonical, explicit, problems, scope, trials

JSON = canonical.JSON

# What working out all components may cost, in steps of some half a microsecond: one a digit tried, more an evaluation.
_BUDGET: Final = 1_200_000
# At how many combinations each derived value is worked out at once.
_TRIED: Final = 200
# What may have to be tried one by one, at some 10 us each.
MOST_TRIED: Final = 2_000_000
# What working out derived values everywhere may cost, in the same steps.
MOST_DERIVED: Final = 100_000_000
# How far is looked for a point at which an expression has no value: at once, and when there is time.
_LOOKED: Final = 10_000
_LOOKED_LONG: Final = 1_000_000
# How much is tried between two words of it: some 20 ms.
_STEP: Final = 2_000


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
        self._layout = layout = blocks.Layout(names, self._blocks)
        self._block_of = layout.block_of
        self._trials = trials.Trials(names, layout, runs)
        self._known: dict[tuple[blocks.Rule, tuple[int, ...]], bool] = {}
        rules = layout.rules()
        self._always = all(self._trials.holds(rule, [0] * len(varying), found) for rule in rules if not rule.blocks)
        self._component_of: list[int | None] = [None] * len(varying)
        self._roots: list[_Node] = []
        self._together: list[list[int]] = []
        self._open: list[blocks.Rule] = []
        self._work_out([rule for rule in rules if rule.blocks], found)
        self._derived = [layout.derived(axis) for axis in names.derivations]
        self._looks = _LOOKED
        # Whether all was tried that there is to try.
        self.settled = not self._open and all(one.combinations <= _TRIED for one in self._derived)
        for one in self._derived:
            deque(self._try(one, found, _TRIED), maxlen=0)
        self._plain = not names.whens and not names.derivations
        free = prod(
            block.size for block, component in zip(varying, self._component_of, strict=True) if component is None
        )
        self.total = free * prod(root.total for root in self._roots) if self._always else 0
        self._latest = (0, 0)

    @property
    def exact(self) -> bool:
        """True if `total` is the number of combinations, not only a bound of it."""
        return not self._open

    @property
    def work(self) -> int:
        """What working out derived values everywhere costs, in steps."""
        return sum(one.combinations * one.cost for one in self._derived)

    def trying(self, found: problems.Problems) -> Iterator[int]:
        """Tries, step by step, what is too much to work out at once; the number of combinations found so far.

        The last is the number of all. It ends early where an expression has no value at one of them, told to `found`.
        """
        self._looks = _LOOKED_LONG
        number = 0 if self._open else self.total
        about = sorted({block for rule in self._open for block in rule.blocks})
        each = self.total // prod(self._blocks[block].size for block in about)
        for tried, digits in enumerate(self._layout.rows(about) if self._open else ()):
            number += each * all(self._trials.holds(rule, digits, found) for rule in self._open)
            if len(found):
                return
            if tried % _STEP == 0:
                yield number
        for one in self._derived:
            for _ in self._try(one, found):
                yield number
            if len(found):
                return
        yield number

    def combinations(self, start: int, tries: int | None = None) -> Iterator[tuple[explicit.Run, dict[str, JSON]]]:
        """The entry of `runs` and the parameters of each combination from number `start` on, in order.

        Where combinations have to be tried, it ends after so many `tries`; going on from there is another call.
        """
        if self.exact:
            for number in range(start, self.total):
                yield self._at(self._digits(number))
            return
        # To go on where the last one stopped, the place of its number among those tried is remembered.
        number, position = self._latest if self._latest[0] <= start else (0, 0)
        end = self.total if tries is None else min(self.total, position + tries)
        while position < end:
            digits = self._digits(position)
            position += 1
            holds = all(self._trials.holds(rule, digits, None) for rule in self._open)
            number += holds
            self._latest = (number, position)
            if holds and number > start:
                yield self._at(digits)

    def ingredients(self) -> tuple[Sequence[explicit.Run], Sequence[tuple[str, Sequence[JSON]]]]:
        """What all combinations are made of: the entries of `runs`, and the name and values of each axis.

        Derived values are none of them: they are single numbers, words or booleans.
        """
        return self._runs, [(axis.name, axis.values) for axis in self._names.axes]

    def _at(self, digits: Sequence[int]) -> tuple[explicit.Run, dict[str, JSON]]:
        run = self._trials.run(digits)
        params = dict(run.overrides)
        if self._plain:
            for number, axis in enumerate(self._names.axes):
                params[axis.name] = axis.values[digits[self._block_of[number]] if number in self._block_of else 0]
            return run, params
        there = self._trials.scope(digits, None)
        for number, axis in enumerate(self._names.axes):
            value = there.parameter(number)
            if not isinstance(value, scope.Missing):
                params[axis.name] = value
        return run, params

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
            self._together.append(sorted(together))

    def _try(self, one: blocks.Derived, found: problems.Problems, most: int | None = None) -> Iterator[None]:
        """Works a derived value out at all combinations, or the first, of what it is derived from.

        Tells of a point where it has none, and yields now and then. Within `most` it leaves open what can't be told.
        """
        for tried, row in enumerate(islice(self._layout.rows(one.blocks), most)):
            if tried % _STEP == _STEP - 1:
                yield
            if self._trials.has_value(one, row):
                continue
            left = self._is_left(row, frozenset(one.blocks))
            if left is None and most is not None:
                self.settled = False
                return
            if left is not False:
                self._trials.scope(row, found).parameter(one.axis)
                return

    def _is_left(self, row: Sequence[int], fixed: frozenset[int]) -> bool | None:
        """Whether any point has these digits at these blocks; None if that takes too long to find out."""
        if not self._always:
            return False
        try:
            for together, root in zip(self._together, self._roots, strict=True):
                if not self._reaches(root, together, row, fixed):
                    return False
            others = sorted({block for rule in self._open for block in rule.blocks} - fixed)
            for digits in product(*(range(self._blocks[block].size) for block in others)):
                self._look()
                whole = list(row)
                for block, digit in zip(others, digits, strict=True):
                    whole[block] = digit
                if all(self._trials.holds(rule, whole, None) for rule in self._open):
                    return True
        except _TooMuchError:
            return None
        return False

    def _reaches(self, node: _Node, together: Sequence[int], row: Sequence[int], fixed: frozenset[int]) -> bool:
        self._look()
        for which, digit in enumerate(node.digits):
            if together[0] in fixed and digit != row[together[0]]:
                continue
            if len(together) == 1 or self._reaches(node.below[which], together[1:], row, fixed):
                return True
        return False

    def _look(self) -> None:
        self._looks -= 1
        if self._looks < 0:
            raise _TooMuchError

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
            known = self._known[key] = self._trials.holds(rule, digits, found)
        return known


_DONE: Final = _Node((0,), (), (1,))
