"""The forms of an axis: how its values are written in a plan, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import duplicates, expressions, problems, ranges, samples

JSON = canonical.JSON

# No experiment has as many points; what is larger is a slip of the pen.
LARGEST: Final = 2**32

# No sample of a normal distribution is as many standard deviations from its mean (samples.Normal).
_FURTHEST_DEVIATION: Final = 9.0

DISTRIBUTIONS: Final = {
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "int": ("low", "high"),
    "normal": ("mean", "std"),
    "choice": ("values",),
}


def listed(given: object, place: problems.Place, found: problems.Problems) -> Sequence[JSON] | None:
    """The values of a list, as written: which of them count is known once it is known what varies together."""
    values = found.sequence(given, place)
    if values is None:
        return None
    if not values:
        found.add("empty", place, "this needs at least one value")
        return None
    return list(cast("Sequence[JSON]", values))


def linear(given: object, place: problems.Place, found: problems.Problems) -> Sequence[JSON] | None:
    """`{range: {start, stop, num | step}}`."""
    spec = _fields(given, place, found, ("start", "stop"), ("num", "step"))
    if spec is None:
        return None
    if ("num" in spec) == ("step" in spec):
        found.add("range_form", place, "a range has either 'num' or 'step'", on_key=True)
        return None
    start, stop = _numbers(spec, place, found, "start", "stop")
    if "num" in spec:
        num = found.integer(spec["num"], (*place, "num"), 1, LARGEST)
        return None if start is None or stop is None or num is None else ranges.by_count(start, stop, num)
    (step,) = _numbers(spec, place, found, "step")
    if start is None or stop is None or step is None:
        return None
    if step == 0:
        found.add("out_of_range", (*place, "step"), "the step is 0")
        return None
    values = ranges.by_step(start, stop, step)
    if values.size == 0:
        found.add("empty", (*place, "step"), f"steps of {step} lead away from {stop}: no value is left")
    elif values.size > LARGEST:
        found.add("too_many_points", place, f"a range of more than {LARGEST:,} values")
    return values if 0 < values.size <= LARGEST else None


def logarithmic(given: object, place: problems.Place, found: problems.Problems) -> Sequence[JSON] | None:
    """`{logrange: {start, stop, num}}`."""
    spec = _fields(given, place, found, ("start", "stop", "num"))
    if spec is None:
        return None
    start, stop = _numbers(spec, place, found, "start", "stop")
    num = found.integer(spec["num"], (*place, "num"), 1, LARGEST) if "num" in spec else None
    if start is None or stop is None or num is None:
        return None
    if not (_positive(start, (*place, "start"), found) and _positive(stop, (*place, "stop"), found)):
        return None
    return ranges.by_magnitude(start, stop, num)


def distribution(
    spec: Mapping[str, object], place: problems.Place, found: problems.Problems, odd: problems.Problems
) -> samples.Distribution | None:
    """`{dist: ..., low, high | mean, std | values}`; the keys of other forms are for the caller to refuse."""
    kind = found.choice(spec["dist"], (*place, "dist"), tuple(DISTRIBUTIONS))
    if kind is None:
        return None
    needed = DISTRIBUTIONS[kind]
    missing = [key for key in needed if key not in spec]
    for key in missing:
        found.add("missing_key", (*place, "dist"), f"dist {kind} needs {' and '.join(needed)}; {key!r} is missing")
    for key in {key for keys in DISTRIBUTIONS.values() for key in keys} - {*needed}:
        if key in spec:
            found.add("unknown_key", (*place, key), f"dist {kind} has no {key!r}", on_key=True)
    if missing:
        return None
    if kind == "choice":
        values = listed(spec["values"], (*place, "values"), found)
        if values is None:
            return None
        (once,) = duplicates.without([duplicates.Column("", values, (*place, "values"))], place, found, odd)
        return samples.Choice(once)
    if kind == "int":
        low, high = (found.integer(spec[key], (*place, key), -(2**53), 2**53) for key in needed)
        if low is None or high is None or not _ordered(low, high, place, found):
            return None
        return samples.Int(low, high)
    first, second = _numbers(spec, place, found, *needed)
    if first is None or second is None:
        return None
    if kind == "normal":
        if not _positive(second, (*place, "std"), found):
            return None
        if abs(first) + _FURTHEST_DEVIATION * second == float("inf"):
            found.add("out_of_range", (*place, "std"), "'mean' and 'std' are too large for a number to hold")
            return None
        return samples.Normal(first, second)
    if kind == "loguniform" and not _positive(first, (*place, "low"), found):
        return None
    if not _ordered(first, second, place, found):
        return None
    return samples.LogUniform(first, second) if kind == "loguniform" else samples.Uniform(first, second)


def expression(given: object, place: problems.Place, found: problems.Problems) -> expressions.Expression | None:
    """The text of an expression, read."""
    text = found.text(given, place)
    if text is None:
        return None
    try:
        return expressions.read(text)
    except expressions.ExpressionError as error:
        found.add("bad_expression", place, f"{problems.brief(text)}: {error}", error.suggestion)
        return None


def _fields(
    given: object,
    place: problems.Place,
    found: problems.Problems,
    needed: tuple[str, ...],
    others: tuple[str, ...] = (),
) -> Mapping[str, object] | None:
    spec = found.mapping(given, place)
    if spec is None:
        return None
    found.keys(spec, place, (*needed, *others))
    for key in needed:
        if key not in spec:
            found.add("missing_key", place, f"{key!r} is missing here", on_key=True)
    return spec


def _numbers(
    spec: Mapping[str, object], place: problems.Place, found: problems.Problems, *keys: str
) -> list[int | float | None]:
    return [found.number(spec[key], (*place, key)) if key in spec else None for key in keys]


def _positive(value: float, place: problems.Place, found: problems.Problems) -> bool:
    if value <= 0:
        found.add("out_of_range", place, f"{problems.brief(value)} is not above 0")
    return value > 0


def _ordered(low: float, high: float, place: problems.Place, found: problems.Problems) -> bool:
    if low >= high:
        message = f"'low' is {problems.brief(low)} and not below 'high', {problems.brief(high)}"
        found.add("out_of_range", (*place, "low"), message)
    elif high - low == float("inf"):
        found.add("out_of_range", (*place, "high"), "'low' and 'high' are too far apart for a number to hold")
        return False
    return low < high
