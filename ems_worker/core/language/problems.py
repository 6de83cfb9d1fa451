"""Gathering everything that is wrong with a plan, with the nearest right word for what is misspelt."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from ems_worker import errors

Place = tuple[str | int, ...]

# More than this many say nothing new, and the decision has to fit into one message.
MOST = 100
# Among more words than these no likeness is searched for: that would take time, and the nearest be one by chance.
MOST_CANDIDATES = 1000
# Words longer than this are not compared.
_LONGEST_WORD = 200
# What all searches for one plan may take together, in pairs of characters compared: a second or two at most.
_MOST_PAIRS = 10_000_000
# How much of a value a message quotes.
_LONGEST_QUOTE = 60


class Budget:
    """What searching for words that look alike may still take, in pairs of characters: one for each plan."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: int = _MOST_PAIRS) -> None:
        self._pairs = pairs

    def nearest(self, word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
        """The known word that was most likely meant. None if no one comes near, or it would take too long to find."""
        candidates = list(islice(known, MOST_CANDIDATES + 1))
        if len(word) > _LONGEST_WORD or len(candidates) > MOST_CANDIDATES:
            return None
        by_lower: dict[str, str] = {}
        for candidate in candidates:
            if len(candidate) <= _LONGEST_WORD:
                by_lower.setdefault(candidate.lower(), candidate)
        if not self._spend(len(word) * sum(map(len, by_lower))):
            return None
        found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
        return by_lower[found[0]] if found else None

    def likeness(self, word: str, other: str) -> float:
        """From 0 to 1; 0 as well once the budget is spent."""
        if not self._spend(len(word) * len(other)):
            return 0.0
        return difflib.SequenceMatcher(None, word, other).ratio()

    def _spend(self, pairs: int) -> bool:
        self._pairs -= pairs
        return self._pairs >= 0


class Problems:
    """The problems found so far. Checks report and go on, so that all errors come at once."""

    __slots__ = ("_found", "_more", "budget")

    def __init__(self) -> None:
        self._found: list[errors.Problem] = []
        self._more = 0
        self.budget = Budget()

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
        return any(problem.code == code and problem.location == place for problem in self._found)

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
        found = self.nearest(value, choices) if isinstance(value, str) else None
        self.add("bad_choice", place, f"{brief(value)} is not one of {', '.join(choices)}", found)
        return None

    def keys(self, value: Mapping[str, object], place: Place, known: Iterable[str]) -> None:
        """Reports every key that is not known, with the nearest one that is."""
        known = tuple(known)
        for key in value:
            if key not in known:
                unknown = "" if self.full else f"unknown key {brief(key)}{lookalikes(key)}"
                self.add("unknown_key", (*place, key), unknown, self.nearest(key, known), on_key=True)

    def nearest(self, word: str, known: Iterable[str]) -> str | None:
        """What a suggestion says instead of `word`, if it would be shown and the budget of the plan still allows it."""
        return None if self.full else self.budget.nearest(word, known)

    def _wrong_type(self, value: object, place: Place, expected: str) -> None:
        self.add("wrong_type", place, f"expected {expected}, found {kind(value)}")


def dotted(place: Place) -> str:
    """The place as people write it: `limits.max_attempts`, `runs.0.params_override`."""
    return ".".join(map(str, place))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """As `Budget.nearest`, for one search among few."""
    return Budget().nearest(word, known)


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
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _LONGEST_QUOTE:
            return f"{text[: _LONGEST_QUOTE - 3]}..."
    return text


def _pieces(value: object) -> Iterator[str]:
    """The value's `repr` from its beginning on, so that no more of a gigantic one is made than is shown."""
    if isinstance(value, str):
        yield repr(value[: _LONGEST_QUOTE + 1])
    elif isinstance(value, Mapping):
        for index, (key, inner) in enumerate(value.items()):
            yield ", " if index else "{"
            yield from _pieces(key)
            yield ": "
            yield from _pieces(inner)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield ", " if index else "["
            yield from _pieces(inner)
        yield "]" if value else "[]"
    elif isinstance(value, int) and value.bit_length() >= 256:
        yield "a number of many digits"
    else:
        yield repr(value)


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
