"""The keys that several distributions have. Each function reports a problem and returns None if it finds one."""

from collections.abc import Sequence
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import quantiles, quotes, ranges
from ems_worker.core.language.checks import Fields
from ems_worker.core.language.quantiles import Distribution
from ems_worker.core.language.ranges import Number

MAX_INTEGER: Final = 2**53


def weights(fields: Fields, values: Sequence[canonical.JSON]) -> tuple[Number, ...] | None:
    """The weights of these values."""
    problems, location = fields.problems, fields.at("weights")
    given = problems.sequence(fields.mapping["weights"], location)
    weights = [problems.number(weight, (*location, index)) for index, weight in enumerate(given or ())]
    known = tuple(weight for weight in weights if weight is not None)
    if given is None or len(known) < len(weights):
        return None
    if len(weights) != len(values):
        message = f"{len(weights)} weights for {len(values)} values: write one for each"
        problems.add("out_of_range", location, message)
        return None
    negative = next((index for index, weight in enumerate(known) if weight < 0), None)
    if negative is not None:
        message = f"{quotes.brief(known[negative])} is less than 0"
        problems.add("out_of_range", (*location, negative), message)
    elif not any(known):
        problems.add("out_of_range", location, "all weights are 0, so that nothing can be drawn")
    return None if negative is not None or not any(known) else known


def ends(fields: Fields, *, positive: bool = False) -> tuple[Number, Number] | None:
    """`low` and `high`."""
    low, high = fields.number("low"), fields.number("high")
    if low is None or high is None or (positive and not fields.positive("low", low)):
        return None
    return (low, high) if _ordered(low, high, fields) else None


def whole_ends(fields: Fields, least: int) -> tuple[int, int] | None:
    """`low` and `high`, both whole."""
    low, high = (fields.integer(key, least, MAX_INTEGER) for key in ("low", "high"))
    return (low, high) if low is not None and high is not None and _ordered(low, high, fields) else None


def moments(fields: Fields) -> tuple[Number, Number] | None:
    """`mean` and `std`."""
    mean, std = fields.number("mean"), fields.number("std")
    return (mean, std) if mean is not None and std is not None and fields.positive("std", std) else None


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


def _step(fields: Fields, *, whole: bool = False) -> Number | None:
    """The `step`, which is there."""
    step = fields.integer("step", 1, MAX_INTEGER) if whole else fields.number("step")
    return step if step is not None and fields.positive("step", step) else None


def stepped(
    inner: Distribution, ends: tuple[Number, Number], fields: Fields, *, whole: bool = False
) -> Distribution | None:
    """The distribution, if there is a `step` between the values of a range from the lower end."""
    if not fields.has("step"):
        return inner
    step = _step(fields, whole=whole)
    if step is None:
        return None
    is_even = isinstance(inner, quantiles.Uniform | quantiles.Int)
    stepped = quantiles.Even(*ends, step) if is_even else quantiles.Nearest(inner, *ends, step)
    last = stepped.values[stepped.values.size - 1]
    if stepped.values.size == 1:
        message = f"a step of {quotes.brief(step)} from 'low' leads past 'high', so that all samples would be 'low'"
        fields.problems.add("out_of_range", fields.at("step"), message)
        return None
    if ranges.missed(stepped.values, ends[1]):
        message = f"steps of {quotes.brief(step)} from 'low' miss 'high': no sample is above {last}"
        fields.problems.warn("misses_stop", fields.at("high"), message)
    return stepped


def multiple(inner: Distribution, largest: float, fields: Fields) -> Distribution | None:
    """The distribution, if there is a `step` with the nearest multiples of it. `largest` is that of all samples."""
    if not fields.has("step"):
        return inner
    step = _step(fields)
    if step is None:
        return None
    limit, remedy = float("inf"), "the largest number"
    if isinstance(step, int):
        limit, remedy = -float(canonical.WHOLE.start), f"64 bits: for floats write {step}.0"
    if largest + step >= limit:
        message = f"multiples of {quotes.brief(step)} would exceed {remedy}"
        fields.problems.add("out_of_range", fields.at("step"), message)
        return None
    multiple = quantiles.Multiple(inner, step)
    if multiple(0.0) == multiple(1.0):
        message = f"a step of {quotes.brief(step)} is so large that all samples would be {multiple(0.5)}"
        fields.problems.add("out_of_range", fields.at("step"), message)
        return None
    return multiple
