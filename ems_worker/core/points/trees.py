"""The combinations of blocks that rules couple, as a tree of digits with counts: any is found by its number."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core.language import problems
from ems_worker.core.points import dimensions, evaluation

# How many steps it takes to compare a value.
_COMPARISON: Final = 8


@dataclass(frozen=True, slots=True)
class Node:
    """The digits that a component has at one of its blocks, what is below each, and how many combinations up to it."""

    digits: tuple[int, ...]
    below: tuple["Node", ...]
    upto: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.upto[-1] if self.upto else 0


class TooMuchError(Exception):
    """It takes too long to be worked out at once."""


class Grower:
    """Works trees out, with `budget` steps for all of them.

    A rule is tried as soon as all digits that it is about are known. One that has no value there waits: only where no
    other rule leaves the combination out it goes to `found`, and then counts as holding.
    """

    def __init__(
        self, varying: Sequence[dimensions.Block], tried: evaluation.Trials, budget: int, found: problems.Problems
    ) -> None:
        self._blocks = varying
        self._trials = tried
        self._budget = budget
        self._found = found
        self._known: dict[tuple[dimensions.Rule, tuple[int, ...]], bool | None] = {}

    def grow(self, together: Sequence[int], rules: Sequence[dimensions.Rule]) -> Node:
        """The tree of these blocks, without branches if nothing is left. Raises TooMuchError."""
        self._known = {}
        return self._below(together, 0, rules, [0] * len(self._blocks), ()) or Node((), (), ())

    def _below(
        self,
        together: Sequence[int],
        depth: int,
        rules: Sequence[dimensions.Rule],
        digits: list[int],
        above: tuple[dimensions.Rule, ...],
    ) -> Node | None:
        """The tree below the digits of the first `depth` blocks; None if nothing is there. `above` had no value."""
        block = together[depth]
        ready = [rule for rule in rules if max(rule.blocks) == block]
        kept: list[int] = []
        below: list[Node] = []
        upto: list[int] = []
        for digit in range(self._blocks[block].size):
            self._spend(1 + len(ready))
            digits[block] = digit
            undecided = evaluation.undecided(ready, lambda rule: self._verdict(rule, digits))
            if undecided is None:
                continue
            failing = (*above, *undecided)
            if depth + 1 < len(together):
                node = self._below(together, depth + 1, rules, digits, failing)
                if node is None:
                    continue
                below.append(node)
            for rule in () if depth + 1 < len(together) else failing:
                self._trials.tell(rule, digits, self._found)
            kept.append(digit)
            upto.append((upto[-1] if upto else 0) + (below[-1].total if below else 1))
        return Node(tuple(kept), tuple(below), tuple(upto)) if kept else None

    def _verdict(self, rule: dimensions.Rule, digits: Sequence[int]) -> bool | None:
        """Remembered by the digits that the rule is about."""
        key = (rule, tuple([digits[block] for block in rule.blocks]))
        if key not in self._known:
            self._spend(rule.cost)
            try:
                self._known[key] = self._trials.verdict(rule, digits)
            except evaluation.UnreadyError as unready:
                self._spend(unready.values * _COMPARISON)
                deque(unready.steps, maxlen=0)
                self._known[key] = self._trials.verdict(rule, digits)
        return self._known[key]

    def _spend(self, steps: int) -> None:
        self._budget -= steps
        if self._budget < 0:
            raise TooMuchError
