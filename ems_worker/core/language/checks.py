"""Checks that several parts of a plan share: lists of values, mappings with required keys, expressions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import expressions, quotes
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

_MAX_SECONDS: Final = 366 * 24 * 3600


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


def flag(data: Mapping[str, object], key: str, problems: Problems) -> bool:
    """A key of the plan that is true or false; false if it is missing."""
    return bool(problems.boolean(data.get(key, False), (key,)))


def seconds(value: object, location: Location, problems: Problems, *, zero: bool = False) -> float | None:
    """A time in seconds, at most a year; it may be 0 only if `zero`."""
    number = problems.number(value, location)
    if number is None:
        return None
    if (number > 0 or (zero and number == 0)) and number <= _MAX_SECONDS:
        return float(number)
    least = "at least 0" if zero else "greater than 0"
    message = f"{quotes.brief(value)} is not {least} and at most {_MAX_SECONDS} seconds"
    problems.add("out_of_range", location, message)
    return None


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
    ) -> "Fields | None":
        """The keys of a mapping that has no others than these. None if it is not a mapping."""
        mapping = problems.mapping(data, location)
        if mapping is None:
            return None
        problems.keys(mapping, location, (*required, *optional))
        for key in required:
            if key not in mapping:
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
