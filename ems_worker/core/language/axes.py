"""`parameter_space`: which paths of the base configuration vary, and over which values."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import axis_values, expressions, paths, problems, ranges, samples, type_warnings

JSON = canonical.JSON

# Words of expressions are no names.
NAME: Final = re.compile(r"(?!(?:and|or|not|in|if|else|true|True|false|False|null|None)$)[A-Za-z_][A-Za-z0-9_]{0,63}")
NAME_FORM: Final = "a name: a letter or _, then letters, digits and _, at most 64, and no word of expressions"
# Longer paths than configurations are deep lead nowhere; longer texts only cost time.
MOST_STEPS: Final = 64
LONGEST_PATH: Final = 1000
_MOST_EXPRESSIONS: Final = 500

_KINDS: Final = ("values", "range", "logrange", "dist", "value", "expr")
_OF_DISTRIBUTIONS: Final = ("low", "high", "mean", "std")
KEYS: Final = (*_KINDS, "as", "when", *_OF_DISTRIBUTIONS)


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter. `place` is where the plan says it.

    Of `values` a grid axis has one a point, a constant has one in all, a sampled one (with a `distribution`) has none
    until its design is known, and a derived one (with an `expression`) none ever. `values_place` is where the plan
    says them. It is left out of the points at which `when` does not hold. A `broken` one was reported, and is there
    only so that its name is known; one that leads nowhere has no path.
    """

    path: paths.Path
    name: str
    place: problems.Place
    values: Sequence[JSON] = ()
    values_place: problems.Place = ()
    constant: bool = False
    distribution: samples.Distribution | None = None
    expression: expressions.Expression | None = None
    when: expressions.Expression | None = None
    broken: bool = False

    @property
    def dotted(self) -> str:
        """The path as people write it."""
        return problems.dotted(self.path)


class Reader:
    """Reads `parameter_space` against a base configuration; what is wrong goes to `found`, what is odd to `odd`."""

    def __init__(
        self, base: dict[str, JSON], allow_new: bool, found: problems.Problems, odd: problems.Problems
    ) -> None:
        self._base = base
        self._allow_new = allow_new
        self._found = found
        self._odd = odd
        self.axes: list[Axis] = []
        self._expressions = 0

    def read(self, data: Mapping[str, object], place: problems.Place, above: tuple[str, ...] = ()) -> None:
        """Adds the axes of this mapping, nested ones too, to `axes`."""
        for key, spec in data.items():
            parts = (*above, *paths.split(key))
            here = (*place, key)
            if above and key in KEYS and paths.resolve(self._base, parts) is None:
                self._refuse_word(key, above, here)
                self._keep_names(data if key == "as" else spec, here)
                continue
            path = find(self._base, parts, self._allow_new, self._found, here)
            if path is None:
                self._keep_names(spec, here)
                continue
            there = paths.get(self._base, path)
            if isinstance(spec, Mapping) and isinstance(there, dict) and not _is_axis(spec, there):
                self.read(spec, here, parts)
            else:
                self._axis(spec, path, ".".join(parts), there, here)

    def _refuse_word(self, key: str, above: tuple[str, ...], place: problems.Place) -> None:
        """A word of axes is no new path: it would get into every run's configuration by a slip."""
        within = ".".join(above)
        message = f"{within!r} has no {key!r}, and an axis has no other keys than {', '.join(KEYS)}"
        dotted = f"; a new path of this name is written dotted: {within}.{key}" if self._allow_new else ""
        self._found.add("unknown_path", place, message + dotted, on_key=True)

    def _keep_names(self, spec: object, place: problems.Place) -> None:
        """Names of axes that lead nowhere: what goes by them is not wrong too."""
        if isinstance(spec, Mapping):
            named = spec.get("as")
            if isinstance(named, str):
                self.axes.append(Axis((), named, place, broken=True))
            for key, inner in spec.items():
                self._keep_names(inner, (*place, key))

    def _axis(self, spec: object, path: paths.Path, dotted: str, there: JSON, place: problems.Place) -> None:
        axis: Axis | None = None
        if isinstance(spec, list):
            values = axis_values.listed(spec, place, self._found)
            if isinstance(there, list) and not any(isinstance(value, list) for value in spec):
                message = "these are single values, one a point, though the base configuration has a list here"
                self._odd.add("list_of_values", place, f"{message}; for one constant list write {{value: [...]}}")
            axis = Axis(path, dotted, place, values, place) if values is not None else None
        elif isinstance(spec, Mapping):
            axis = self._spec(spec, Axis(path, dotted, place))
        else:
            message = "expected an axis: a list of values, or a mapping such as {values}, {range} or {value}"
            hint = f"; for a constant write {{value: {problems.brief(spec)}}}"
            self._found.add("not_an_axis", place, message + hint)
        if axis is None:
            named = spec.get("as") if isinstance(spec, Mapping) else None
            axis = Axis(path, named if isinstance(named, str) else dotted, place, broken=True)
        else:
            values = _written(spec)
            at = partial(_value_place, spec, place)
            for index, value in enumerate(values if dict in set(map(type, values)) else ()):
                if isinstance(value, dict):
                    check_inside(self._base, there, value, path, self._allow_new, self._found, at(index))
            type_warnings.judge(there, values, at, self._odd)
            example, shown = _example(axis)
            type_warnings.judge(there, example, type_warnings.at(shown), self._odd, listed=False)
        self.axes.append(axis)

    def _spec(self, spec: Mapping[str, object], axis: Axis) -> Axis | None:
        """The axis that a mapping describes, None if it says none that could be checked further."""
        found, place = self._found, axis.place
        found.keys(spec, place, KEYS)
        if "as" in spec:
            name = found.text(spec["as"], (*place, "as"), NAME, NAME_FORM)
            axis = dataclasses.replace(axis, name=name or axis.name)
        if "when" in spec:
            axis = dataclasses.replace(axis, when=self._expression(spec["when"], (*place, "when")))
        kinds = [key for key in _KINDS if key in spec]
        if "dist" in kinds:
            kinds = [key for key in kinds if key != "values"]  # they are the distribution's own
        if not kinds and not {*spec} <= {*KEYS}:
            return None  # the unknown key was meant to say the values
        if len(kinds) != 1:
            which = f"has {' and '.join(kinds)}" if kinds else "says no values"
            message = f"an axis has exactly one of {', '.join(_KINDS)}; this one {which}"
            found.add("not_an_axis", place, message, on_key=True)
            return None
        kind, given, here = kinds[0], spec[kinds[0]], (*place, kinds[0])
        if kind != "dist":
            for key in _OF_DISTRIBUTIONS:
                if key in spec:
                    found.add("unknown_key", (*place, key), f"{key!r} is for axes with 'dist'", on_key=True)
        if kind == "dist":
            distribution = axis_values.distribution(spec, place, found, self._odd)
            return None if distribution is None else dataclasses.replace(axis, distribution=distribution)
        if kind == "expr":
            expression = self._expression(given, here)
            return None if expression is None else dataclasses.replace(axis, expression=expression)
        if kind == "value":
            return dataclasses.replace(axis, values=[cast("JSON", given)], constant=True)
        values: Sequence[JSON] | None
        if kind == "values":
            values = axis_values.listed(given, here, found)
        elif kind == "range":
            values = axis_values.linear(given, here, found)
        else:
            values = axis_values.logarithmic(given, here, found)
        return None if values is None else dataclasses.replace(axis, values=values, values_place=here)

    def _expression(self, given: object, place: problems.Place) -> expressions.Expression | None:
        self._expressions += 1
        if self._expressions > _MOST_EXPRESSIONS:
            message = f"conditions and derived values end here: {_MOST_EXPRESSIONS} are allowed"
            self._found.add("out_of_range", place, message)
            return None
        return axis_values.expression(given, place, self._found)


