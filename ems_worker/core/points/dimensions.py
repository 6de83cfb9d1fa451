"""Dimensions: what varies together. Combinations are numbers with one digit per dimension."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, assert_never

from ems_worker.core.language import decimals, ranges
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.points.names import Condition, Missing, Names

# For an expression whose names are plain axes or constants: the values of each name, and the dimension whose digit is
# the index of the value (None: the first value).
Reads = tuple[tuple[Sequence[decimals.Operand], int | None], ...]

# The cost of an evaluation, in steps of about half a microsecond: a fixed part, and one per unit of work.
_EVALUATION: Final = 8
_EVALUATION_PER_WORK: Final = 2


@dataclass(frozen=True, slots=True)
class Dimension:
    """Values that vary together: `size` values for each of these axes. Without axes: the entries of `runs`."""

    axes: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A test of digits, and the dimensions whose digits it needs.

    With a condition: the condition must hold. Without: a digit of the first dimension is only valid if no earlier digit
    gives the same values to those of its axes that are not left out. `cost` is the number of steps of one test.
    """

    dimensions: tuple[int, ...]
    condition: Condition | None
    cost: int
    reads: Reads | None = None


@dataclass(frozen=True, slots=True)
class Derivation:
    """The derived value of an axis, the dimensions that it depends on, and the number of their combinations.

    `cost` is the number of steps of one evaluation.
    """

    axis: int
    condition: Condition
    dimensions: tuple[int, ...]
    combinations: int
    cost: int
    reads: Reads | None


def arrange(names: Names, zips: Sequence[Sequence[int]], listed: Sequence[ListedPoint] | None) -> tuple[Dimension, ...]:
    """The dimensions in the order of points: entries of `runs`, axes and zip groups in the plan's order, samples."""
    group_of = {axis: tuple(sorted(group)) for group in zips for axis in group}
    varied: dict[tuple[int, ...], Dimension] = {}
    sampled: list[int] = []
    for number, axis in enumerate(names.axes):
        match axis.source:
            case Sampled():
                sampled.append(number)
            case Varied():
                group = group_of.get(number, (number,))
                size = ranges.size(axis.values)
                if size > 1:  # a single value needs no digit
                    varied.setdefault(group, Dimension(group, size))
            case Constant() | Derived() | None:
                pass
            case _:
                assert_never(axis.source)
    arranged = [] if listed is None else [Dimension((), len(listed))]
    arranged += varied.values()
    if sampled:
        arranged.append(Dimension(tuple(sampled), len(names.axes[sampled[0]].values)))
    return tuple(arranged)


class DimensionMap:
    """The dimension of each axis, and which dimensions conditions and derived values depend on."""

    def __init__(self, names: Names, dimensions: Sequence[Dimension]) -> None:
        self._names = names
        self.dimensions = dimensions
        self.listed_dimension = next((number for number, each in enumerate(dimensions) if not each.axes), None)
        self.dimension_of = {axis: number for number, each in enumerate(dimensions) for axis in each.axes}

    def rules(self) -> list[Rule]:
        """The rules that combinations are tested by: constraints, and distinct values where axes are left out."""
        names = self._names
        rules = [
            Rule(self._dependencies(condition), condition, self._cost([condition]), self._reads(condition))
            for condition in names.constraints
        ]
        for number, dimension in enumerate(self.dimensions):
            conditions = [names.whens[axis] for axis in dimension.axes if axis in names.whens]
            if conditions:
                others = {each for condition in conditions for each in self._dependencies(condition)} - {number}
                rules.append(Rule((number, *sorted(others)), None, self._cost(conditions)))
        return rules

    def rows(self, varying: Sequence[int]) -> Iterator[list[int]]:
        """All digits of these dimensions, with 0 for the others. Every row is the same list."""
        row = [0] * len(self.dimensions)
        while True:
            yield row
            for number in reversed(varying):
                row[number] += 1
                if row[number] < self.dimensions[number].size:
                    break
                row[number] = 0
            else:
                return

    def derivation(self, axis: int) -> Derivation:
        """The derived value of an axis, and what it depends on."""
        condition, when = self._names.derivations[axis], self._names.whens.get(axis)
        conditions = [condition] if when is None else [condition, when]
        depends_on = sorted({number for each in conditions for number in self._dependencies(each)})
        return Derivation(
            axis,
            condition,
            dimensions=tuple(depends_on),
            combinations=prod(self.dimensions[number].size for number in depends_on),
            cost=self._cost(conditions),
            reads=self._reads(condition) if when is None else None,
        )

    def _dependencies(self, condition: Condition) -> tuple[int, ...]:
        """The dimensions that a condition depends on."""
        axes = self._names.dependencies(condition)
        depends_on = {self.dimension_of[axis] for axis in axes if axis in self.dimension_of}
        if self.listed_dimension is not None and self._names.reads_listed(condition):
            depends_on.add(self.listed_dimension)
        return tuple(sorted(depends_on))

    def _reads(self, condition: Condition) -> Reads | None:
        """The values of a condition's names, if they can be read without a scope; otherwise None."""
        reads: list[tuple[Sequence[decimals.Operand], int | None]] = []
        for source in condition.sources:
            if source.axis is None:
                if source.listed or isinstance(source.base, Missing):
                    return None
                reads.append(([source.base], None))
            elif source.rest or source.axis in self._names.whens or source.axis in self._names.derivations:
                return None
            else:
                reads.append((self._names.operands[source.axis], self.dimension_of.get(source.axis)))
        return tuple(reads)

    def _cost(self, conditions: list[Condition]) -> int:
        names = self._names
        axes = {axis for condition in conditions for axis in names.dependencies(condition)}
        indirect = [each[axis] for axis in axes for each in (names.whens, names.derivations) if axis in each]
        work = sum(condition.work for condition in (*conditions, *indirect))
        return _EVALUATION + _EVALUATION_PER_WORK * work


def components(rules: list[Rule]) -> list[tuple[set[int], list[Rule]]]:
    """The sets of dimensions that rules connect, each with its rules."""
    connected: list[tuple[set[int], list[Rule]]] = []
    for rule in rules:
        component: tuple[set[int], list[Rule]] = (set(rule.dimensions), [rule])
        separate = []
        for other in connected:
            if other[0] & component[0]:
                component = (other[0] | component[0], other[1] + component[1])
            else:
                separate.append(other)
        connected = [*separate, component]
    return connected
