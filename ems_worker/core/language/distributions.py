"""The distributions of `dist` axes: one entry of `FORMS` each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import checks, distribution_keys, duplicates, foreign, quantiles, quotes, schema_parts
from ems_worker.core.language.axis_values import Sampled, Varied
from ems_worker.core.language.checks import Fields
from ems_worker.core.language.quantiles import Distribution
from ems_worker.core.language.schema_parts import Schema

# In standard deviations: every sample of a normal distribution is nearer to the mean.
_MAX_DEVIATION: Final = 9.0
# Of a truncated normal distribution: the least part below the nearer end, and the least part of that between the ends.
_MIN_TAIL: Final = 1e-300
_MIN_PART: Final = 1e-6
# The exponents of e that are ordinary floats.
_EXPONENTS: Final = (-708.0, 709.0)

VALUES_SCHEMA: Final[Schema] = {"type": "array", "description": "the values, each once", "minItems": 1}


@dataclass(frozen=True, slots=True)
class Form:
    """A distribution: its name, what its samples are, and its parameters with their schemas, all of which it needs.

    `optional` are the schemas of those that it may have as well.
    """

    name: str
    description: str
    parameters: Schema
    parse: Callable[[Fields], Distribution | None]
    optional: Schema = field(default_factory=dict)

    @property
    def grammar(self) -> str:
        """The axis as the grammar of plans shows it."""
        parameters = (f"{key}: [value, ...]" if key == "values" else key for key in self.parameters)
        return f"{{dist: {self.name}, {', '.join(parameters)}}}"

    @property
    def keys(self) -> Schema:
        """The schemas of the keys that the axis needs."""
        return {"dist": {"const": self.name, "description": "the distribution"}, **self.parameters}


def parse(fields: Fields) -> Sampled | None:
    """The samples of an axis that has the key `dist`."""
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
        if key not in needed and key not in form.optional and fields.has(key):
            problems.add("unknown_key", fields.at(key), f"dist {name} has no {key!r}", on_key=True)
    unique = problems.boolean(fields.mapping["unique"], fields.at("unique")) if fields.has("unique") else False
    distribution = None if missing else form.parse(fields)
    if distribution is None:
        return None
    listed = distribution.values if isinstance(distribution, quantiles.Choice) else ()
    location = fields.at("values" if listed else "dist")
    choices = cast("Sequence[canonical.JSON]", fields.mapping["values"]) if listed else ()
    return Sampled(distribution, location, choices, unique=bool(unique))


def _parse_uniform(fields: Fields) -> Distribution | None:
    ends = distribution_keys.ends(fields)
    return None if ends is None else distribution_keys.stepped(quantiles.Uniform(*ends), ends, fields)


def _parse_loguniform(fields: Fields) -> Distribution | None:
    ends = distribution_keys.ends(fields, positive=True)
    return None if ends is None else distribution_keys.stepped(quantiles.LogUniform(*ends), ends, fields)


def _parse_int(fields: Fields) -> Distribution | None:
    ends = distribution_keys.whole_ends(fields, -distribution_keys.MAX_INTEGER)
    return None if ends is None else distribution_keys.stepped(quantiles.Int(*ends), ends, fields, whole=True)


def _parse_logint(fields: Fields) -> Distribution | None:
    ends = distribution_keys.whole_ends(fields, 1)
    return None if ends is None else distribution_keys.stepped(quantiles.LogInt(*ends), ends, fields, whole=True)


def _parse_normal(fields: Fields) -> Distribution | None:
    moments = distribution_keys.moments(fields)
    if moments is None:
        return None
    largest = abs(moments[0]) + _MAX_DEVIATION * moments[1]
    if largest == float("inf"):
        message = "'mean' and 'std' are too large: samples would exceed the largest number"
        fields.problems.add("out_of_range", fields.at("std"), message)
        return None
    return distribution_keys.multiple(quantiles.Normal(*moments), largest, fields)


def _parse_lognormal(fields: Fields) -> Distribution | None:
    moments = distribution_keys.moments(fields)
    if moments is None:
        return None
    mean, std = moments
    if mean - _MAX_DEVIATION * std < _EXPONENTS[0] or mean + _MAX_DEVIATION * std > _EXPONENTS[1]:
        message = "'mean' and 'std' are those of the samples' natural logarithm, and these give numbers out of range"
        fields.problems.add("out_of_range", fields.at("mean"), message)
        return None
    inner = quantiles.LogNormal(mean, std)
    return distribution_keys.multiple(inner, cast("float", inner(1.0)), fields)


def _parse_truncnormal(fields: Fields) -> Distribution | None:
    moments, ends = distribution_keys.moments(fields), distribution_keys.ends(fields)
    if moments is None or ends is None:
        return None
    inner = quantiles.TruncNormal(*map(float, (*moments, *ends)))
    below, above = inner.tails()
    if above < _MIN_TAIL or above - below < _MIN_PART * above:
        message = (
            "'low' and 'high' leave next to nothing of this normal distribution: move or widen them, or raise 'std'"
        )
        fields.problems.add("out_of_range", fields.at("low"), message)
        return None
    return distribution_keys.stepped(inner, ends, fields)


def _parse_triangular(fields: Fields) -> Distribution | None:
    ends, mode = distribution_keys.ends(fields), fields.number("mode")
    if ends is None or mode is None:
        return None
    low, high = ends
    if not low <= mode <= high:
        message = f"'mode' is {quotes.brief(mode)} and not between 'low', {quotes.brief(low)}, and 'high',"
        fields.problems.add("out_of_range", fields.at("mode"), f"{message} {quotes.brief(high)}")
        return None
    return distribution_keys.stepped(quantiles.Triangular(float(low), float(mode), float(high)), ends, fields)


def _parse_choice(fields: Fields) -> Distribution | None:
    location = fields.at("values")
    values = checks.listed(fields.mapping["values"], location, fields.problems)
    weights = distribution_keys.weights(fields, values) if values is not None and fields.has("weights") else ()
    if values is None or weights is None:
        return None
    columns = [duplicates.Column("", Varied(values, location))]
    (distinct,) = duplicates.dropped(columns, fields.location, fields.problems)
    if weights and len(distinct) < len(values):
        message = "values are repeated: list each once, with the sum of its weights"
        fields.problems.add("duplicate", location, message, on_key=True)
        return None
    return quantiles.Choice(distinct, weights)


_LOW: Final = schema_parts.number("the smallest value")
_HIGH: Final = schema_parts.number("the largest value")
_ENDS: Final[Schema] = {"low": _LOW, "high": _HIGH}
_MOMENTS: Final[Schema] = {
    "mean": schema_parts.number("the mean"),
    "std": schema_parts.number("the standard deviation", above=0),
}
_LOGARITHMIC: Final[Schema] = {
    "mean": schema_parts.number("the mean of the natural logarithm"),
    "std": schema_parts.number("the standard deviation of the natural logarithm", above=0),
}
_STEP: Final[Schema] = {"step": schema_parts.number("the difference from one possible value to the next", above=0)}
_WHOLE: Final[Schema] = {"type": "integer"}
_WHOLE_STEP: Final[Schema] = {"step": _STEP["step"] | _WHOLE}

FORMS: Final[Sequence[Form]] = (
    Form("uniform", "samples, evenly distributed", _ENDS, _parse_uniform, _STEP),
    Form(
        "loguniform",
        "samples, each order of magnitude equally likely",
        {"low": schema_parts.number("the smallest value", above=0), "high": _HIGH},
        _parse_loguniform,
        _STEP,
    ),
    Form(
        "int",
        "samples that are whole numbers, both ends included",
        {"low": _LOW | _WHOLE, "high": _HIGH | _WHOLE},
        _parse_int,
        _WHOLE_STEP,
    ),
    Form(
        "logint",
        "samples that are whole numbers, each order of magnitude equally likely",
        {"low": schema_parts.number("the smallest value", above=0) | _WHOLE, "high": _HIGH | _WHOLE},
        _parse_logint,
        _WHOLE_STEP,
    ),
    Form("normal", "samples around a mean", _MOMENTS, _parse_normal, _STEP),
    Form(
        "lognormal",
        "samples whose natural logarithm has this mean and standard deviation",
        _LOGARITHMIC,
        _parse_lognormal,
        _STEP,
    ),
    Form(
        "truncnormal",
        "samples of a normal distribution, without those below low and above high",
        {**_MOMENTS, **_ENDS},
        _parse_truncnormal,
        _STEP,
    ),
    Form(
        "triangular",
        "samples from low to high, most of them near the mode",
        {"low": _LOW, "mode": schema_parts.number("the most likely value"), "high": _HIGH},
        _parse_triangular,
        _STEP,
    ),
    Form(
        "choice",
        "samples of the listed values",
        {"values": VALUES_SCHEMA},
        _parse_choice,
        {
            "weights": schema_parts.array(
                schema_parts.number("how likely the value is, compared with the others", least=0),
                "a weight for each value; by default all are equally likely",
            )
        },
    ),
)
# What all of them may have.
UNIQUE: Final[Mapping[str, Schema]] = {
    "unique": {"type": "boolean", "description": "draw no value twice; samples are drawn until they differ"}
}
KEYS: Final = tuple(dict.fromkeys(key for form in FORMS for key in (*form.parameters, *form.optional)))
