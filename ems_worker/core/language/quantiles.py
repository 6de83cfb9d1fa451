"""Distributions: each maps a coordinate in [0, 1) to a value, the one below which that part of all samples lies.

All machines draw the same values: what doesn't only come from `+ - * /` and square roots has 12 significant digits.
"""

import bisect
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import accumulate
from statistics import NormalDist
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import ranges
from ems_worker.core.language.ranges import Number, Spaced

JSON = canonical.JSON

_INSIDE: Final = (2.0**-54, 1.0 - 2.0**-53)
_SQRT2: Final = math.sqrt(2.0)
_STANDARD: Final = NormalDist()
_DECIMAL: Final = Context(prec=50, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Any number from `low` to `high`."""

    low: float
    high: float

    def __call__(self, u: float) -> JSON:
        return min(self.high, self.low + u * (self.high - self.low))


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Numbers from `low` to `high`, both positive; each order of magnitude is equally likely."""

    low: float
    high: float

    def __call__(self, u: float) -> JSON:
        value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return min(self.high, max(self.low, _rounded(value)))


@dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from `low` to `high`, both included, all equally likely."""

    low: int
    high: int

    def __call__(self, u: float) -> JSON:
        return min(self.high, self.low + math.floor(u * (self.high - self.low + 1)))


@dataclass(frozen=True, slots=True)
class Normal:
    """Normally distributed numbers with this mean and standard deviation."""

    mean: float
    std: float

    def __call__(self, u: float) -> JSON:
        return _rounded(NormalDist(self.mean, self.std).inv_cdf(min(_INSIDE[1], max(_INSIDE[0], u))))


@dataclass(frozen=True, slots=True)
class LogInt:
    """Whole numbers from `low` to `high`, both positive and included; each order of magnitude is equally likely.

    A number is the whole part of one that is logarithmically distributed from `low` to `high + 1`.
    """

    low: int
    high: int

    def __call__(self, u: float) -> JSON:
        value = math.exp(math.log(self.low) + u * (math.log(self.high + 1) - math.log(self.low)))
        return min(self.high, max(self.low, math.floor(_rounded(value))))


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Numbers whose natural logarithm is normally distributed with this mean and standard deviation."""

    mean: float
    std: float

    def __call__(self, u: float) -> JSON:
        return _rounded(math.exp(self.mean + self.std * _deviations(u)))


@dataclass(frozen=True, slots=True)
class TruncNormal:
    """Normally distributed numbers without those below `low` and above `high`."""

    mean: float
    std: float
    low: float
    high: float

    def __call__(self, u: float) -> JSON:
        below, above = self.tails()
        rising = self.low < self.mean
        deviations = _deviations(below + (u if rising else 1.0 - u) * (above - below), least=sys.float_info.min)
        value = self.mean + (deviations if rising else -deviations) * self.std
        return min(self.high, max(self.low, _rounded(value)))

    def tails(self) -> tuple[float, float]:
        """The parts of all normal numbers below both ends.

        If both ends are above the mean, these are the parts above them, the smaller one first: near 1 they would not be
        exact.
        """
        ends = ((end - self.mean) / self.std for end in (self.low, self.high))
        below, above = (0.5 * math.erfc((-end if self.low < self.mean else end) / _SQRT2) for end in ends)
        return min(below, above), max(below, above)


@dataclass(frozen=True, slots=True)
class Triangular:
    """Numbers from `low` to `high`, whose density rises in a line to `mode` and falls in a line from there."""

    low: float
    mode: float
    high: float

    def __call__(self, u: float) -> JSON:
        width = self.high - self.low
        rising = (self.mode - self.low) / width
        if u < rising:
            return min(self.mode, self.low + width * math.sqrt(u * rising))
        return max(self.mode, self.high - width * math.sqrt((1.0 - u) * (1.0 - rising)))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values, all equally likely unless there are `weights`, one for each."""

    values: Sequence[JSON]
    weights: tuple[Number, ...] = ()
    _bounds: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sums = list(accumulate(map(ranges.exact, self.weights)))
        object.__setattr__(self, "_bounds", tuple(float(each / sums[-1]) for each in sums))

    def __call__(self, u: float) -> JSON:
        if self.weights:
            return self.values[bisect.bisect_right(self._bounds, min(u, _INSIDE[1]))]
        return self.values[min(len(self.values) - 1, math.floor(u * len(self.values)))]


@dataclass(frozen=True, slots=True)
class Even:
    """The values of a range by `step`, all equally likely."""

    low: Number
    high: Number
    step: Number
    values: Spaced = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", ranges.by_step(self.low, self.high, self.step))

    def __call__(self, u: float) -> JSON:
        return self.values[min(self.values.size - 1, math.floor(u * self.values.size))]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The values of another distribution, each moved to the nearest of a range by `step`."""

    inner: "Distribution"
    low: Number
    high: Number
    step: Number
    values: Spaced = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", ranges.by_step(self.low, self.high, self.step))

    def __call__(self, u: float) -> JSON:
        distance = _DECIMAL.subtract(_decimal(self.inner(u)), _decimal(self.low))
        return self.values[min(self.values.size - 1, max(0, _steps(distance, self.step)))]


@dataclass(frozen=True, slots=True)
class Multiple:
    """The values of another distribution, which has no ends, each moved to the nearest multiple of `step`."""

    inner: "Distribution"
    step: Number

    def __call__(self, u: float) -> JSON:
        value = _DECIMAL.multiply(_steps(_decimal(self.inner(u)), self.step), _decimal(self.step))
        return int(value) if isinstance(self.step, int) else float(value)


Distribution = (
    Uniform | LogUniform | Int | Normal | LogInt | LogNormal | TruncNormal | Triangular | Choice | Even | Nearest
    | Multiple
)  # fmt: skip


def size(distribution: Distribution) -> int | None:
    """How many different values a distribution has at most; None if they are as many as numbers."""
    match distribution:
        case Int() | LogInt():
            return distribution.high - distribution.low + 1
        case Choice():
            return len(distribution.values) - distribution.weights.count(0)
        case Even() | Nearest():
            return distribution.values.size
        case _:
            return None


def _deviations(u: float, least: float = _INSIDE[0]) -> float:
    """How many standard deviations from the mean that part of a normal distribution ends."""
    return _rounded(_STANDARD.inv_cdf(min(_INSIDE[1], max(least, u))))


def _decimal(value: JSON) -> Decimal:
    return Decimal(repr(value))


def _steps(distance: Decimal, step: Number) -> int:
    """The whole number of steps that comes nearest to a distance."""
    return int(_DECIMAL.to_integral_value(_DECIMAL.divide(distance, _decimal(step))))


def _rounded(value: float) -> float:
    """12 significant digits: math libraries differ in the 16th, and all machines must draw the same values."""
    return float(f"{value:.12g}")
