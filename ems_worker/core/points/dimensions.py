"""What varies together, and what is tested of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import listed, ranges
from ems_worker.core.points import scope

JSON = canonical.JSON

# Where an expression's names are plain axes or constants: the values of each, and the block whose digit chooses one
# (None: the first).
Reads = tuple[tuple[Sequence[JSON], int | None], ...]

# What one evaluation costs, in steps of some half a microsecond.
_EVALUATION: Final = 8
_EVALUATION_BY_SIZE: Final = 2


@dataclass(frozen=True, slots=True)
class Block:
    """What varies together: `size` entries of the axes with these numbers; no axes are the entries of `runs`."""

    axes: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A test of digits, and the blocks whose digits it is about; a condition, or None: axes left out are at digit 0.

    `cost` is what testing once takes, in steps.
    """

    blocks: tuple[int, ...]
    condition: scope.Condition | None
    cost: int
    reads: Reads | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """The derived value of an axis: what its digits are of, how many combinations these have, the steps of one."""

    axis: int
    condition: scope.Condition
    blocks: tuple[int, ...]
    combinations: int
    cost: int
    reads: Reads | None


def make(names: scope.Names, zips: Sequence[Sequence[int]], runs: Sequence[listed.Run] | None) -> tuple[Block, ...]:
    """The blocks in the order of points: entries of `runs`, axes and zip groups as the plan has them, samples last."""
    group_of = {axis: tuple(sorted(group)) for group in zips for axis in group}
    made: dict[tuple[int, ...], Block] = {}
    sampled: list[int] = []
    for number, axis in enumerate(names.axes):
        if axis.distribution is not None:
            sampled.append(number)
        elif axis.expression is None and not axis.constant:
            group = group_of.get(number, (number,))
            size = ranges.size(axis.values)
            if size > 1:  # a single value is no digit
                made.setdefault(group, Block(group, size))
    ordered = [] if runs is None else [Block((), len(runs))]
    ordered += made.values()
    if sampled:
        ordered.append(Block(tuple(sampled), len(names.axes[sampled[0]].values)))
    return tuple(ordered)


class Layout:
    """Which block each axis is in, and what its rules are about."""

    def __init__(self, names: scope.Names, varying: Sequence[Block]) -> None:
        self._names = names
        self.blocks = varying
        self.run_block = next((number for number, block in enumerate(varying) if not block.axes), None)
        self.block_of = {axis: number for number, block in enumerate(varying) for axis in block.axes}

    def rules(self) -> list[Rule]:
        """What combinations are tested by: constraints, and what conditions leave out."""
        names = self._names
        rules = [Rule(self._about(one), one, self._cost([one]), self._reads(one)) for one in names.constraints]
        for number, block in enumerate(self.blocks):
            conditions = [names.whens[axis] for axis in block.axes if axis in names.whens]
            if conditions:
                about = {number, *(each for condition in conditions for each in self._about(condition))}
                rules.append(Rule((number, *sorted(about - {number})), None, self._cost(conditions)))
        return rules

    def rows(self, about: Sequence[int]) -> Iterator[list[int]]:
        """All digits of these blocks, the others' at 0; each time the same list."""
        row = [0] * len(self.blocks)
        while True:
            yield row
            for block in reversed(about):
                row[block] += 1
                if row[block] < self.blocks[block].size:
                    break
                row[block] = 0
            else:
                return

    def derived(self, axis: int) -> Derived:
        """A derived value, and what it is derived from."""
        condition, when = self._names.derivations[axis], self._names.whens.get(axis)
        about = set(self._about(condition)) | (set() if when is None else set(self._about(when)))
        conditions = [condition] if when is None else [condition, when]
        reads = self._reads(condition) if when is None else None
        combinations = prod(self.blocks[block].size for block in about)
        return Derived(axis, condition, tuple(sorted(about)), combinations, self._cost(conditions), reads)

    def _about(self, condition: scope.Condition) -> tuple[int, ...]:
        about = {self.block_of[axis] for axis in self._names.dependencies(condition) if axis in self.block_of}
        if self.run_block is not None and self._names.reads_runs(condition):
            about.add(self.run_block)
        return tuple(sorted(about))

    def _reads(self, condition: scope.Condition) -> Reads | None:
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
                reads.append((self._names.axes[source.axis].values, self.block_of.get(source.axis)))
        return tuple(reads)

    def _cost(self, conditions: list[scope.Condition]) -> int:
        names = self._names
        reached = {axis for condition in conditions for axis in names.dependencies(condition)}
        further = [each[axis] for axis in reached for each in (names.whens, names.derivations) if axis in each]
        work = sum(condition.work for condition in (*conditions, *further))
        return _EVALUATION + _EVALUATION_BY_SIZE * work


def components(rules: list[Rule]) -> list[tuple[set[int], list[Rule]]]:
    """The blocks that rules couple, with the rules."""
    components: list[tuple[set[int], list[Rule]]] = []
    for rule in rules:
        together: tuple[set[int], list[Rule]] = (set(rule.blocks), [rule])
        apart = []
        for component in components:
            if component[0] & together[0]:
                together = (component[0] | together[0], component[1] + together[1])
            else:
                apart.append(component)
        components = [*apart, together]
    return components
