"""The kinds of axes: one entry of `KINDS` each. Parsing, the JSON Schema and the documentation are made from them.

To add a kind, write its `_parse_...` function and its entry. The key that names a kind in a plan is unique to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import checks, distributions, expressions, foreign, quotes, ranges, schema_parts
from ems_worker.core.language.axis_values import AxisValues, Constant, Derived, Part, Varied
from ems_worker.core.language.checks import Fields
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location
from ems_worker.core.language.schema_parts import Schema

JSON = canonical.JSON

# Reads an expression of a plan at its location; reports a problem and returns None if that fails.
ReadExpression = Callable[[object, Location], expressions.Expression | None]

# No experiment has more points; a larger range is a mistake.
MAX_VALUES: Final = 2**32
# The values of a 'concat' are in memory.
MAX_CONCATENATED: Final = 100_000
# The keys of an axis whose values are a column of a file.
FILE: Final = "file"
COLUMN: Final = "column"
# The code of the problem that such a file is named where its values have to be.
FILE_NOT_READ: Final = "file_not_read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a plan gives for an axis: the mapping of the axis, and the value of the key that names its kind."""

    axis: Mapping[str, object]
    axis_location: Location
    value: object
    location: Location
    problems: Problems
    read_expression: ReadExpression


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write an axis: its grammar, what it gives, and the schemas of keys that it needs or may have."""

    grammar: str
    description: str
    keys: Schema
    optional: Schema = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AxisKind:
    """A kind of axis, named by `key`. `parse` reports problems and returns None if it can't give the values."""

    key: str
    parse: Callable[[Given], AxisValues | None]
    forms: tuple[Form, ...]
    # Keys beside `key`, which other kinds don't have; a key that is a kind itself is part of this kind here.
    more_keys: tuple[str, ...] = ()


