"""Evenly spaced values, made one at a time: a range of a million values costs nothing until it is walked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, overload

# Up to this many values are worked out at once, so that walking a grid doesn't do it again at every point.
_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Linear(Sequence[int | float]):
    """`start`, `start + step`, and so on; whole numbers throughout stay whole.

    Value i is worked out from i in exact fractions of the decimals as written: steps of 0.1 give 0.3, not
    0.30000000000000004.
    """

    start: Fraction
    step: Fraction
    size: int
    whole: bool

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> int | float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int | float]: ...
    def __getitem__(self, index: int | slice) -> int | float | Sequence[int | float]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        value = self.start + self.step * (index % self.size)
        return int(value) if self.whole else float(value)

    def __iter__(self) -> Iterator[int | float]:
        return (self[index] for index in range(self.size))


def exact(number: int | float) -> Fraction:
    """The decimal as people write it: 0.1 is a tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def by_count(start: int | float, stop: int | float, num: int) -> Sequence[int | float]:
    """`num` values from `start` to `stop`, both included; whole if both ends and every step are."""
    first, last = exact(start), exact(stop)
    step = (last - first) / (num - 1) if num > 1 else Fraction(0)
    whole = isinstance(start, int) and isinstance(stop, int) and step.denominator == 1
    return _kept(Linear(first, step, num, whole))


def by_step(start: int | float, stop: int | float, step: int | float) -> Sequence[int | float]:
    """Values from `start` in steps up to and with `stop`; none if the step leads away from it. `step` is not 0."""
    first, last, by = exact(start), exact(stop), exact(step)
    size = max(0, (last - first) // by + 1)
    whole = isinstance(start, int) and isinstance(step, int)
    return _kept(Linear(first, by, size, whole))


def _kept(values: Linear) -> Sequence[int | float]:
    # len() itself refuses sizes past the machine's word, which a hostile range can have.
    return tuple(values) if values.size <= _KEPT else values


def size(values: Sequence[object]) -> int:
    """How many values there are, where that is more than `len` can say too."""
    return values.size if isinstance(values, Linear) else len(values)
