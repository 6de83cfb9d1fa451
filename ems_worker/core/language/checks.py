"""Checks that several parts of a plan share: lists of values, times, mappings with required keys, expressions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import expressions, foreign, quotes
from ems_worker.core.language.foreign import Remedies
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

_MAX_SECONDS: Final = 366 * 24 * 3600
# The length of a unit or label.
MAX_SHOWN: Final = 64
DURATION_PATTERN: Final = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smh])"
_DURATION: Final = re.compile(DURATION_PATTERN)
DURATION: Final = "a number of seconds, minutes or hours, such as 90s, 15m or 12h"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def listed(data: object, location: Location, problems: Problems) -> Sequence[JSON] | None:
    """The values of a list that is not empty, duplicates included."""
    values = problems.sequence(data, location)
    if values is None:
        return None
    if not values:
        problems.add("empty", location, "this needs at least one value")
        return None
    return list(cast("Sequence[JSON]", values))


def expression(data: object, location: Location, problems: Problems) -> expressions.Expression | None:
    """The expression that a text contains."""
    text = problems.text(data, location)
    if text is None:
        return None
    try:
        return expressions.read(text)
    except expressions.ExpressionError as error:
        problems.add("bad_expression", location, f"{quotes.brief(text)}: {error}", error.suggestion)
        return None


def shown(key: str, data: Mapping[str, object], location: Location, problems: Problems) -> str | None:
    """A short text of this key for tables and pictures; None if it is missing."""
    return line(data[key], (*location, key), problems, MAX_SHOWN) if key in data else None


def line(data: object, location: Location, problems: Problems, max_length: int) -> str | None:
    """A line of visible text without spaces around it."""
    text = problems.text(data, location)
    if text is None or (text and text == text.strip() and text.isprintable() and len(text) <= max_length):
        return text
    message = f"{quotes.brief(text)} is not one line of visible text, of at most {max_length} characters"
    problems.add("bad_format", location, f"{message}, without spaces around it")
    return None


def flag(data: Mapping[str, object], key: str, problems: Problems) -> bool:
    """A key of the plan that is true or false; false if it is missing."""
    return bool(problems.boolean(data.get(key, False), (key,)))


def seconds(value: object, location: Location, problems: Problems, *, zero: bool = False) -> float | None:
    """A time in seconds, at most a year; it may be 0 only if `zero`."""
    if isinstance(value, str) and _DURATION.fullmatch(value):
        key = str(location[-1]).removesuffix("_seconds")
        message = f"expected a number, found {quotes.describe(value)}: write {key}: {value}"
        problems.add("wrong_type", location, message)
        return None
    number = problems.number(value, location)
    if number is None:
        return None
    if (number > 0 or (zero and number == 0)) and number <= _MAX_SECONDS:
        return float(number)
    least = "at least 0" if zero else "greater than 0"
    message = f"{quotes.brief(value)} is not {least} and at most {_MAX_SECONDS} seconds"
    problems.add("out_of_range", location, message)
    return None


def duration(
    data: Mapping[str, object], key: str, location: Location, problems: Problems, *, zero: bool = False
) -> float | None:
    """The time at `key`, such as 15m, or at the key with `_seconds` after it; None if neither is there."""
    in_seconds = f"{key}_seconds"
    if key not in data:
        here = (*location, in_seconds)
        return seconds(data[in_seconds], here, problems, zero=zero) if in_seconds in data else None
    here = (*location, key)
    if in_seconds in data:
        message = f"{key!r} and {in_seconds!r} are two names of the same key: keep one of them"
        problems.add("conflicting_keys", here, message, on_key=True)
    value = data[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        message = f"{quotes.brief(value)} has no unit: write {quotes.brief(value)}s, or {in_seconds}"
        problems.add("wrong_type", here, message)
        return None
    text = problems.text(value, here, _DURATION, DURATION)
    matched = None if text is None else _DURATION.fullmatch(text)
    if matched is None:
        return None
    return seconds(float(matched[1]) * _UNITS[matched[2]], here, problems, zero=zero)


@dataclass(frozen=True, slots=True)
class Fields:
    """The keys of a mapping. Each method returns the value of one key, or reports a problem and returns None."""

    mapping: Mapping[str, object]
    location: Location
    problems: Problems

    @classmethod
    def read(
        cls,
        data: object,
        location: Location,
        problems: Problems,
        *,
        required: tuple[str, ...],
        optional: tuple[str, ...] = (),
        remedies: Remedies | None = None,
        form: str = "",
    ) -> "Fields | None":
        """The keys of a mapping that has no others than these. None if it is not a mapping.

        `remedies` are for unknown keys, `form` is what to write in place of something that is no mapping.
        """
        mapping = problems.mapping(data, location, form)
        if mapping is None:
            return None
        problems.keys(mapping, location, (*required, *optional), remedies or {})
        meant = foreign.meant(remedies or {}, mapping)
        for key in required:
            if key not in mapping and key not in meant:
                problems.add("missing_key", location, f"{key!r} is missing here", on_key=True)
        return cls(mapping, location, problems)

    def at(self, key: str) -> Location:
        """The location of a key."""
        return (*self.location, key)

    def has(self, key: str) -> bool:
        """True if the mapping has the key."""
        return key in self.mapping

    def number(self, key: str) -> int | float | None:
        """A number; None without a report if the key is missing."""
        return self.problems.number(self.mapping[key], self.at(key)) if key in self.mapping else None

    def integer(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`; None without a report if the key is missing."""
        return self.problems.integer(self.mapping[key], self.at(key), low, high) if key in self.mapping else None

    def positive(self, key: str, number: float) -> bool:
        """Reports the number of a key unless it is greater than 0."""
        if number <= 0:
            self.problems.add("out_of_range", self.at(key), f"{quotes.brief(number)} is not greater than 0")
        return number > 0
