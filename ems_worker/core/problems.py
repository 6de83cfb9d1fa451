"""Gathering everything that is wrong with a plan, with the nearest right word for what is misspelt."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ems_worker import errors

Place = tuple[str | int, ...]

# More than this many say nothing new, and the decision has to fit into one message.
MOST = 100


class Problems:
    """The problems found so far. Checks report and go on, so that all errors come at once."""

    __slots__ = ("_found", "_more")

    def __init__(self) -> None:
        self._found: list[errors.Problem] = []
        self._more = 0

    def add(
        self, code: str, place: Place, message: str, suggestion: str | None = None, *, on_key: bool = False
    ) -> None:
        """Reports one problem; `on_key` points at the key in the plan instead of its value."""
        if self.full:
            self._more += 1
            return
        if suggestion is not None:
            message = f"{message}; did you mean {suggestion}?"
        self._found.append(errors.Problem(code, dotted(place), message, None, None, suggestion, place, on_key))

    @property
    def full(self) -> bool:
        """True once further problems are only counted: costly searches for suggestions can be skipped."""
        return len(self._found) >= MOST

    def reported(self, code: str, place: Place) -> bool:
        """True if a problem of this code is among those found at this place."""
        return any(problem.code == code and problem.place == place for problem in self._found)

    def __len__(self) -> int:
        return len(self._found) + self._more

    def found(self) -> tuple[errors.Problem, ...]:
        """All that was reported, in the order of reporting."""
        if not self._more:
            return tuple(self._found)
        more = errors.Problem("too_many_problems", "", f"{self._more} more problems are not shown")
        return (*self._found, more)

    # Checks of one value each: they return it, or report and return None.

    def mapping(self, value: object, place: Place) -> Mapping[str, object] | None:
        """A mapping, else a `wrong_type` problem."""
        if isinstance(value, Mapping):
            return value
        self._wrong_type(value, place, "a mapping")
        return None

    def sequence(self, value: object, place: Place) -> Sequence[object] | None:
        """A list, else a `wrong_type` problem."""
        if isinstance(value, list | tuple):
            return value
        self._wrong_type(value, place, "a list")
        return None

    def boolean(self, value: object, place: Place) -> bool | None:
        """`true` or `false`, else a `wrong_type` problem."""
        if isinstance(value, bool):
            return value
        self._wrong_type(value, place, "true or false")
        return None

    def integer(self, value: object, place: Place, low: int, high: int) -> int | None:
        """A whole number within the bounds, both included; `1.0` is not one."""
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(value, place, "a whole number")
            return None
        if low <= value <= high:
            return value
        self.add("out_of_range", place, f"{brief(value)} is not between {low} and {high}")
        return None

    def number(self, value: object, place: Place) -> int | float | None:
        """Any number, else a `wrong_type` problem."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self._wrong_type(value, place, "a number")
        return None

    def text(self, value: object, place: Place, pattern: re.Pattern[str] | None = None, form: str = "") -> str | None:
        """A string, of the given form where there is one; `form` says it in words."""
        if not isinstance(value, str):
            quotes = " (put it in quotes)" if isinstance(value, bool | int | float) else ""
            self._wrong_type(value, place, f"text{quotes}")
            return None
        if pattern is None or pattern.fullmatch(value):
            return value
        self.add("bad_format", place, f"{brief(value)} is not {form}")
        return None

    def choice(self, value: object, place: Place, choices: Sequence[str]) -> str | None:
        """One of the words, else a problem that lists them."""
        if isinstance(value, str) and value in choices:
            return value
        found = nearest(value, choices) if isinstance(value, str) else None
        self.add("bad_choice", place, f"{brief(value)} is not one of {', '.join(choices)}", found)
        return None

    def keys(self, value: Mapping[str, object], place: Place, known: Iterable[str]) -> None:
        """Reports every key that is not known, with the nearest one that is."""
        known = tuple(known)
        for key in value:
            if key not in known:
                unknown = "" if self.full else f"unknown key {brief(key)}{lookalikes(key)}"
                self.add("unknown_key", (*place, key), unknown, None if self.full else nearest(key, known), on_key=True)

    def _wrong_type(self, value: object, place: Place, expected: str) -> None:
        self.add("wrong_type", place, f"expected {expected}, found {kind(value)}")


def dotted(place: Place) -> str:
    """The place as people write it: `limits.max_attempts`, `runs.0.params_override`."""
    return ".".join(map(str, place))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant, None if no one comes near."""
    if len(word) > 200:
        return None
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def lookalikes(word: str) -> str:
    """Words for the letters in a key that are not what they seem: keys of plans are ASCII."""
    strange = [char for char in word[:200] if not char.isascii()]
    if not strange:
        return ""
    names = ", ".join(f"U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}" for char in strange[:3])
    return f" (it contains {names})"


def brief(value: object) -> str:
    """The value, short enough for a message."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "a number of many digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind(value: object) -> str:
    """What a value is, in a plan writer's words."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {brief(value)}"
        case str():
            return f"the text {brief(value)}"
        case Mapping():
            return "a mapping"
        case _:
            return "a list"
