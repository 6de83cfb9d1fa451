"""`parameter_space` and `variables`: what varies, and its values."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import (
    axis_kinds,
    checks,
    distributions,
    foreign,
    foreign_axes,
    paths,
    quotes,
    replacing,
    type_warnings,
    where,
)
from ems_worker.core.language.axis_values import AxisValues, Derived, Varied
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.expressions import Expression
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

# Keywords of expressions can't be names.
NAME: Final = re.compile(r"(?!(?:and|or|not|in|if|else|true|True|false|False|null|None)$)[A-Za-z_][A-Za-z0-9_]{0,63}")
NAME_FORM: Final = "a name: a letter or _, then letters, digits and _, at most 64, and not a keyword of expressions"
_MAX_EXPRESSIONS: Final = 500
# The key with which W&B nests paths.
_PARAMETERS: Final = "parameters"

_KIND_KEYS: Final = tuple(kind.key for kind in axis_kinds.KINDS)
# Keys that only axes of one kind have, with that kind.
_KIND_OF: Final = {key: kind for kind in axis_kinds.KINDS for key in kind.more_keys if key not in _KIND_KEYS}
_DISTRIBUTIONS: Final = {form.name: tuple(form.parameters) for form in distributions.FORMS}
# Keys that every axis of a path may have.
COMMON_KEYS: Final = ("as", "when", "replace", "unit", "label")
# What a variable has in place of those that are about paths.
_OF_PATHS: Final = {
    "as": "the name of a variable is its key",
    "replace": "a variable is no part of the configuration, and replaces nothing there",
}
KEYS: Final = (*_KIND_KEYS, *COMMON_KEYS, *_KIND_OF)


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter, at its location in the plan.

    Points at which `when` is false leave the parameter out. `source` is None if the axis is invalid: that was reported,
    and only its name is kept, so that expressions which use it are not reported as well. An axis whose path doesn't
    exist has an empty path, and so has a variable. With `replace` a mapping replaces one of the base configuration in
    place of merging into it. `unit` and `label` are for tables and pictures.
    """

    path: paths.Path
    name: str
    location: Location
    source: AxisValues | None = None
    when: Expression | None = None
    replace: bool = False
    unit: str | None = None
    label: str | None = None
    # The path as plans write it; the name of a variable.
    dotted: str = ""

    @property
    def is_variable(self) -> bool:
        """Whether this is no path of the configuration."""
        return not self.path and bool(self.dotted)

    @property
    def values(self) -> Sequence[JSON]:
        """The values that points choose from; none for derived values, and for samples that are not drawn yet."""
        return () if self.source is None else self.source.values


