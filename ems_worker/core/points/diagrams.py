"""Decision diagrams: all combinations that rules allow, with counts that find any of them by its number.

A diagram has a layer of nodes for each dimension. Earlier digits that leave the same question open lead to the same
node: there are as many nodes as different questions, not as many as combinations.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress
from operator import itemgetter
from typing import Final

from ems_worker.core.points.terms import Part, Term, Terms
from ems_worker.core.points.work_limits import Work

# What is left of the rules: the digits that are possible in each later dimension, as bits, and the rules that need more
# than one digit.
_State = tuple[tuple[tuple[int, int], ...], tuple[Term, ...]]
# The first digit of a block, digits of that block, as bits, and the index of the node below them.
_Edge = tuple[int, int, int]
_DECIDED: Final[_State] = ((), ())


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
        self._split: dict[tuple[Term, ...], list[tuple[_State, int]]] = {}

    def build(self, component: Sequence[int], rules: Sequence[Part]) -> Generator[None, None, Node]:
        """The diagram of the dimensions of a component under rules that need no others, in short steps.

        A rule is a truth value, or a term that has only truth values. Raises WorkLimitExceeded.
        """
        first = self._state(rules)
        if first is None:
            return NOTHING
        states = [first]
        layers: list[list[list[_Edge]]] = []
        for dimension in component:
            self._work.spend(self._sizes[dimension] * len(states))
            layer: list[list[_Edge]] = [[] for _ in states]
            following: dict[_State, int] = {}
            for block in self._terms.blocks(dimension):
                self._split.clear()
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
        masks, open_rules = state
        possible = (1 << len(block)) - 1
        if masks and masks[0][0] == dimension:
            possible, masks = possible & masks[0][1] >> block.start, masks[1:]
        touched = tuple([rule for rule in open_rules if rule.first == dimension])
        others = tuple([rule for rule in open_rules if rule.first != dimension])
        if touched not in self._split:
            self._split[touched] = self._splitted(touched, len(block))
        for left, its_digits in self._split[touched]:
            digits = its_digits & possible
            below = self._joined((masks, others), left) if digits else None
            if below is not None:
                yield digits, below

    def _splitted(self, rules: Sequence[Term], size: int) -> list[tuple[_State, int]]:
        """What is left of rules that need the digit of a dimension, and the digits that leave it."""
        if not rules:
            return [(_DECIDED, (1 << size) - 1)]
        by_parts: dict[tuple[Part, ...], int] = {}
        bit = 1
        for parts in zip(*[self._terms.column(rule) for rule in rules], strict=True):
            if False not in parts:
                by_parts[parts] = by_parts.get(parts, 0) | bit
            bit <<= 1
        by_state: dict[_State, int] = {}
        for parts, digits in by_parts.items():
            state = self._state(parts)
            if state is not None:
                by_state[state] = by_state.get(state, 0) | digits
        return [*by_state.items()]

    def _state(self, rules: Sequence[Part]) -> _State | None:
        """The state that consists of these rules; None if they exclude everything."""
        masks: dict[int, int] = {}
        open_rules: dict[Term, None] = {}
        for rule in rules:
            if rule is False:
                return None
            if rule is True:
                continue
            if rule.first != rule.last or not self._terms.is_small(rule.first):
                open_rules[rule] = None
                continue
            everything = (1 << self._sizes[rule.first]) - 1
            mask = self._terms.mask(rule)
            if mask != everything:
                masks[rule.first] = mask & masks.get(rule.first, everything)
                if not masks[rule.first]:
                    return None
        return tuple(sorted(masks.items())), _ordered(open_rules)

    def _joined(self, state: _State, added: _State) -> _State | None:
        """A state in which both states hold; None if both can't."""
        if added == _DECIDED or state == _DECIDED:
            return state if added == _DECIDED else added
        masks = dict(state[0])
        for dimension, mask in added[0]:
            masks[dimension] = mask & masks.get(dimension, mask)
            if not masks[dimension]:
                return None
        return tuple(sorted(masks.items())), _ordered(dict.fromkeys((*state[1], *added[1])))

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


def _ordered(rules: dict[Term, None]) -> tuple[Term, ...]:
    return tuple(sorted(rules, key=lambda rule: rule.serial))


def _digits(start: int, bits: int) -> Iterator[int]:
    return compress(range(start, start + bits.bit_length()), map(int, bin(bits)[:1:-1]))
