"""Ranges of values that are computed on access, so that a range of a million values needs no memory."""

import math
import sys
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final, overload

Number = int | float

# Ranges up to this size cache their values: a grid reads them again at every point.
_MAX_CACHED: Final = 10_000
_PRECISE: Final = Context(prec=40)
_ROUNDED: Final = Context(prec=30)
# A range meets its stop if the number of steps to it differs from a whole number by no more.
_MISSED: Final = Fraction(1, 10**9)
# Twice the largest distance from a float to the next, relative to the float.
_MIN_RELATIVE_STEP: Final = Decimal(2) ** -51


class Spaced(Sequence[Number]):
    """`size` values that either increase or decrease; value i is computed from i. `size` may be too large for `len`.

    The values of a `dense` range may be closer together than floats, so that some are equal.
    """

    __slots__ = ("_cache", "_make", "dense", "size")

    def __init__(self, size: int, make: Callable[[int], Number], *, dense: bool) -> None:
        self.size = size
        self.dense = dense
        self._make = make
        self._cache: dict[int, Number] = {}

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Number: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Number]: ...
    def __getitem__(self, index: int | slice) -> Number | Sequence[Number]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        value = self._cache.get(index)
        if value is None:
            if not 0 <= index < self.size:
                raise IndexError(index)
            value = self._make(index)
            if self.size <= _MAX_CACHED:
                self._cache[index] = value
        return value


def size(values: Sequence[object]) -> int:
    """The number of values, also if it is too large for `len`."""
    return values.size if isinstance(values, Spaced) else len(values)


def by_count(start: Number, stop: Number, num: int) -> Spaced:
    """`num` values from `start` to `stop`, both included; whole numbers if both ends and every step are."""
    step = (exact(stop) - exact(start)) / (num - 1) if num > 1 else Fraction(0)
    return _linear(start, step, num, isinstance(start, int) and isinstance(stop, int) and step.denominator == 1)


def by_step(start: Number, stop: Number, step: Number) -> Spaced:
    """Values from `start` up to `stop`, which is the last one if a step meets it; none if steps lead away from it.

    A step meets it if the number of steps is whole apart from the rounding of floats. `step` is not 0.
    """
    steps = (exact(stop) - exact(start)) / exact(step)
    nearest = round(steps)
    whole = isinstance(start, int) and isinstance(step, int)
    if nearest < 1 or abs(steps - nearest) > _MISSED:
        return _linear(start, exact(step), max(0, math.floor(steps) + 1), whole)
    return _linear(start, exact(step), nearest + 1, whole and exact(stop).denominator == 1, stop=stop)


def missed(values: Sequence[Number], stop: Number) -> Number:
    """How far the last value is from where a range was to stop; a whole number if both are."""
    last = values[size(values) - 1]
    gap = abs(exact(float(stop) if isinstance(last, float) else stop) - exact(last))
    return int(gap) if gap.denominator == 1 else float(gap)


def by_magnitude(start: Number, stop: Number, num: int) -> Spaced:
    """`num` values from `start` to `stop`, both positive and included, that grow by the same factor.

    They are computed in decimals, so that all machines get the same values and powers of ten are exact. They are whole
    numbers if all of them are.
    """
    first, last = (_PRECISE.ln(Decimal(repr(end))) for end in (start, stop))
    whole = isinstance(start, int) and isinstance(stop, int) and _whole_multiples(start, stop, num)

    def make(index: int) -> Number:
        if index == 0:
            return start if whole else float(start)
        if index == num - 1:
            return stop if whole else float(stop)
        part = _PRECISE.divide(Decimal(index), Decimal(num - 1))
        exponent = _PRECISE.add(first, _PRECISE.multiply(_PRECISE.subtract(last, first), part))
        value = _ROUNDED.plus(_PRECISE.exp(exponent))
        return int(value) if whole else float(value)

    width = abs(_PRECISE.subtract(last, first))
    tiny = min(start, stop) < sys.float_info.min  # there, floats are further apart
    return Spaced(num, make, dense=num > 1 and (tiny or width <= (num - 1) * _MIN_RELATIVE_STEP))


def exact(number: Number) -> Fraction:
    """The number as its decimal: 0.1 is exactly a tenth, and three steps of it give 0.3, not 0.30000000000000004."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _linear(start: Number, step: Fraction, num: int, whole: bool, *, stop: Number | None = None) -> Spaced:
    """Values with a step between them; `stop` is the last one if it is given."""
    first = exact(start)
    last = first + step * (num - 1) if stop is None else exact(stop)

    def make(index: int) -> Number:
        value = last if index == num - 1 else first + step * index
        return int(value) if whole else float(value)

    largest = max(abs(first), abs(last))
    return Spaced(num, make, dense=num > 1 and abs(step) <= (0 if whole else Fraction(math.ulp(float(largest)))))


def _whole_multiples(start: int, stop: int, num: int) -> bool:
    """True if all values of a logarithmic range are whole: their ratio is rational, and its denominator divides out."""
    steps = num - 1
    if steps < 2 or start == stop:
        return True
    if steps > 64:  # even a ratio of 2 would exceed 64 bits
        return False
    exponent = _PRECISE.divide(_PRECISE.ln(Decimal(stop) / Decimal(start)), Decimal(steps))
    ratio = Fraction(_PRECISE.exp(exponent)).limit_denominator(2**32)
    return start * ratio**steps == stop and start % ratio.denominator**steps == 0
