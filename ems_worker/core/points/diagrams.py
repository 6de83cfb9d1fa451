"""Decision diagrams: all combinations that rules allow, with counts that find any of them by its number.

A diagram has a layer of nodes for each dimension. Earlier digits that leave the same question open lead to the same
node: there are as many nodes as different questions, not as many as combinations.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, repeat
from operator import itemgetter
from typing import Final

from ems_worker.core.points.terms import Part, Term, Terms
from ems_worker.core.points.work_limits import Work

# What is left of the rules: the digits that are possible in each later dimension, as bits, and the rules that need more
# than one digit.
_State = tuple[tuple[tuple[int, int], ...], tuple[Term, ...]]
# The first digit of a block, digits of that block, as bits, and the index of the node below them.
_Edge = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Node:
    """The digits that are possible in a dimension, the node below each, and the cumulative counts.

    `cumulative[i]` is the number of combinations with one of the first i + 1 digits. The last dimension has no nodes
    below.
    """

    digits: Sequence[int]
    below: Sequence["Node"]
    cumulative: Sequence[int]

    @property
    def total(self) -> int:
        """The number of combinations."""
        return self.cumulative[-1] if self.cumulative else 0


NOTHING: Final = Node((), (), ())
END: Final = Node((0,), (), (1,))


class DiagramBuilder:
    """Builds diagrams over dimensions of these sizes."""

    def __init__(self, sizes: Sequence[int], terms: Terms, work: Work) -> None:
        self._sizes = sizes
        self._terms = terms
        self._work = work

    def build(self, component: Sequence[int], rules: Sequence[Part]) -> Generator[None, None, Node]:
        """The diagram of the dimensions of a component under rules that need no others, in short steps.

        A rule is a truth value, or a term that has only truth values. Raises WorkLimitExceeded.
        """
        first = self._state(rules, (), ())
        if first is None:
            return NOTHING
        states = [first]
        layers: list[list[list[_Edge]]] = []
        for dimension in component:
            self._work.spend(self._sizes[dimension] * len(states))
            layer: list[list[_Edge]] = [[] for _ in states]
            following: dict[_State, int] = {}
            for block in self._terms.blocks(dimension):
                for state, edges in zip(states, layer, strict=True):
                    for digits, below in self._below(state, dimension, block):
                        edges.append((block.start, digits, self._number(below, following)))
                    yield
            layers.append(layer)
            states = [*following]
        nodes, is_last = [END], True
        for layer in reversed(layers):
            above = []
            for edges in layer:
                above.append(self._node(edges, nodes, is_last=is_last))
                yield
            nodes, is_last = above, False
        return nodes[0] if nodes else NOTHING

    def _below(self, state: _State, dimension: int, block: range) -> Iterator[tuple[int, _State]]:
        """The states that follow a state, each after some digits of a dimension."""
        masks, rules = state
        possible = -1
        if masks and masks[0][0] == dimension:
            possible, masks = masks[0][1] >> block.start, masks[1:]
        touched = [self._terms.column(rule) for rule in rules if rule.first == dimension]
        others = [rule for rule in rules if rule.first != dimension]
        by_parts: dict[tuple[Part, ...], int] = {}
        bit = 1
        for parts in zip(*touched, strict=True) if touched else repeat((), len(block)):
            if bit & possible and False not in parts:
                by_parts[parts] = by_parts.get(parts, 0) | bit
            bit <<= 1
        for parts, digits in by_parts.items():
            below = self._state(parts, masks, others)
            if below is not None:
                yield digits, below

    def _state(self, rules: Sequence[Part], masks: Iterable[tuple[int, int]], others: Iterable[Term]) -> _State | None:
        """The state in which these rules hold besides those that hold already; None if they exclude everything."""
        possible = dict(masks)
        open_rules = dict.fromkeys(others)
        for rule in rules:
            if rule is False:
                return None
            if rule is True:
                continue
            if rule.first != rule.last or not self._terms.is_small(rule.first):
                open_rules[rule] = None
                continue
            everything = (1 << self._sizes[rule.first]) - 1
            mask = self._terms.mask(rule) & possible.get(rule.first, everything)
            if not mask:
                return None
            if mask != everything:
                possible[rule.first] = mask
        return tuple(sorted(possible.items())), tuple(sorted(open_rules, key=lambda rule: rule.serial))

    def _number(self, state: _State, following: dict[_State, int]) -> int:
        """The index of a state among those that follow; the last one if it is new."""
        size = len(state[0]) + len(state[1])
        self._work.spend(2 + size)
        number = following.setdefault(state, len(following))
        self._work.keep(1 if number < len(following) - 1 else 4 + 4 * size)
        return number

    def _node(self, edges: Sequence[_Edge], below: Sequence[Node], *, is_last: bool) -> Node:
        children = [
            (digit, below[index])
            for start, digits, index in edges
            if below[index].total
            for digit in _digits(start, digits)
        ]
        self._work.spend(len(children))
        self._work.keep(len(children))
        if len(edges) > 1:
            children.sort(key=itemgetter(0))
        digits = tuple([digit for digit, _ in children])
        if is_last:
            return Node(digits, (), range(1, len(digits) + 1))
        nodes = tuple([node for _, node in children])
        return Node(digits, nodes, tuple(accumulate([node.total for node in nodes])))


def _digits(start: int, bits: int) -> Iterator[int]:
    return compress(range(start, start + bits.bit_length()), map(int, bin(bits)[:1:-1]))
