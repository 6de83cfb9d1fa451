"""Numbers for people: one precision a column, thousands separated, a mean with its interval. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

from ems_worker.core.lifecycle import interval

# Digits of the largest number of a column, and at least of its smallest.
_DIGITS, _LEAST = 6, 3
# Digits of an interval, and of a mean with one: the interval says which digits of a mean are known.
_OF_INTERVAL, _OF_MEAN = 2, 9
# Digits of a number that is written out, and decimals.
_MAX_DIGITS, _MAX_PLACES = 12, 8
_UNITS: Final = ("kB", "MB", "GB", "TB", "PB", "EB")
_THOUSAND: Final = 1000


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 job`, `2 jobs`, `1,200 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """Bytes for people: `512 bytes`, `1.5 MB`."""
    if number < _THOUSAND:
        return counted(number, "byte")
    scaled = float(number)
    for unit in _UNITS:
        scaled /= _THOUSAND
        # What would be rounded to four digits belongs to the next unit.
        if scaled < _THOUSAND - 0.5 or unit == _UNITS[-1]:
            break
    return f"{scaled:.1f} {unit}" if scaled < 99.95 else f"{scaled:,.0f} {unit}"


def rate(number: float) -> str:
    """A number with three digits, or a whole one."""
    return f"{number:.3g}" if number < _THOUSAND - 0.5 else f"{number:,.0f}"


def is_number(value: object) -> TypeGuard[float | int]:
    """Whether a value is aligned as a number: finite, and not so large that it can't be a float."""
    return type(value) in (int, float) and abs(value) < float("inf")  # type: ignore[arg-type]


def column(values: Sequence[float | int | None]) -> list[str]:
    """Numbers of one column, of one precision; `-` for None."""
    places = decimals(value for value in values if value is not None)
    return ["-" if value is None else written(value, places, separator=",") for value in values]


def decimals(values: Iterable[float | int]) -> int | None:
    """How many decimals a column of these numbers needs; None if no number of decimals suits all of them.

    The largest has six digits, the smallest at least three, and zeros that all have at the end are left out.
    """
    known = list(values)
    sizes = [abs(value) for value in known if value]
    if all(isinstance(value, int) for value in known) or not sizes:
        return 0
    whole = _whole(max(sizes))
    places = max(0, _DIGITS - whole, _LEAST - _whole(min(sizes)))
    return None if places > _MAX_PLACES or whole + places > _MAX_DIGITS else _without_zeros(known, places)


def _without_zeros(values: Sequence[float | int], places: int) -> int:
    """Fewer decimals, if all these numbers end with zeros."""
    while places and all(f"{value:.{places}f}".endswith("0") for value in values):
        places -= 1
    return places


def exact(values: Iterable[float | int]) -> int | None:
    """The same for parameters, which are shown as they are in the plan unless they have many decimals."""
    known = list(values)
    places = max(map(_places, known), default=0)
    return places if places <= _DIGITS else decimals(known)


def written(value: float | int, places: int | None, *, separator: str = "") -> str:
    """A number with so many decimals; with six digits if `places` is None."""
    if isinstance(value, int) and not places:
        return format(value, separator)
    return f"{value:.6g}" if places is None else format(value, f"{separator}.{places}f")


def means(aggregates: Sequence[Mapping[str, Any] | None], expected: Sequence[int] | None = None) -> list[str]:
    """Means of one metric with the half-widths of their 95 percent intervals, `12.3 ± 0.4`; `-` without a mean.

    `expected`: the number of values that a mean should be over; others are named: `12.3 ± 0.4 (n=4)`.
    """
    known = [given if given and is_number(given["mean"]) else None for given in aggregates]
    halves = [None if given is None else _half(given) for given in known]
    places = _places_of_means([given["mean"] for given in known if given], [half for half in halves if half])
    spreads = ["" if half is None else _written_half(half, places) for half in halves]
    widest = max(map(len, spreads), default=0)
    spreads = [f" ± {spread.rjust(widest)}" if spread else "" for spread in spreads]
    fewer = [
        f" (n={given['n']:,})" if given and expected is not None and given["n"] != expected[index] else ""
        for index, given in enumerate(known)
    ]
    # Padded, so that the signs are under one another.
    return [
        "-" if given is None else f"{written(given['mean'], places, separator=',')}{spread}{n}"
        for given, spread, n in zip(known, _filled(spreads), _filled(fewer), strict=True)
    ]


def _filled(texts: Sequence[str]) -> list[str]:
    """The texts with spaces at their ends, as wide as the widest."""
    widest = max(map(len, texts), default=0)
    return [text.ljust(widest) for text in texts]


def _written_half(half: float, places: int | None) -> str:
    return f"{half:.{_OF_INTERVAL}g}" if places is None else written(half, places, separator=",")


def _half(given: Mapping[str, Any]) -> float | None:
    half = interval.half_width(given.get("n", 0), given["std"])
    return half if is_number(half) else None


def _places_of_means(means: Sequence[float], halves: Sequence[float]) -> int | None:
    """Enough decimals for two digits of the usual interval."""
    if not halves:
        return decimals(means)
    usual = sorted(halves)[len(halves) // 2]
    wanted = max(0, _OF_INTERVAL - _whole(usual))
    whole = max(_whole(abs(number)) for number in (*means, *halves) if number)
    places = min(wanted, max(0, _OF_MEAN - whole))
    if places > _MAX_PLACES or whole > _MAX_DIGITS:
        return None
    return places if places == wanted else _without_zeros([*means, *halves], places)


def _whole(size: float) -> int:
    """Digits before the decimal point; below 0, how many zeros follow it."""
    return math.floor(math.log10(size)) + 1


def _places(value: float | int) -> int:
    """Decimals of a number as JSON has it."""
    if isinstance(value, int):
        return 0
    text = repr(value)
    return _MAX_PLACES if "e" in text else len(text.partition(".")[2])
