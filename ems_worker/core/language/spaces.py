"""The spaces of a plan: what varies, by which design and under which constraints. Points are the union of all spaces.

Most plans are a single space. Otherwise `parameter_space` is a list, and each entry has the plan's own words. What is
beside the list (`variables`, `constraints`, a `design`) is for all spaces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import design, elements, expressions, foreign_plan, paths, quotes, ranges
from ems_worker.core.language.axes import Axis, AxisParser
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.design import Design, Given
from ems_worker.core.language.expressions import Expression
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

KEYS: Final = ("parameter_space", "variables", "design", "constraints")
MAX_SPACES: Final = 100
# What spaces share is read for each of them: the values of common variables, groups of a common zip, the paths of all
# spaces and those of `runs`, and the expressions.
_MAX_SHARED: Final = 100_000
_MAX_EXPRESSIONS: Final = 1_000
_SPACE: Final = KEYS[0]
_OF_PLAN: Final = dict.fromkeys(
    ("runs", "num_replicates_per_run", "replicates", "seeds", "inject", "metrics_to_track", "metrics", "limits"),
    "this is about all spaces: write it beside parameter_space",
)
_AXIS: Final = "the axes of a space are in its own parameter_space: write {{parameter_space: {{{}: ...}}}}"
_FORM: Final = "each entry is a space: {parameter_space: {path: [value, ...]}}"


@dataclass(frozen=True, slots=True)
class Draft:
    """The axes of a space, those of common variables included, and what the plan says about it at a location.

    Of a plan that is a single space, `given` is the whole plan, and the location is empty.
    """

    axes: list[Axis]
    given: Mapping[str, object]
    location: Location

    @property
    def own_design(self) -> bool:
        """Whether this is one of several spaces and has a design of its own."""
        return bool(self.location) and "design" in self.given


@dataclass(frozen=True, slots=True)
class Space:
    """One of the spaces. Its axes have the values that points take."""

    axes: list[Axis]
    design: Design
    constraints: list[tuple[Expression, Location]]


def parse(data: Mapping[str, object], config: ConfigPaths) -> list[Draft]:
    """The spaces of a plan, with their axes."""
    problems = config.problems
    parser = AxisParser(config)
    _add_variables(data, (), parser, problems)
    common = parser.taken()
    drafts = []
    for given, location in _entries(data, config):
        if location:
            _add_variables(given, location, parser, problems)
        if _SPACE in given:
            here = (*location, _SPACE)
            parser.parse(problems.mapping(given[_SPACE], here) or {}, here)
        drafts.append(Draft([*common, *parser.taken()], given, location))
    return drafts


def _add_variables(given: Mapping[str, object], location: Location, parser: AxisParser, problems: Problems) -> None:
    if "variables" in given:
        here = (*location, "variables")
        parser.parse_variables(problems.mapping(given["variables"], here) or {}, here)


def _entries(data: Mapping[str, object], config: ConfigPaths) -> list[tuple[Mapping[str, object], Location]]:
    """What the plan says about each space, with its location."""
    problems, given = config.problems, data.get(_SPACE)
    if not isinstance(given, list):
        return [(data, ())]
    if not given:
        problems.add("empty", (_SPACE,), "the list is empty: remove the key, or list at least one space")
    if len(given) > MAX_SPACES:
        problems.add("out_of_range", (_SPACE,), f"{len(given)} spaces; at most {MAX_SPACES} are allowed")
        return []
    entries: list[tuple[Mapping[str, object], Location]] = []
    for index, item in enumerate(given):
        here = (_SPACE, index)
        entry = problems.mapping(item, here, _FORM)
        if entry is not None:
            axes = {key: _AXIS.format(quotes.cut(key, 60)) for key in entry if _is_path(key, config)}
            problems.keys(entry, here, (*KEYS, "parameters"), {**foreign_plan.KEYS, **axes, **_OF_PLAN})
            entries.append((entry, here))
    return entries


def _is_path(key: str, config: ConfigPaths) -> bool:
    return "." in key or paths.resolve(config.base, paths.split(key)) is not None


def is_too_much(drafts: Sequence[Draft], data: Mapping[str, object], listed: int, problems: Problems) -> bool:
    """Reports a union of spaces that would take too long. `listed` is the number of parameters of `runs`."""
    if len(drafts) < 2:
        return False
    named = len({axis.dotted for draft in drafts for axis in draft.axes}) + listed
    values = sum(_listed_values(axis) for axis in drafts[0].axes if axis.location[:1] == ("variables",))
    too_much = len(drafts) * (named + values + _zipped(data.get("design"))) > _MAX_SHARED
    if too_much:
        message = (
            f"{len(drafts)} spaces with {named:,} parameters and {values:,} values of common variables are too many"
        )
        remedy = "write fewer spaces, or what they share in those that need it"
        problems.add("out_of_range", (_SPACE,), f"{message}: {remedy}", on_key=True)
    return too_much


def _zipped(spec: object) -> int:
    """The length of a common zip."""
    groups = spec.get("zip") if isinstance(spec, Mapping) else None
    return sum(len(group) if isinstance(group, list) else 1 for group in groups) if isinstance(groups, list) else 0


def _listed_values(axis: Axis) -> int:
    """How many values have to be looked at to find equal ones."""
    values = axis.values if isinstance(axis.source, Varied) else ()
    return 1 if isinstance(values, ranges.Spaced) and not values.dense else ranges.size(values)


def designed(
    drafts: Sequence[Draft], data: Mapping[str, object], root_seed: int, problems: Problems
) -> tuple[Space, ...]:
    """The spaces with their designs and constraints, and with their samples drawn."""
    shared = [draft for draft in drafts if not draft.own_design]
    if drafts and not shared:
        _check_unused(data.get("design"), problems)
    sampled = any(isinstance(axis.source, Sampled) for draft in shared for axis in draft.axes)
    common = design.parse_constraints(data["constraints"], ("constraints",), problems) if "constraints" in data else []
    spaces = []
    for draft in drafts:
        constraints = common
        if draft.location and "constraints" in draft.given:
            here = (*draft.location, "constraints")
            constraints = [*common, *design.parse_constraints(draft.given["constraints"], here, problems)]
        given = Given(data.get("design", {}), root_seed, shared=len(drafts) > 1 and sampled, spaces=len(drafts))
        if draft.own_design:
            given = Given(draft.given["design"], root_seed, (*draft.location, "design"), spaces=len(drafts))
        chosen, axes = design.parse(given, draft.axes, problems)
        spaces.append(Space(axes, chosen, constraints))
    total = sum(_expressions(space.axes) + len(space.constraints) for space in spaces)
    if len(spaces) > 1 and total > _MAX_EXPRESSIONS:
        message = f"all spaces together have {total:,} expressions, those that they share counted for each"
        problems.add("out_of_range", (_SPACE,), f"{message}; at most {_MAX_EXPRESSIONS:,} are allowed", on_key=True)
        return ()
    return tuple(spaces)


def _expressions(axes: Sequence[Axis]) -> int:
    return sum((axis.when is not None) + isinstance(axis.source, Derived) for axis in axes)


def _check_unused(data: object, problems: Problems) -> None:
    """Reports a design for all spaces that no space has, because each has its own."""
    for key in data if isinstance(data, Mapping) else ():
        if key != "max_jobs":
            message = f"every space has a design of its own, so that this {key!r} is for none of them: remove it"
            problems.add("contradiction", ("design", key), message, on_key=True)


def filled(spaces: Sequence[Space], base: dict[str, JSON]) -> list[list[Axis]]:
    """The axes of each space, and after them those that only other spaces name.

    These have the base configuration's value. If there is none, as for a variable, all points leave them out.
    """
    named: dict[str, Axis] = {}
    for space in spaces:
        for axis in space.axes:
            named.setdefault(axis.dotted, axis)
    fixed = {dotted: _fixed(axis, base) for dotted, axis in named.items()} if len(spaces) > 1 else {}
    result = []
    for space in spaces:
        own = {axis.dotted for axis in space.axes}
        result.append([*space.axes, *(axis for dotted, axis in fixed.items() if dotted not in own)])
    return result


def _fixed(axis: Axis, base: dict[str, JSON]) -> Axis:
    """An axis in the spaces that don't name it."""
    here = axis.path and elements.alike(base, axis.path)
    source = Constant([paths.get(base, axis.path) if here else None], axis.location)
    never = None if here else expressions.read("false")
    return Axis(axis.path, axis.name, axis.location, source, never, axis.replace, dotted=axis.dotted)