def find(
    base: dict[str, JSON],
    parts: tuple[str, ...],
    allow_new: bool,
    found: problems.Problems,
    place: problems.Place,
) -> paths.Path | None:
    """The path in the base configuration, else None and an `unknown_path` problem with the nearest right path."""
    if len(parts) > MOST_STEPS or sum(map(len, parts)) > LONGEST_PATH:
        found.add("bad_path", place, f"a path has at most {MOST_STEPS} parts and {LONGEST_PATH} letters", on_key=True)
        return None
    if not all(parts):
        found.add("bad_path", place, "a part of this dotted path is empty", on_key=True)
        return None
    path = paths.resolve(base, parts, allow_new=allow_new)
    if path is None:
        if found.full:
            found.add("unknown_path", place, "")
        else:
            wrong = paths.unknown(base, parts, found.budget)
            may_be_new = not wrong.misspelt and paths.resolve(base, parts, allow_new=True) is not None
            hint = " (allow_new_paths: true permits new paths)" if may_be_new else ""
            found.add("unknown_path", place, wrong.message + hint, wrong.suggestion, on_key=True)
    return path


def check_inside(
    base: dict[str, JSON],
    there: JSON,
    value: Mapping[str, JSON],
    path: paths.Path,
    allow_new: bool,
    found: problems.Problems,
    place: problems.Place,
) -> None:
    """Checks that what a mapping overrides exists where the base configuration has a mapping too."""
    if not isinstance(there, dict):
        return
    for leaf, _ in paths.leaves(there, value):
        steps = tuple(map(str, leaf))
        if paths.resolve(there, steps, allow_new=allow_new) is None:
            find(base, (*map(str, path), *steps), allow_new, found, (*place, *leaf))


def _is_axis(spec: Mapping[str, object], there: dict[str, JSON]) -> bool:
    """Whether a mapping says values for the mapping that is there, rather than paths into it."""
    return bool(spec) and {*spec} <= {*KEYS} and there.keys().isdisjoint(spec)


def _written(spec: object) -> Sequence[JSON]:
    """The values that an axis lists, or its constant."""
    given = spec.get("values", [spec["value"]] if "value" in spec else ()) if isinstance(spec, Mapping) else spec
    return given if isinstance(given, list) else ()


def _value_place(spec: object, place: problems.Place, index: int) -> problems.Place:
    if isinstance(spec, Mapping):
        return (*place, "values", index) if "values" in spec else (*place, "value")
    return (*place, index)


def _example(axis: Axis) -> tuple[Sequence[JSON], problems.Place]:
    """One of the values that an axis gives without listing them, all of which are of one kind; and what gives it."""
    if isinstance(axis.values, ranges.Spaced):
        return [axis.values[axis.values.size // 2]], axis.values_place
    if axis.distribution is None or isinstance(axis.distribution, samples.Choice):
        return (), axis.place
    return [axis.distribution(0.5)], (*axis.place, "dist")
