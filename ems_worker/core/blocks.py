"""What varies together, and what is tested of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ems_worker.core import canonical, explicit, ranges, scope

JSON = canonical.JSON


@dataclass(frozen=True, slots=True)
class Block:
    """What varies together: `size` entries of the axes with these numbers; no axes are the entries of `runs`."""

    axes: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A test of digits, and the blocks whose digits it is about; a condition, or None: axes left out are at digit 0.

    `cost` is what testing once takes from the budget. Where the condition's names are plain axes or constants, `reads`
    has the values of each and the block whose digit chooses one (None: the first).
    """

    blocks: tuple[int, ...]
    condition: scope.Condition | None
    cost: int
    reads: tuple[tuple[Sequence[JSON], int | None], ...] | None = None


def make(names: scope.Names, zips: Sequence[Sequence[int]], runs: Sequence[explicit.Run] | None) -> tuple[Block, ...]:
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
