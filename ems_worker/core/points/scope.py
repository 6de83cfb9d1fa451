"""The values of names at one combination: parameters, entries of `runs`, derived values, the base configuration."""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import decimals, paths, quotes
from ems_worker.core.language.expressions import ExpressionError
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.names import MISSING, Condition, Missing, Names, Operand, Source, Value

JSON = canonical.JSON

# The names that a message shows with their values.
_MAX_SHOWN: Final = 10


class Scope:
    """One combination: the values of its axes, and the values that are derived from them.

    `digits` has the index of the value in each dimension. `dimension_of` has the dimension of each axis; an axis that
    has none has a single value. `listed` is the entry of `runs`. An expression that has no value counts as false,
    and is reported to `problems` if that is given.
    """

    __slots__ = ("_digits", "_dimension_of", "_known", "_listed", "_names", "_problems")

    def __init__(
        self,
        names: Names,
        dimension_of: Mapping[int, int],
        digits: Sequence[int],
        *,
        listed: ListedPoint,
        problems: Problems | None = None,
    ) -> None:
        self._names = names
        self._dimension_of = dimension_of
        self._digits = digits
        self._listed = listed
        self._problems = problems
        self._known: dict[int, Value] = {}

    def parameter(self, number: int) -> Value:
        """The value that the point sets for an axis; MISSING if the point leaves it out."""
        if number not in self._known:
            self._known[number] = self._compute(number)
        return self._known[number]

    def holds(self, condition: Condition, *, if_missing: bool) -> bool:
        """Whether a condition holds; `if_missing` is the result if a name in it has no value here."""
        values = [self._value(source) for source in condition.sources]
        if any(value is MISSING for value in values):
            return if_missing
        try:
            return condition.expression.holds(values)  # type: ignore[arg-type]  # none is MISSING
        except ExpressionError as error:
            self._report(condition, values, error)
            return False

    def shows(self, number: int) -> bool:
        """Whether the point sets a value for an axis: its `when` holds, if it has one."""
        when = self._names.whens.get(number)
        return when is None or self.holds(when, if_missing=False)

    def _compute(self, number: int) -> Value:
        if not self.shows(number):
            return MISSING
        derivation = self._names.derivations.get(number)
        if derivation is None:
            return self._names.values[number][self._index(number)]
        values = [self._value(source) for source in derivation.sources]
        if any(value is MISSING for value in values):
            return MISSING
        try:
            return derivation.expression.evaluate(values)  # type: ignore[arg-type]  # none is MISSING
        except ExpressionError as error:
            self._report(derivation, values, error)
            return MISSING

    def _value(self, source: Source) -> Operand:
        """A name's value: what the point sets, else what the base configuration has."""
        if source.axis is not None:
            value = self._operand(source.axis)
            if not isinstance(value, Missing):
                return inside(value, source.rest, source.below)
        return unless_shown(source, self._listed)

    def _operand(self, number: int) -> Operand:
        """The value of an axis as expressions calculate with it."""
        value = self.parameter(number)
        if isinstance(value, Missing):
            return value
        if number in self._names.derivations:
            return decimals.exact(value)
        return self._names.operands[number][self._index(number)]

    def _index(self, number: int) -> int:
        dimension = self._dimension_of.get(number)
        return 0 if dimension is None else self._digits[dimension]

    def _report(self, condition: Condition, values: Sequence[Operand], error: ExpressionError) -> None:
        if self._problems is None or self._problems.has("expression_fails", condition.location):
            return
        named = [*zip(condition.expression.names, values, strict=True)]
        given = ", ".join([f"{name} = {quotes.brief(value)}" for name, value in named[:_MAX_SHOWN]])
        given += ", ..." if len(named) > _MAX_SHOWN else ""
        message = f"{quotes.brief(condition.expression.text)}{given and ' with '}{given}: {error}"
        self._problems.add("expression_fails", condition.location, message)


def unless_shown(source: Source, listed: ListedPoint) -> Operand:
    """A name's value where no axis sets it: what the entry of `runs` has, else what the base configuration has."""
    for name, rest in source.listed:
        if name in listed.overrides:
            return inside(listed.operand(name), rest)
    return source.base


def inside(value: decimals.Operand, rest: paths.Path, below: Operand = MISSING) -> Operand:
    """What a path leads to in a value whose mappings merge into others; MISSING if it leads nowhere.

    `below` is the value at the path that they merge into; MISSING if they replace what is there.
    """
    for index, step in enumerate(rest):
        if not isinstance(value, dict):
            walked = cast("JSON", value)  # paths only walk lists and mappings, whatever is in them
            return cast("Operand", paths.get(walked, rest[index:])) if paths.has(walked, rest[index:]) else MISSING
        if step not in value:
            return below
        value = value[str(step)]
    return value if isinstance(below, Missing) else _merged(value, below)


def _merged(value: decimals.Operand, below: decimals.Operand) -> decimals.Operand:
    if not (isinstance(value, dict) and isinstance(below, dict)):
        return value
    return {**below, **{key: _merged(inner, below.get(key)) for key, inner in value.items()}}
