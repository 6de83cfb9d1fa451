"""`parameter_space`: which paths of the base configuration vary, and over which values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from ems_worker.core import canonical, paths, problems, ranges

JSON = canonical.JSON

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
NAME_FORM: Final = "a name: a letter or _, then letters, digits and _, at most 64"
# Longer paths than configurations are deep lead nowhere; longer texts only cost time.
MOST_STEPS: Final = 64
LONGEST_PATH: Final = 1000

_KINDS: Final = ("values", "range", "value")
_NOT_YET: Final = ("logrange", "dist", "expr", "when")
_KEYS: Final = (*_KINDS, "as", *_NOT_YET)


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter of the grid and its values; a constant has one value. `place` is where the plan says it."""

    path: paths.Path
    name: str
    values: Sequence[JSON]
    place: problems.Place


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

    def read(self, data: Mapping[str, object], place: problems.Place, above: tuple[str, ...] = ()) -> None:
        """Adds the axes of this mapping, nested ones too, to `axes`."""
        for key, spec in data.items():
            parts = (*above, *paths.split(key))
            here = (*place, key)
            path = find(self._base, parts, self._allow_new, self._found, here)
            if path is None:
                continue
            there = paths.get(self._base, path)
            if isinstance(spec, Mapping) and isinstance(there, dict):
                self.read(spec, here, parts)
            else:
                self._axis(spec, path, ".".join(parts), there, here)

    def _axis(self, spec: object, path: paths.Path, dotted: str, there: JSON, place: problems.Place) -> None:
        found = self._found
        name, values = dotted, None
        if isinstance(spec, list):
            values = self._values(spec, place)
            if isinstance(there, list) and not any(isinstance(value, list) for value in spec):
                message = "these are single values, one a point, though the base configuration has a list here"
                self._odd.add("list_of_values", place, f"{message}; for one constant list write {{value: [...]}}")
        elif isinstance(spec, Mapping):
            name, values = self._spec(spec, dotted, place)
        else:
            message = "expected an axis: a list of values, or a mapping such as {values}, {range} or {value}"
            found.add("not_an_axis", place, f"{message}; for a constant write {{value: {problems.brief(spec)}}}")
        if values is None:
            return
        for index, value in enumerate(values if isinstance(values, list | tuple) else ()):
            if isinstance(value, dict):
                check_inside(self._base, there, value, path, self._allow_new, found, _value_place(spec, place, index))
        self.axes.append(Axis(path, name, values, place))

    def _spec(
        self, spec: Mapping[str, object], dotted: str, place: problems.Place
    ) -> tuple[str, Sequence[JSON] | None]:
        found = self._found
        found.keys(spec, place, _KEYS)
        for key in _NOT_YET:
            if key in spec:
                found.add("not_supported_yet", (*place, key), f"{key!r} is not supported yet", on_key=True)
        name: str | None = dotted
        if "as" in spec:
            name = found.text(spec["as"], (*place, "as"), NAME, NAME_FORM)
        kinds = [key for key in _KINDS if key in spec]
        if len(kinds) != 1:
            if not any(key in spec for key in _NOT_YET):
                which = f"has {' and '.join(kinds)}" if kinds else "says no values"
                message = f"an axis has exactly one of {', '.join(_KINDS)}; this one {which}"
                found.add("not_an_axis", place, message, on_key=True)
            return name or dotted, None
        kind = kinds[0]
        given, here = spec[kind], (*place, kind)
        if kind == "value":
            return name or dotted, [cast("JSON", given)]
        if kind == "values":
            return name or dotted, self._values(given, here)
        return name or dotted, self._range(given, here)

    def _values(self, given: object, place: problems.Place) -> Sequence[JSON] | None:
        values = self._found.sequence(given, place)
        if values is None:
            return None
        if not values:
            self._found.add("empty", place, "an axis needs at least one value")
            return None
        kept: dict[bytes, JSON] = {}
        for index, value in enumerate(values):
            key = canonical.canonical_json(value)
            if key in kept:
                message = f"{problems.brief(value)} is there twice and counts once"
                self._odd.add("duplicate_value", (*place, index), message)
            kept.setdefault(key, cast("JSON", value))
        return list(kept.values())

    def _range(self, given: object, place: problems.Place) -> Sequence[JSON] | None:
        found = self._found
        spec = found.mapping(given, place)
        if spec is None:
            return None
        found.keys(spec, place, ("start", "stop", "num", "step"))
        missing = [key for key in ("start", "stop") if key not in spec]
        for key in missing:
            found.add("missing_key", place, f"a range needs {key!r}", on_key=True)
        if ("num" in spec) == ("step" in spec):
            found.add("range_form", place, "a range has either 'num' or 'step'", on_key=True)
            return None
        start = found.number(spec["start"], (*place, "start")) if "start" in spec else None
        stop = found.number(spec["stop"], (*place, "stop")) if "stop" in spec else None
        if "num" in spec:
            num = found.integer(spec["num"], (*place, "num"), 1, 2**32)
            if start is None or stop is None or num is None:
                return None
            return ranges.by_count(start, stop, num)
        step = found.number(spec["step"], (*place, "step"))
        if start is None or stop is None or step is None:
            return None
        if step == 0:
            found.add("out_of_range", (*place, "step"), "the step is 0")
            return None
        values = ranges.by_step(start, stop, step)
        size = ranges.size(values)
        if size == 0:
            found.add("empty", (*place, "step"), f"steps of {step} lead away from {stop}: no value is left")
        elif size > 2**32:
            found.add("too_many_points", place, f"a range of more than {2**32:,} values")
        return values if 0 < size <= 2**32 else None


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
            wrong = paths.unknown(base, parts)
            hint = "" if allow_new else " (allow_new_paths: true permits new paths)"
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


def _value_place(spec: object, place: problems.Place, index: int) -> problems.Place:
    if isinstance(spec, Mapping):
        return (*place, "values", index) if "values" in spec else (*place, "value")
    return (*place, index)
