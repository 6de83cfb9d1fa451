"""The distributions of `dist` axes: one entry of `FORMS` each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ems_worker.core.language import checks, duplicates, foreign, quotes, samples, schema_parts
from ems_worker.core.language.axis_values import Sampled, Varied
from ems_worker.core.language.checks import Fields
from ems_worker.core.language.schema_parts import Schema

_MAX_INTEGER: Final = 2**53

VALUES_SCHEMA: Final[Schema] = {"type": "array", "description": "the values, each once", "minItems": 1}


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution: its name, what its samples are, and its parameters with their schemas, all of which it needs."""

    name: str
    description: str
    parameters: Schema
    parse: Callable[[Fields], Sampled | None]

    @property
    def grammar(self) -> str:
        """The axis as the grammar of plans shows it."""
        parameters = (f"{key}: [value, ...]" if key == "values" else key for key in self.parameters)
        return f"{{dist: {self.name}, {', '.join(parameters)}}}"

    @property
    def keys(self) -> Schema:
        """The schemas of all keys of the axis."""
        return {"dist": {"const": self.name, "description": "the distribution"}, **self.parameters}


def parse(fields: Fields) -> Sampled | None:
    """The distribution of an axis that has the key `dist`."""
    problems = fields.problems
    name = problems.choice(
        fields.mapping["dist"], fields.at("dist"), [each.name for each in FORMS], foreign.DISTRIBUTIONS
    )
    if name is None:
        return None
    form = next(each for each in FORMS if each.name == name)
    needed = tuple(form.parameters)
    missing = [key for key in needed if not fields.has(key)]
    meant = foreign.meant(foreign.DISTRIBUTION, fields.mapping)
    for key in missing:
        if key in meant:
            continue  # it has another name here, which is reported
        message = f"dist {name} needs {' and '.join(needed)}; {key!r} is missing"
        problems.add("missing_key", fields.at("dist"), message)
    for key in KEYS:
        if key not in needed and fields.has(key):
            problems.add("unknown_key", fields.at(key), f"dist {name} has no {key!r}", on_key=True)
    return None if missing else form.parse(fields)


# In standard deviations: every sample of samples.Normal is nearer to the mean.
_MAX_DEVIATION: Final = 9.0


def _parse_uniform(fields: Fields) -> Sampled | None:
    low, high = fields.number("low"), fields.number("high")
    if low is None or high is None or not _ordered(low, high, fields):
        return None
    return Sampled(samples.Uniform(low, high), fields.at("dist"))


def _parse_loguniform(fields: Fields) -> Sampled | None:
    low, high = fields.number("low"), fields.number("high")
    if low is None or high is None or not fields.positive("low", low) or not _ordered(low, high, fields):
        return None
    return Sampled(samples.LogUniform(low, high), fields.at("dist"))


def _parse_int(fields: Fields) -> Sampled | None:
    low, high = (fields.integer(key, -_MAX_INTEGER, _MAX_INTEGER) for key in ("low", "high"))
    if low is None or high is None or not _ordered(low, high, fields):
        return None
    return Sampled(samples.Int(low, high), fields.at("dist"))


def _parse_normal(fields: Fields) -> Sampled | None:
    mean, std = fields.number("mean"), fields.number("std")
    if mean is None or std is None or not fields.positive("std", std):
        return None
    if abs(mean) + _MAX_DEVIATION * std == float("inf"):
        message = "'mean' and 'std' are too large: samples would exceed the largest number"
        fields.problems.add("out_of_range", fields.at("std"), message)
        return None
    return Sampled(samples.Normal(mean, std), fields.at("dist"))


def _parse_choice(fields: Fields) -> Sampled | None:
    location = fields.at("values")
    values = checks.listed(fields.mapping["values"], location, fields.problems)
    if values is None:
        return None
    columns = [duplicates.Column("", Varied(values, location))]
    (distinct,) = duplicates.dropped(columns, fields.location, fields.problems)
    return Sampled(samples.Choice(distinct), location, values)


def _ordered(low: float, high: float, fields: Fields) -> bool:
    """Reports `low` unless it is less than `high`, and `high` if the difference of the two overflows."""
    if low >= high:
        message = f"'low' is {quotes.brief(low)} and not below 'high', {quotes.brief(high)}"
        fields.problems.add("out_of_range", fields.at("low"), message)
    elif high - low == float("inf"):
        message = "the difference between 'low' and 'high' is too large for a floating-point number"
        fields.problems.add("out_of_range", fields.at("high"), message)
        return False
    return low < high


_LOW: Final = schema_parts.number("the smallest value")
_HIGH: Final = schema_parts.number("the largest value")

FORMS: Final[Sequence[Distribution]] = (
    Distribution("uniform", "samples, evenly distributed", {"low": _LOW, "high": _HIGH}, _parse_uniform),
    Distribution(
        "loguniform",
        "samples, each order of magnitude equally likely",
        {"low": schema_parts.number("the smallest value", above=0), "high": _HIGH},
        _parse_loguniform,
    ),
    Distribution(
        "int",
        "samples that are whole numbers, both ends included",
        {"low": _LOW | {"type": "integer"}, "high": _HIGH | {"type": "integer"}},
        _parse_int,
    ),
    Distribution(
        "normal",
        "samples around a mean",
        {"mean": schema_parts.number("the mean"), "std": schema_parts.number("the standard deviation", above=0)},
        _parse_normal,
    ),
    Distribution("choice", "samples of the listed values", {"values": VALUES_SCHEMA}, _parse_choice),
)
KEYS: Final = tuple(dict.fromkeys(key for form in FORMS for key in form.parameters))
