"""The names in a plan's expressions, resolved: what each refers to, and what depends on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import decimals, elements, expressions, paths, quotes, weights
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Derived
from ems_worker.core.language.expressions import Expression, ExpressionError
from ems_worker.core.language.listed import ListedPointParser
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location
from ems_worker.core.points import operands

JSON = canonical.JSON


class Missing:
    """The value of a parameter that is left out and that the base configuration doesn't have either."""


MISSING: Final = Missing()
# The work of looking for names with hyphens in all expressions of a plan: each hyphen may be the end of several names.
_MAX_LOOKUPS: Final = 300_000
# Derived values are computed by recursion.
_MAX_CHAIN: Final = 50
Value = JSON | Missing
# A value as expressions calculate with it.
Operand = decimals.Operand | Missing


@dataclass(frozen=True, slots=True)
class Source:
    """Where the value of a name comes from: an axis, else an entry of `runs`, else the base configuration.

    `listed` has the parameters of `runs` that can override the value. `rest`, and the path beside each of these
    parameters, lead into a value that is a list or mapping. Mappings of the axis merge into `below`; it is MISSING if
    they don't merge. `weight` is the largest number of values inside.
    """

    axis: int | None
    rest: paths.Path
    listed: tuple[tuple[str, paths.Path], ...]
    base: Operand
    below: Operand
    weight: int


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression at its location in the plan, with the sources of its names."""

    expression: Expression
    sources: tuple[Source, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class Names:
    """The parameters of a plan, and what their expressions depend on.

    `values`, `operands` and `bases` have an entry per axis: its values, these as expressions calculate with them, and
    the base configuration's value at its path. `whens` and `derivations` are by the number of the axis.
    """

    axes: tuple[Axis, ...]
    values: tuple[Sequence[JSON], ...]
    operands: tuple[Sequence[decimals.Operand], ...]
    bases: tuple[Value, ...]
    whens: Mapping[int, Condition]
    derivations: Mapping[int, Condition]
    constraints: tuple[Condition, ...]


class _Resolver:
    """Finds the source of each name in expressions. Reports unknown names and values that are too long."""

    def __init__(
        self,
        space: Sequence[Axis],
        listed: ListedPointParser,
        base: dict[str, JSON],
        problems: Problems,
        *,
        spaces: int,
    ) -> None:
        self._space = space
        self._listed = listed
        self._base = base
        self._problems = problems
        self._by_name = {axis.dotted: number for number, axis in enumerate(space)}
        self._by_name |= {axis.name: number for number, axis in enumerate(space)}
        self._axis_at = {axis.path: number for number, axis in enumerate(space) if axis.path}
        self._listed_at = {path: name for name, path in listed.parameters.items()}
        # The paths among them that stand for several.
        self._starred = [path for path in (*self._axis_at, *self._listed_at) if paths.EACH in path]
        self._weights = operands.Weights(space, listed.points)
        self._known: dict[str, Source | None] = {}
        self._too_long: set[str] = set()
        self._lookups = _MAX_LOOKUPS // spaces
        # Names of two values of the base configuration.
        self._two: set[str] = set()

    def condition(self, expression: Expression, location: Location) -> Condition | None:
        if expressions.hyphenated(expression.text):
            try:
                expression = expressions.read(expression.text, known=self._is_known)
            except ExpressionError as error:
                message = f"{quotes.brief(expression.text)}: {error}"
                self._problems.add("bad_expression", location, message, error.suggestion)
                return None
        sources = [self._source(name, expression, location) for name in expression.names]
        known = tuple(source for source in sources if source is not None)
        return Condition(expression, known, location) if len(known) == len(sources) else None

    def _is_known(self, name: str) -> bool:
        self._lookups -= (1 + name.count(".")) ** 2 + len(name) // 100
        if self._lookups < 0:
            raise ExpressionError("too many hyphens between names: put spaces around those that are minus signs")
        if name in self._by_name or name in self._listed.parameters:
            return True
        return paths.resolve(self._base, paths.split(name)) is not None

    def _source(self, name: str, expression: Expression, location: Location) -> Source | None:
        problems = self._problems
        if name not in self._known:
            self._known[name] = self._find(name)
        if name in self._too_long:
            limit = f"a text has at most {weights.MAX:,} characters, a list or mapping as many values inside"
            problems.add("out_of_range", location, f"{quotes.name(name)} is too long for an expression: {limit}")
        elif self._known[name] is None and name in self._two:
            message = f"{quotes.name(name)} is two values of the base configuration, because keys have dots"
            problems.add("ambiguous_path", location, f"{message}: make the one that is meant an axis with 'as'")
        elif self._known[name] is None:
            self._report_unknown(name, expression, location)
        return self._known[name]

    def _report_unknown(self, name: str, expression: Expression, location: Location) -> None:
        if self._problems.full:
            self._problems.add("unknown_name", location, "")
            return
        span = expressions.hyphenated(expression.text, name)
        suggestion = None if span is None else self._nearest(span)
        if span is None or suggestion is None or "-" not in suggestion:
            suggestion = self._nearest(name)
            remedy = expressions.remedy(expression, name)
        elif self._problems.has("unknown_name", location):
            return  # another part of the same name
        else:
            name, remedy = span, ""
        message = f"{quotes.name(name)} is neither a parameter nor in the base configuration{remedy}"
        self._problems.add("unknown_name", location, message, suggestion)

    def _nearest(self, name: str) -> str | None:
        """The most similar parameter or path."""
        budget = self._problems.budget
        known = chain(self._by_name, self._listed.parameters)
        near = [budget.nearest(name, known), paths.nearest(self._base, paths.split(name), budget)]
        return max((each for each in near if each), key=lambda each: budget.similarity(name, each), default=None)

    def _find(self, name: str) -> Source | None:
        if name not in self._by_name and len(paths.resolutions(self._base, paths.split(name))) > 1:
            self._two.add(name)
            return None
        path = paths.resolve(self._base, paths.split(name))
        axis = self._by_name.get(name)
        rest: paths.Path = ()
        listed: list[tuple[str, paths.Path]] = [(name, ())] if name in self._listed.parameters else []
        for length in range(1, len(path) + 1) if path is not None else ():
            assert path is not None
            tail = path[length:]
            for head in (path[:length], *(one for one in self._starred if elements.covers(one, path[:length]))):
                if axis is None and head in self._axis_at:
                    axis, rest = self._axis_at[head], tail
                if self._listed_at.get(head, name) != name:
                    listed.append((self._listed_at[head], tail))
        if axis is not None and name in self._by_name:
            path = self._space[axis].path
        elif path is None and not listed:
            return None
        existing = _existing(self._base, path)
        of_axis = 0 if axis is None else self._weights.of_axis(axis, rest)
        of_listed = (self._weights.of_listed(parameter, tail) for parameter, tail in listed)
        weight = operands.heaviest((weights.of(existing), of_axis, *of_listed))
        if weight is None:
            self._too_long.add(name)
            return None
        operand = existing if isinstance(existing, Missing) else decimals.exact(existing)
        if axis is None or self._space[axis].replace:
            return Source(axis, rest, tuple(listed), operand, MISSING, weight)
        return Source(axis, rest, tuple(listed), operand, operand, 2 * weight)


def resolve(
    space: Sequence[Axis],
    constraints: Sequence[tuple[Expression, Location]],
    *,
    listed: ListedPointParser,
    base: dict[str, JSON],
    problems: Problems,
    spaces: int = 1,
) -> Names:
    """Resolves the names in all expressions of a space, one of so many.

    Reports unknown names, values that are too long, and cycles.
    """
    resolver = _Resolver(space, listed, base, problems, spaces=spaces)
    whens: dict[int, Condition] = {}
    derivations: dict[int, Condition] = {}
    for number, axis in enumerate(space):
        derived = axis.source.expression if isinstance(axis.source, Derived) else None
        for key, expression, into in (("when", axis.when, whens), ("expr", derived, derivations)):
            condition = resolver.condition(expression, (*axis.location, key)) if expression is not None else None
            if condition is not None:
                into[number] = condition
    conditions = [resolver.condition(expression, location) for expression, location in constraints]
    names = Names(
        axes=tuple(space),
        values=tuple(axis.values for axis in space),
        operands=tuple(operands.Operands(axis.values) for axis in space),
        bases=tuple(_existing(base, axis.path) for axis in space),
        whens=whens,
        derivations=derivations,
        constraints=tuple(condition for condition in conditions if condition is not None),
    )
    _refuse_cycles(names, problems)
    return names


def _existing(base: dict[str, JSON], path: paths.Path | None) -> Value:
    """The base configuration's value at a path; MISSING if it has none, as for variables."""
    return paths.get(base, path) if path and elements.alike(base, path) else MISSING


