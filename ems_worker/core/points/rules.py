"""The rules of a plan as terms over its dimensions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import not_, or_
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import decimals, duplicates, expressions, quotes, ranges
from ems_worker.core.language.expressions import ExpressionError
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.points import scope
from ems_worker.core.points.dimensions import LISTED, Dimension
from ems_worker.core.points.expression_terms import ExpressionTerms
from ems_worker.core.points.names import MISSING, Condition, Missing, Names, Operand, Source
from ems_worker.core.points.scope import Scope
from ems_worker.core.points.term_operations import Decided
from ems_worker.core.points.terms import FAILED, Failed, Part, Term, Terms
from ems_worker.core.points.work_limits import Work

JSON = canonical.JSON

# The steps of comparing a value with earlier ones.
_COMPARISON: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class Requirement:
    """An expression that needs a value at every point. `report` evaluates it in a scope that reports problems."""

    term: Part
    location: quotes.Location
    report: Callable[[Scope], object]


class Rules:
    """Makes terms of a plan's rules and of the values that follow from others."""

    def __init__(
        self, names: Names, dimensions: Sequence[Dimension], listed: Sequence[ListedPoint], *, terms: Terms, work: Work
    ) -> None:
        self._names = names
        self._dimensions = dimensions
        self._listed = listed
        self._terms = terms
        self._work = work
        self._expressions = ExpressionTerms(terms)
        self._dimension_of = {axis: number for number, each in enumerate(dimensions) for axis in each.axes}
        # By the ids of sources, which names keep.
        self._sources: dict[int, Part] = {}
        self._unless_missing = {other: Decided(partial(_unless_missing, other)) for other in (True, False, MISSING)}
        self._parameters: dict[int, Part] = {}
        # By the axes of a dimension that are not left out: the first digit with the same values, and the digits seen.
        self._firsts: dict[tuple[int, ...], dict[int, int]] = {}
        self._filled: dict[tuple[int, ...], int] = {}

    def all(self) -> Iterator[Requirement]:
        """What holds at points: all constraints, and of combinations that conditions make equal it is the first."""
        for condition in self._names.constraints:
            report = partial(_holds, condition)
            yield Requirement(self._value(condition, if_missing=True), condition.location, report)
        for number, dimension in enumerate(self._dimensions):
            left_out = [axis for axis in dimension.axes if axis in self._names.whens]
            if left_out:
                location = self._names.whens[left_out[0]].location
                yield Requirement(self._first(number, left_out), location, partial(_shows, left_out))

    def values(self) -> Iterator[Requirement]:
        """The other values of points: derived ones, and those that don't vary but may be left out."""
        for axis in sorted({*self._names.derivations, *self._names.whens} - self._dimension_of.keys()):
            report = partial(_parameter, axis)
            yield Requirement(self._parameter(axis), self._names.axes[axis].location, report)

    def _first(self, number: int, left_out: Sequence[int]) -> Part:
        """Whether no earlier digit of a dimension gives the same values to those of its axes that are not left out."""
        dimension = self._dimensions[number]
        shown = [self._shown(axis) for axis in left_out]
        digit = self._terms.leaf(number, range(dimension.size))
        if len(dimension.axes) == 1:
            return self._expressions.apply(or_, [self._expressions.apply(not_, [digit]), *shown])
        return self._expressions.apply(partial(self._is_first, number, left_out), [digit, *shown])

    def _is_first(self, number: int, left_out: Sequence[int], digit: int, *shown: bool) -> bool:
        hidden = {axis for axis, is_shown in zip(left_out, shown, strict=True) if not is_shown}
        axes = tuple([axis for axis in self._dimensions[number].axes if axis not in hidden])
        if not hidden or not axes:
            return not hidden or digit == 0
        columns = [self._names.values[axis] for axis in axes]
        if any(isinstance(values, ranges.Spaced) and not values.dense for values in columns):
            return True  # all of its values are different
        firsts, filled = self._firsts.setdefault(axes, {}), self._filled.get(axes, 0)
        # Samples vary fastest: all conditions are known when their digits come, one after another. Those of other
        # dimensions may come in any order. Earlier digits that have the same values here are left out in the same way.
        for earlier in range(digit if number == len(self._dimensions) - 1 else filled, digit):
            self._first_digit(firsts, columns, earlier)
        self._filled[axes] = max(filled, digit)
        return self._first_digit(firsts, columns, digit) == digit

    def _first_digit(self, firsts: dict[int, int], columns: Sequence[Sequence[JSON]], digit: int) -> int:
        self._work.spend(len(columns) * _COMPARISON)
        self._work.keep(2)
        return firsts.setdefault(duplicates.digest(columns, digit), digit)

    def _shown(self, axis: int) -> Part:
        return self._expressions.apply(_truth, [self._value(self._names.whens[axis], if_missing=False)])

    def _parameter(self, axis: int) -> Part:
        """The value that points set for an axis, or MISSING."""
        if axis not in self._parameters:
            value = self._full(axis)
            if axis in self._names.whens:
                value = self._expressions.choose(self._shown(axis), value, MISSING)
            self._parameters[axis] = value
        return self._parameters[axis]

    def _full(self, axis: int) -> Part:
        derivation = self._names.derivations.get(axis)
        if derivation is not None:
            return self._expressions.apply(_derived, [self._value(derivation, if_missing=MISSING)])
        operands = self._names.operands[axis]
        if axis not in self._dimension_of:
            return operands[0]
        return self._terms.leaf(self._dimension_of[axis], operands)

    def _value(self, condition: Condition, *, if_missing: bool | Missing) -> Part:
        """The value of an expression; `if_missing` where a name in it has none."""
        named = [self._source(source) for source in condition.sources]
        value = self._expressions.value(condition.expression.tree, named)
        for part in named:
            if not _has_value(part):
                value = self._unless_missing[if_missing].combine(self._terms, (part, value))
        return value

    def _source(self, source: Source) -> Part:
        """The value of a name, or MISSING."""
        if id(source) not in self._sources:
            part = self._sources[id(source)] = self._found(source)
            if type(part) is Term:
                part.weight = max(part.weight, source.weight)
        return self._sources[id(source)]

    def _found(self, source: Source) -> Part:
        other: Part = source.base
        if source.listed:
            self._work.keep(len(self._listed) // 4)
            values = [scope.unless_shown(source, point) for point in self._listed]
            other = self._terms.leaf(LISTED, values, partial=True)
        if source.axis is None:
            return other
        value = self._parameter(source.axis)
        if not source.rest and _has_value(value) and not isinstance(source.below, dict):
            return value
        return Decided(partial(_inside, source), 1 + source.weight // 10).combine(self._terms, (value, other))


def _has_value(part: Part) -> bool:
    """Whether it is sure that a part has a value."""
    if type(part) is Term:
        return part.operation is None and not part.partial
    return part is not MISSING and part is not FAILED


def _unless_missing(other: bool | Missing, named: Part, value: Part) -> Part:
    """The value of an expression; the other one where a name in it has none."""
    return named if named is FAILED else other if named is MISSING else value


def _inside(source: Source, value: Operand | Failed, other: Part) -> Part:
    """What a name means where this is the value of its axis; the other value if the axis is left out."""
    if isinstance(value, Missing | Failed):
        return value if isinstance(value, Failed) else other
    return scope.inside(value, source.rest, source.below)


def _derived(value: object) -> decimals.Operand:
    """A derived value as other expressions calculate with it: as the parameter that runs get."""
    return decimals.exact(expressions.checked(value))


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError("a condition must be true or false")
    return value


def _holds(condition: Condition, at: Scope) -> object:
    return at.holds(condition, if_missing=True)


def _shows(axes: Sequence[int], at: Scope) -> object:
    return [at.shows(axis) for axis in axes]


def _parameter(axis: int, at: Scope) -> object:
    return at.parameter(axis)