class AxisParser:
    """Parses `variables` and `parameter_space` into `axes`."""

    def __init__(self, config: ConfigPaths) -> None:
        self._config = config
        self._problems = config.problems
        self.axes: list[Axis] = []
        self._expressions = 0

    def parse(self, data: Mapping[str, object], location: Location, above: paths.Path = ()) -> None:
        """Adds the axes of this mapping, and of the mappings in it, to `axes`. `above` is the path to the mapping."""
        for key, spec in data.items():
            parts = paths.split(key)
            here = (*location, key)
            is_word = key == _PARAMETERS or (above and key in KEYS)
            if is_word and paths.resolve(paths.get(self._config.base, above), parts) is None:
                self._refuse_key(key, quotes.dotted(above), here)
                self._keep_names(data if key == "as" else spec, here)
                continue
            path = self._config.find(parts, here, above)
            if path is None:
                self._keep_names(spec, here)
                continue
            existing = paths.get(self._config.base, path)
            if isinstance(spec, Mapping) and _is_nested(spec, existing):
                self.parse(spec, here, path)
            else:
                written = paths.written(self._config.base, path)
                self._add(spec, Axis(path, written, here, dotted=written))

    def parse_variables(self, data: Mapping[str, object], location: Location) -> None:
        """Adds the variables of this mapping to `axes`."""
        for name, spec in data.items():
            here = (*location, name)
            if not self._is_variable_name(name, here):
                self.axes += [] if "." in name else [Axis((), name, here)]
                continue
            for key in _OF_PATHS.keys() & (spec.keys() if isinstance(spec, Mapping) else ()):
                self._problems.unknown_key((*here, key), f"a variable has no {key!r}", _OF_PATHS[key])
            self._add(spec, Axis((), name, here, dotted=name))

    def taken(self) -> list[Axis]:
        """The axes so far; those that are parsed next are of another space."""
        axes, self.axes = self.axes, []
        return axes

    def _is_variable_name(self, name: str, location: Location) -> bool:
        problems = self._problems
        if name in where.RESERVED:
            message = f"{name!r} has a meaning of its own in the conditions that choose jobs; choose another name"
            problems.add("reserved_name", location, message, f"{name}_value", on_key=True)
        elif "." in name:
            message = f"{quotes.name(name)} has dots, and a variable is no path of the configuration"
            remedy = f"write {quotes.name(name.replace('.', '_'))}, or vary the path in parameter_space"
            problems.add("bad_format", location, f"{message}: {remedy}", on_key=True)
        elif not NAME.fullmatch(name):
            problems.add("bad_format", location, f"{quotes.brief(name)} is not {NAME_FORM}", on_key=True)
        else:
            return True
        return False

    def _refuse_key(self, key: str, parent: str, location: Location) -> None:
        """An axis key never names a new path: by mistake it would get into the configuration of every run."""
        if key == _PARAMETERS:
            message = "paths are nested as in the base configuration, without 'parameters' between them"
            self._problems.add("unknown_path", location, message, on_key=True)
            return
        message = f"{quotes.name(parent)} has no {key!r}, and the keys of an axis are only {', '.join(KEYS)}"
        dotted = (
            f"; write a new path of this name dotted: {quotes.cut(parent, 200)}.{key}" if self._config.allow_new else ""
        )
        self._problems.add("unknown_path", location, message + dotted, on_key=True)

    def _keep_names(self, spec: object, location: Location) -> None:
        """Keeps the names of axes whose paths don't exist, so that expressions with these names are not reported."""
        if isinstance(spec, Mapping):
            name = spec.get("as")
            if isinstance(name, str):
                self.axes.append(Axis((), name, location))
            for key, inner in spec.items():
                self._keep_names(inner, (*location, key))

    def _add(self, spec: object, axis: Axis) -> None:
        if isinstance(spec, list):
            axis = self._list(spec, axis)
        elif isinstance(spec, Mapping):
            axis = self._mapping(spec, axis)
        else:
            message = "expected an axis: a list of values, or a mapping such as {values}, {range} or {value}"
            hint = f"; for a constant write {{value: {quotes.brief(spec)}}}{foreign_axes.hint(spec)}"
            self._problems.add("not_an_axis", axis.location, message + hint)
        if axis.source is not None and axis.path:
            self._check_values(axis, axis.source)
        self.axes.append(axis)

    def _list(self, spec: list[JSON], axis: Axis) -> Axis:
        values = checks.listed(spec, axis.location, self._problems)
        return axis if values is None else dataclasses.replace(axis, source=Varied(values, axis.location))

    def _mapping(self, spec: Mapping[str, object], axis: Axis) -> Axis:
        if (ours := foreign_axes.rewritten(spec, COMMON_KEYS, _DISTRIBUTIONS)) is not None:
            self._problems.add("not_an_axis", axis.location, f"write this as {ours}")
            return dataclasses.replace(axis, name=named) if isinstance(named := spec.get("as"), str) else axis
        self._problems.keys(spec, axis.location, KEYS, foreign.DISTRIBUTION if "dist" in spec else foreign.AXIS)
        given = spec.get("as")
        name = self._problems.text(given, (*axis.location, "as"), NAME, NAME_FORM) if "as" in spec else None
        axis = dataclasses.replace(
            axis,
            replace="replace" in spec and bool(self._problems.boolean(spec["replace"], (*axis.location, "replace"))),
            unit=checks.shown("unit", spec, axis.location, self._problems),
            label=checks.shown("label", spec, axis.location, self._problems),
        )
        if name in where.RESERVED:
            message = f"{name!r} has a meaning of its own in the conditions that choose jobs; choose another name"
            self._problems.add("reserved_name", (*axis.location, "as"), message, _another(name, axis.path))
        when = self._expression(spec["when"], (*axis.location, "when")) if "when" in spec else None
        source = self._source(spec, axis.location)
        if source is None:
            return dataclasses.replace(axis, name=given) if isinstance(given, str) else axis
        return dataclasses.replace(axis, name=name or axis.name, source=source, when=when)

    def _source(self, spec: Mapping[str, object], location: Location) -> AxisValues | None:
        problems = self._problems
        kinds = _kinds(spec)
        if not kinds and not {*spec} <= {*KEYS}:
            return None  # the unknown key, which is reported, was meant to give the values
        if len(kinds) != 1:
            found = f"has {' and '.join(kind.key for kind in kinds)}" if kinds else "has none of them"
            message = f"an axis has exactly one of {', '.join(_KIND_KEYS)}; this one {found}"
            problems.add("not_an_axis", location, message, on_key=True)
            return None
        [kind] = kinds
        for key, owner in _KIND_OF.items():
            if key in spec and owner is not kind:
                remedy = foreign.AXIS.get(key)
                problems.unknown_key((*location, key), f"{key!r} is for axes with {owner.key!r}", remedy)
        value, at = spec[kind.key], (*location, kind.key)
        given = axis_kinds.Given(
            axis=spec,
            axis_location=location,
            value=value,
            location=at,
            problems=problems,
            read_expression=self._expression,
        )
        return kind.parse(given)

    def _check_values(self, axis: Axis, source: AxisValues) -> None:
        """Checks the values that the plan lists, or one value of those that it doesn't list, against the base."""
        examples = self._config.examples(axis.path)
        values, locate, listed = type_warnings.checked(source)
        for existing in () if axis.replace else examples:
            if isinstance(source, Derived):
                fits = replacing.check_derived(existing, (*axis.location, "expr"), self._problems)
            else:
                fits = replacing.check_axis(existing, values, locate, self._problems)
            if not fits:
                return
        if not axis.replace and listed and dict in set(map(type, values)):
            if paths.EACH in axis.path and dict in set(map(type, examples)):
                replacing.refuse_merging(axis.location, self._problems)
                return
            for index, value in enumerate(values):
                if isinstance(value, dict):
                    self._config.check_mapping(axis.path, value, locate(index))
        any(type_warnings.judge(existing, values, locate, self._problems, listed=listed) for existing in examples)

    def _expression(self, data: object, location: Location) -> Expression | None:
        self._expressions += 1
        if self._expressions > _MAX_EXPRESSIONS:
            message = f"a plan has at most {_MAX_EXPRESSIONS} conditions and derived values"
            self._problems.add("out_of_range", location, message)
            return None
        return checks.expression(data, location, self._problems)


def _another(name: str, path: paths.Path) -> str:
    """A name like this one that an axis may have."""
    longer = "_".join(map(str, path[-2:]))
    return longer if len(path) > 1 and NAME.fullmatch(longer) else f"{name}_value"


def _kinds(spec: Mapping[str, object]) -> list[axis_kinds.AxisKind]:
    """The kinds that the keys of an axis name, without those whose key belongs to another kind here."""
    kinds = [kind for kind in axis_kinds.KINDS if kind.key in spec]
    more_keys = {key for kind in kinds for key in kind.more_keys}
    return [kind for kind in kinds if kind.key not in more_keys]


def _is_nested(spec: Mapping[str, object], existing: JSON) -> bool:
    """Whether a mapping has paths inside the existing mapping or list, rather than being an axis that varies it."""
    if isinstance(existing, list):
        return any(paths.is_index(first) or first == paths.EACH for first, *_ in map(paths.split, spec))
    if not isinstance(existing, dict):
        return False
    return not spec or not {*spec} <= {*KEYS} or not existing.keys().isdisjoint(spec)