def _refuse_cycles(names: Names, problems: Problems) -> None:
    """Reports each cycle once, with the names of its axes, and chains that are too long to evaluate."""
    depths: dict[int, int] = {}

    def depth(number: int, above: list[int]) -> int:
        if number in above:
            cycle = [names.axes[each].name for each in above[above.index(number) :]]
            message = f"these depend on each other: {' -> '.join([*cycle, cycle[0]])}"
            problems.add("cycle", names.axes[number].location, message, on_key=True)
            return 0
        if number not in depths:
            depths[number] = 0  # so that a cycle is reported once
            if len(above) <= _MAX_CHAIN:
                inner = [*_sources(names.whens.get(number)), *_sources(names.derivations.get(number))]
                below = [depth(source.axis, [*above, number]) for source in inner if source.axis is not None]
                depths[number] = 1 + max(below, default=0)
            if len(above) > _MAX_CHAIN or depths[number] > _MAX_CHAIN:
                message = f"more than {_MAX_CHAIN} parameters depend on each other in a chain"
                problems.add("too_deep", names.axes[number].location, message, on_key=True)
                depths[number] = 0
        return depths[number]

    for number in range(len(names.axes)):
        depth(number, [])


def _sources(condition: Condition | None) -> tuple[Source, ...]:
    return () if condition is None else condition.sources
