"""What names mean at one combination: parameters, entries of `runs`, derived values, and the base configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import axes, expressions, listed, paths, problems
from ems_worker.core.points import operands

JSON = canonical.JSON


class Missing:
    """Stands for the value of a parameter that is left out and that the base configuration does not have either."""


MISSING: Final = Missing()
# Derived values are worked out by recursion.
_LONGEST_CHAIN: Final = 50
# How many values inside a list are walked in the time that one part of an expression takes.
_WALKED: Final = 5
Value = JSON | Missing


@dataclass(frozen=True, slots=True)
class Source:
    """Where a name's value comes from: an axis, else what the entry of `runs` says, else the base configuration.

    `rest` leads on into a value that is a list or mapping; so do the paths beside the parameters of `runs`. `weight` is
    how many values it has inside at most.
    """

    axis: int | None
    rest: paths.Path
    runs: tuple[tuple[str, paths.Path], ...]
    base: Value
    weight: int


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression with the sources of its names. `place` is where the plan says it."""

    expression: expressions.Expression
    sources: tuple[Source, ...]
    place: problems.Place

    @property
    def work(self) -> int:
        """What working it out takes, by the size of the expression and of what it names."""
        walked = sum(uses * source.weight for uses, source in zip(self.expression.uses, self.sources, strict=True))
        return self.expression.size + walked // _WALKED


@dataclass(frozen=True, slots=True)
class Names:
    """The parameters of a plan, and what their expressions depend on.

    `whens` and `derivations` are by axis number, and so is `bases`: what the configuration has where an axis is.
    """

    axes: tuple[axes.Axis, ...]
    whens: Mapping[int, Condition]
    derivations: Mapping[int, Condition]
    constraints: tuple[Condition, ...]
    bases: tuple[Value, ...]

    def dependencies(self, condition: Condition) -> set[int]:
        """The axes that a condition depends on, by way of others too."""
        reached: set[int] = set()
        waiting: list[Condition | None] = [condition]
        while waiting:
            for source in _sources(waiting.pop()):
                if source.axis is not None and source.axis not in reached:
                    reached.add(source.axis)
                    waiting += (self.whens.get(source.axis), self.derivations.get(source.axis))
        return reached

    def reads_runs(self, condition: Condition) -> bool:
        """True if what the entries of `runs` override can change a condition, by way of others too."""
        reached = self.dependencies(condition)
        further = [each.get(axis) for axis in reached for each in (self.whens, self.derivations)]
        return any(source.runs for each in (condition, *further) for source in _sources(each))


def resolve(
    space: Sequence[axes.Axis],
    constraints: Sequence[tuple[expressions.Expression, problems.Place]],
    runs: listed.Reader,
    base: dict[str, JSON],
    found: problems.Problems,
) -> Names:
    """Finds what each name in each expression is. Names of nothing, or of too much, and cycles go to `found`."""
    by_name = {axis.dotted: number for number, axis in enumerate(space)}
    by_name |= {axis.name: number for number, axis in enumerate(space)}

    axis_at = {axis.path: number for number, axis in enumerate(space)}
    runs_at = {path: name for name, path in runs.parameters.items()}
    weights = operands.Weights(space, runs.runs)
    known: dict[str, Source | None] = {}
    too_long: set[str] = set()

    def source(name: str, place: problems.Place) -> Source | None:
        if name not in known:
            known[name] = find(name)
        if name in too_long:
            message = (
                f"{name!r} is too long for an expression: {operands.MOST:,} values inside, or letters, are the most"
            )
            found.add("out_of_range", place, message)
        elif known[name] is None:
            suggestion = None if found.full else _nearest(name, chain(by_name, runs.parameters), base, found.budget)
            message = f"{name!r} is neither a parameter nor in the base configuration"
            found.add("unknown_name", place, message, suggestion)
        return known[name]

    def find(name: str) -> Source | None:
        path = paths.resolve(base, paths.split(name))
        axis = by_name.get(name)
        rest: paths.Path = ()
        entries: list[tuple[str, paths.Path]] = [(name, ())] if name in runs.parameters else []
        for head, tail in [] if path is None else [(path[:at], path[at:]) for at in range(1, len(path) + 1)]:
            if axis is None and head in axis_at:
                axis, rest = axis_at[head], tail
            if runs_at.get(head, name) != name:
                entries.append((runs_at[head], tail))
        if axis is not None:
            path = (*space[axis].path, *rest)
        elif path is None and not entries:
            return None
        there = MISSING if path is None or not paths.has(base, path) else paths.get(base, path)
        of_axis = 0 if axis is None else weights.of_axis(axis, rest)
        of_runs = (weights.of_runs(entry, tail) for entry, tail in entries)
        weight = operands.heaviest((operands.weight(there), of_axis, *of_runs))
        if weight is None:
            too_long.add(name)
            return None
        return Source(axis, rest, tuple(entries), there, weight)

    def condition(expression: expressions.Expression, place: problems.Place) -> Condition | None:
        sources = [source(name, place) for name in expression.names]
        return (
            Condition(expression, tuple(each for each in sources if each is not None), place) if all(sources) else None
        )

    whens: dict[int, Condition] = {}
    derivations: dict[int, Condition] = {}
    for number, axis in enumerate(space):
        for key, expression, into in (("when", axis.when, whens), ("expr", axis.expression, derivations)):
            made = condition(expression, (*axis.place, key)) if expression is not None else None
            if made is not None:
                into[number] = made
    judged = [condition(expression, place) for expression, place in constraints]
    bases = tuple(paths.get(base, axis.path) if paths.has(base, axis.path) else MISSING for axis in space)
    names = Names(tuple(space), whens, derivations, tuple(each for each in judged if each is not None), bases)
    _refuse_cycles(names, found)
    return names


