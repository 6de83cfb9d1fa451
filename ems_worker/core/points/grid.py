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
from itertools import islice
from math import prod
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import listed, problems
from ems_worker.core.points import dimensions, evaluation, scope, trees

JSON = canonical.JSON

# What working out all components may cost, in steps of some half a microsecond: one a digit tried, more an evaluation.
_BUDGET: Final = 1_200_000
# At how many combinations each derived value is worked out at once, and how many steps all of them may take.
_TRIED: Final = 200
_TRIED_STEPS: Final = 1_200_000
# What may have to be tried one by one, at some 10 us each; fewer of what takes longer, by these steps.
_MOST_TRIED: Final = 2_000_000
_MOST_TRYING: Final = 400_000_000
# What working out derived values everywhere may cost, in the same steps.
MOST_DERIVED: Final = 100_000_000
# How far is looked for a point at which an expression has no value: at once, and when there is time.
_LOOKED: Final = 10_000
_LOOKED_LONG: Final = 1_000_000
# How many values are compared to find the first of equal entries, each time that others of them are left out.
_MOST_COMPARED: Final = 40_000_000
# How much is tried between two words of it: some 20 ms, in combinations and in steps.
_STEP: Final = 2_000
_LONGEST_STEP: Final = 100_000
# How many steps count as another look at a combination.
_LOOK: Final = 100


class Grid:
    """All combinations of a plan's blocks that its conditions and constraints leave."""

    def __init__(
        self,
        names: scope.Names,
        varying: Sequence[dimensions.Block],
        runs: Sequence[listed.Run],
        found: problems.Problems,
    ) -> None:
        self._names = names
        self._blocks = tuple(varying)
        self._runs = runs
        self._layout = layout = dimensions.Layout(names, self._blocks)
        self._block_of = layout.block_of
        self._trials = evaluation.Trials(names, layout, runs)
        rules = layout.rules()
        self._always = self._trials.holds([rule for rule in rules if not rule.blocks], [0] * len(varying), found)
        self._component_of: list[int | None] = [None] * len(varying)
        self._roots: list[trees.Node] = []
        self._together: list[list[int]] = []
        self._open: list[dimensions.Rule] = []
        self._work_out([rule for rule in rules if rule.blocks], found)
        self._cost = sum(rule.cost for rule in self._open)
        free = prod(
            block.size for block, component in zip(varying, self._component_of, strict=True) if component is None
        )
        self.total = free * prod(root.total for root in self._roots) if self._always else 0
        self._derived = [layout.derived(axis) for axis in names.derivations]
        self._looks = _LOOKED
        # Whether all was tried that there is to try.
        self.settled = not self._open
        if self.exact or self.total <= self.most_tried:
            self._try_some(found)
        self._plain = not names.whens and not names.derivations
        self._latest = (0, 0)

    @property
    def exact(self) -> bool:
        """True if `total` is the number of combinations, not only a bound of it."""
        return not self._open

    @property
    def most_tried(self) -> int:
        """How many combinations are tried one by one at most."""
        return min(_MOST_TRIED, _MOST_TRYING // max(1, self._cost))

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
        pace, compared = _pace(self._cost), 0
        for tried, digits in enumerate(self._layout.rows(about) if self._open else ()):
            while True:
                try:
                    number += each * self._trials.holds(self._open, digits, found)
                    break
                except evaluation.UnreadyError as unready:
                    compared += unready.values
                    if compared > _MOST_COMPARED:
                        message = "parameters are left out in too many ways to find the combinations that become equal"
                        found.add("too_many_combinations", ("parameter_space",), message, on_key=True)
                        return
                    for _ in unready.steps:
                        yield number
            if len(found):
                return
            if tried % pace == 0:
                yield number
        for one in self._derived:
            for _ in self._try(one, found):
                yield number
            if len(found):
                return
        yield number

    def combinations(self, start: int, tries: int | None = None) -> Iterator[tuple[listed.Run, dict[str, JSON]]]:
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
            holds = self._holds(digits)
            number += holds
            self._latest = (number, position)
            if holds and number > start:
                yield self._at(digits)

    def ingredients(self) -> tuple[Sequence[listed.Run], Sequence[tuple[str, Sequence[JSON]]]]:
        """What all combinations are made of: the entries of `runs`, and the name and values of each axis.

        Derived values are none of them: they are single numbers, words or booleans.
        """
        return self._runs, [(axis.name, axis.values) for axis in self._names.axes]

    def _at(self, digits: Sequence[int]) -> tuple[listed.Run, dict[str, JSON]]:
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

    def _work_out(self, rules: list[dimensions.Rule], found: problems.Problems) -> None:
        """Makes the tree of each component, or leaves it open."""
        grower = trees.Grower(self._blocks, self._trials, _BUDGET, found)
        for together, about in dimensions.components(rules):
            try:
                root = grower.grow(sorted(together), about)
            except trees.TooMuchError:
                self._open += about
                continue
            for block in together:
                self._component_of[block] = len(self._roots)
            self._roots.append(root)
            self._together.append(sorted(together))

    def _try_some(self, found: problems.Problems) -> None:
        """Works derived values out at the first combinations of what they are derived from."""
        steps = _TRIED_STEPS
        for one in self._derived:
            tries = min(_TRIED, steps // one.cost)
            steps -= one.cost * min(tries, one.combinations)
            self.settled = self.settled and one.combinations <= tries
            deque(self._try(one, found, tries), maxlen=0)

    def _holds(self, digits: Sequence[int]) -> bool:
        """Whether the open rules leave a combination; what has no value is told by whoever tries all."""
        while True:
            try:
                return self._trials.holds(self._open, digits, None)
            except evaluation.UnreadyError as unready:
                deque(unready.steps, maxlen=0)

    def _try(self, one: dimensions.Derived, found: problems.Problems, most: int | None = None) -> Iterator[None]:
        """Works a derived value out at all combinations, or the first, of what it is derived from.

        Tells of a point where it has none, and yields now and then. Within `most` it leaves open what can't be told.
        """
        pace = _pace(one.cost)
        for tried, row in enumerate(islice(self._layout.rows(one.blocks), most)):
            if tried % pace == pace - 1:
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
            for digits in self._layout.rows(others):
                self._look(1 + self._cost // _LOOK)
                whole = list(row)
                for block in others:
                    whole[block] = digits[block]
                if self._trials.holds(self._open, whole, None):
                    return True
        except (trees.TooMuchError, evaluation.UnreadyError):
            return None
        return False

    def _reaches(self, node: trees.Node, together: Sequence[int], row: Sequence[int], fixed: frozenset[int]) -> bool:
        self._look()
        for which, digit in enumerate(node.digits):
            if together[0] in fixed and digit != row[together[0]]:
                continue
            if len(together) == 1 or self._reaches(node.below[which], together[1:], row, fixed):
                return True
        return False

    def _look(self, looks: int = 1) -> None:
        self._looks -= looks
        if self._looks < 0:
            raise trees.TooMuchError


def _pace(cost: int) -> int:
    """How many combinations are tried in one step, where each takes so many."""
    return max(1, min(_STEP, _LONGEST_STEP // max(1, cost)))


_DONE: Final = trees.Node((0,), (), (1,))