def _fields(given: Given, *, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Fields | None:
    """The keys of a value that is a mapping."""
    form = _form(given.value, "step" if optional else "num")
    return Fields.read(
        given.value,
        given.location,
        given.problems,
        required=required,
        optional=optional,
        remedies=foreign.RANGE,
        form=form,
    )


def _form(value: object, third: str) -> str:
    """What to write in place of a range that is a list, as in other languages."""
    start, stop, last = map(quotes.brief, value) if isinstance(value, list) and len(value) == 3 else ("...",) * 3
    return f"write {{start: {start}, stop: {stop}, {third}: {last}}}"


def _parse_values(given: Given) -> Varied | None:
    values = checks.listed(given.value, given.location, given.problems)
    return None if values is None else Varied(values, given.location)


def _parse_range(given: Given) -> Varied | None:
    fields = _fields(given, required=("start", "stop"), optional=("num", "step"))
    if fields is None:
        return None
    if not {"num", "step"}.isdisjoint(foreign.meant(foreign.RANGE, fields.mapping)):
        return None  # one of them has another name here, which is reported
    if fields.has("num") == fields.has("step"):
        given.problems.add("range_form", given.location, "a range has either 'num' or 'step'", on_key=True)
        return None
    start, stop = fields.number("start"), fields.number("stop")
    if fields.has("num"):
        num = fields.integer("num", 1, MAX_VALUES)
        if start is None or stop is None or num is None:
            return None
        return Varied(ranges.by_count(start, stop, num), given.location)
    step = fields.number("step")
    if start is None or stop is None or step is None:
        return None
    if step == 0:
        given.problems.add("out_of_range", fields.at("step"), "the step is 0")
        return None
    values = ranges.by_step(start, stop, step)
    if values.size == 0:
        message = f"steps of {step} lead away from {stop}, so the range has no values"
        given.problems.add("empty", fields.at("step"), message)
        return None
    if values.size > MAX_VALUES:
        given.problems.add("too_many_points", given.location, f"a range of more than {MAX_VALUES:,} values")
        return None
    last = values[values.size - 1]
    if isinstance(last, int) and last not in canonical.WHOLE:
        message = f"the whole numbers of this range don't fit 64 bits: for floats write the start as {start}.0"
        given.problems.add("out_of_range", fields.at("stop"), message)
        return None
    gap = ranges.missed(values, stop)
    if gap:
        miss = f"steps of {step} from {start} miss this stop by {gap}: the last value is {last}"
        message = f"{miss}; for a range that includes it write 'num' in place of 'step'"
        given.problems.warn("misses_stop", fields.at("stop"), message)
    return Varied(values, given.location)


def _parse_logrange(given: Given) -> Varied | None:
    fields = _fields(given, required=("start", "stop", "num"))
    if fields is None:
        return None
    start, stop = fields.number("start"), fields.number("stop")
    num = fields.integer("num", 1, MAX_VALUES)
    if start is None or stop is None or num is None:
        return None
    if not (fields.positive("start", start) and fields.positive("stop", stop)):
        return None
    return Varied(ranges.by_magnitude(start, stop, num), given.location)


def _parse_concat(given: Given) -> Varied | None:
    values: list[JSON] = []
    parts: list[Part] = []
    for index, item in enumerate(checks.listed(given.value, given.location, given.problems) or ()):
        part = _parse_part(replace(given, value=item, location=(*given.location, index)))
        if part is None:
            continue
        if len(values) + ranges.size(part.values) > MAX_CONCATENATED:
            message = f"these are more than {MAX_CONCATENATED:,} values, and a 'concat' has at most so many"
            given.problems.add("too_many_points", given.location, message, on_key=True)
            return None
        parts.append(Part(len(values), part.location, listed=not isinstance(part.values, ranges.Spaced)))
        values += part.values
    return Varied(values, given.location, tuple(parts)) if parts else None


def _parse_part(given: Given) -> Varied | None:
    """A part of a 'concat'."""
    if isinstance(given.value, list):
        return _parse_values(given)
    spec = given.value if isinstance(given.value, Mapping) else {}
    [key] = spec if len(spec) == 1 else [""]
    if key not in _PARTS:
        message = "a part of a 'concat' is a list of values, {values}, {range} or {logrange}"
        given.problems.add("not_an_axis", given.location, message)
        return None
    return _PARTS[key](replace(given, value=spec[key], location=(*given.location, key)))


_PARTS: Final[Mapping[object, Callable[[Given], Varied | None]]] = {
    "values": _parse_values,
    "range": _parse_range,
    "logrange": _parse_logrange,
}


def _parse_file(given: Given) -> None:
    name = given.problems.text(given.value, given.location)
    if COLUMN not in given.axis:
        message = f"{COLUMN!r} is missing here: the name of the column that has the values"
        given.problems.add("missing_key", given.axis_location, message, on_key=True)
    elif given.problems.text(given.axis[COLUMN], (*given.axis_location, COLUMN)) is not None and name is not None:
        refuse_file(name, given.location, given.problems)


def refuse_file(name: str, location: Location, problems: Problems) -> None:
    """Reports a file that has not been read: its values were to be in the plan."""
    message = f"the file {quotes.brief(name)} is not read here: ems-publish reads it and sends the values in its place"
    problems.add(FILE_NOT_READ, location, message)


def _parse_dist(given: Given) -> AxisValues | None:
    fields = Fields(given.axis, given.axis_location, given.problems)
    return distributions.parse(fields)


def _parse_value(given: Given) -> AxisValues | None:
    return Constant([cast("JSON", given.value)], given.location)


def _parse_expr(given: Given) -> AxisValues | None:
    expression = given.read_expression(given.value, given.location)
    return None if expression is None else Derived(expression)


_NUM: Final = schema_parts.integer("how many values", 1, MAX_VALUES)
_RANGE: Final = schema_parts.mapping(
    {
        "start": schema_parts.number("the first value"),
        "stop": schema_parts.number("the last value"),
        "num": _NUM,
        "step": {"type": "number", "description": "the difference from one value to the next", "not": {"const": 0}},
    },
    "evenly spaced values, both ends included; 'num' or 'step'",
    ("start", "stop"),
) | {"oneOf": [{"required": ["num"]}, {"required": ["step"]}]}
_LOGRANGE: Final = schema_parts.mapping(
    {
        "start": schema_parts.number("the first value", above=0),
        "stop": schema_parts.number("the last value", above=0),
        "num": _NUM,
    },
    "values that grow by the same factor, both ends included",
    ("start", "stop", "num"),
)

_PART: Final[Schema] = {
    "anyOf": [
        distributions.VALUES_SCHEMA,
        schema_parts.mapping({"values": distributions.VALUES_SCHEMA}, "the listed values", ("values",)),
        schema_parts.mapping({"range": _RANGE}, "evenly spaced values", ("range",)),
        schema_parts.mapping({"logrange": _LOGRANGE}, "values that grow by the same factor", ("logrange",)),
    ]
}
_CONCAT: Final = schema_parts.array(_PART, "lists and ranges, one after another") | {"minItems": 1}

KINDS: Final[Sequence[AxisKind]] = (
    AxisKind(
        "values",
        _parse_values,
        (Form("{values: [value, ...]}", "the listed values", {"values": distributions.VALUES_SCHEMA}),),
    ),
    AxisKind(
        "range",
        _parse_range,
        (Form("{range: {start, stop, num | step}}", "evenly spaced values", {"range": _RANGE}),),
    ),
    AxisKind(
        "logrange",
        _parse_logrange,
        (Form("{logrange: {start, stop, num}}", "values that grow by the same factor", {"logrange": _LOGRANGE}),),
    ),
    AxisKind(
        "concat",
        _parse_concat,
        (Form("{concat: [axis, ...]}", "the values of lists and ranges, one after another", {"concat": _CONCAT}),),
    ),
    AxisKind(
        FILE,
        _parse_file,
        (
            Form(
                "{file: name.csv, column: name}",
                "the values of a column of a CSV file, which ems-publish reads",
                {
                    FILE: schema_parts.text("the path of a CSV file, relative to the plan"),
                    COLUMN: schema_parts.text("the name of the column, in the first line of the file"),
                },
            ),
        ),
        more_keys=(COLUMN,),
    ),
    AxisKind(
        "dist",
        _parse_dist,
        tuple(
            Form(each.grammar, each.description, each.keys, {**each.optional, **distributions.UNIQUE})
            for each in distributions.FORMS
        ),
        more_keys=(*distributions.KEYS, *distributions.UNIQUE),
    ),
    AxisKind(
        "value",
        _parse_value,
        (Form("{value: value}", "a constant", {"value": {"description": "the constant, which may be a list"}}),),
    ),
    AxisKind(
        "expr",
        _parse_expr,
        (Form("{expr: expression}", "a value derived from other parameters", {"expr": schema_parts.EXPRESSION}),),
    ),
)