def _nearest(name: str, known: Iterable[str], base: dict[str, JSON], budget: problems.Budget) -> str | None:
    """The parameter or path that was most likely meant."""
    near = [budget.nearest(name, known), paths.nearest(base, paths.split(name), budget)]
    return max((each for each in near if each), key=lambda each: budget.likeness(name, each), default=None)


def _refuse_cycles(names: Names, found: problems.Problems) -> None:
    """Reports each cycle once, by the names of its axes, and chains that are too long to follow."""
    depths: dict[int, int] = {}

    def depth(number: int, above: list[int]) -> int:
        if number in above:
            around = [names.axes[each].name for each in above[above.index(number) :]]
            place = names.axes[number].place
            found.add("cycle", place, f"these depend on each other: {' -> '.join([*around, around[0]])}", on_key=True)
            return 0
        if number not in depths:
            depths[number] = 0  # a cycle is found once
            if len(above) <= _LONGEST_CHAIN:
                inner = [*_sources(names.whens.get(number)), *_sources(names.derivations.get(number))]
                below = [depth(source.axis, [*above, number]) for source in inner if source.axis is not None]
                depths[number] = 1 + max(below, default=0)
            if len(above) > _LONGEST_CHAIN or depths[number] > _LONGEST_CHAIN:
                message = f"more than {_LONGEST_CHAIN} parameters depend on each other in a row"
                found.add("too_deep", names.axes[number].place, message, on_key=True)
                depths[number] = 0
        return depths[number]

    for number in range(len(names.axes)):
        depth(number, [])


def _sources(condition: Condition | None) -> tuple[Source, ...]:
    return () if condition is None else condition.sources


class Scope:
    """One combination: the values of its axes, and by them whatever is derived from them.

    `digits` has the number of a value for each block, `block_of` the block of each axis (an axis without one has one
    value), and `run` is the entry of `runs`. An expression that has no value goes to `odd` where there is one; it then
    counts as not holding.
    """

    __slots__ = ("_block_of", "_digits", "_known", "_names", "_odd", "_run")

    def __init__(
        self,
        names: Names,
        block_of: Mapping[int, int],
        digits: Sequence[int],
        run: listed.Run,
        odd: problems.Problems | None = None,
    ) -> None:
        self._names = names
        self._block_of = block_of
        self._digits = digits
        self._run = run
        self._odd = odd
        self._known: dict[int, Value] = {}

    def parameter(self, number: int) -> Value:
        """The value that the point sets for an axis; MISSING where it is left out."""
        if number not in self._known:
            self._known[number] = self._work_out(number)
        return self._known[number]

    def holds(self, condition: Condition, *, where_missing: bool) -> bool:
        """Whether a condition holds; `where_missing` says what counts if a name in it has no value here."""
        values = [self._value(source) for source in condition.sources]
        if any(value is MISSING for value in values):
            return where_missing
        try:
            return condition.expression.holds(values)  # type: ignore[arg-type]  # none is MISSING
        except expressions.ExpressionError as error:
            self._report(condition, values, error)
            return False

    def shows(self, number: int) -> bool:
        """Whether the condition of an axis holds, if it has one: without, the parameter is left out."""
        when = self._names.whens.get(number)
        return when is None or self.holds(when, where_missing=False)

    def _work_out(self, number: int) -> Value:
        if not self.shows(number):
            return MISSING
        derivation = self._names.derivations.get(number)
        if derivation is None:
            values_there = self._names.axes[number].values
            block = self._block_of.get(number)
            return values_there[0 if block is None else self._digits[block]]
        values = [self._value(source) for source in derivation.sources]
        if any(value is MISSING for value in values):
            return MISSING
        try:
            return derivation.expression.value(values)  # type: ignore[arg-type]  # none is MISSING
        except expressions.ExpressionError as error:
            self._report(derivation, values, error)
            return MISSING

    def _value(self, source: Source) -> Value:
        """A name's value: what the point sets, else what the configuration has anyway."""
        if source.axis is not None:
            value = self.parameter(source.axis)
            if not isinstance(value, Missing):
                return _inside(value, source.rest)
        for name, rest in source.runs:
            if name in self._run.overrides:
                return _inside(self._run.overrides[name], rest)
        return source.base

    def _report(self, condition: Condition, values: Sequence[Value], error: expressions.ExpressionError) -> None:
        if self._odd is None or self._odd.reported("expression_fails", condition.place):
            return
        named = zip(condition.expression.names, values, strict=True)
        given = ", ".join(f"{name} = {problems.brief(value)}" for name, value in named)
        message = f"{problems.brief(condition.expression.text)}{given and ' with '}{given}: {error}"
        self._odd.add("expression_fails", condition.place, message)


def _inside(value: JSON, rest: paths.Path) -> Value:
    return value if not rest else paths.get(value, rest) if paths.has(value, rest) else MISSING
