"""Collects the problems and warnings of a plan, so that all of them are reported at once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import quotes, suggestions
from ems_worker.core.language.foreign import Remedies
from ems_worker.core.language.quotes import Location

# Further problems are only counted: the decision has to fit into one message.
MAX_PROBLEMS: Final = 100
_MAX_MESSAGE: Final = 600
_MAX_SUGGESTION: Final = 200
_NONE: Final[Remedies] = {}


class Problems:
    """The problems and warnings of one plan so far. Checks report here and continue.

    The methods that check a value return it if it is valid; otherwise they report a problem and return None.
    """

    __slots__ = ("_omitted", "_problems", "_warnings", "budget")

    def __init__(self) -> None:
        self._problems: list[errors.Problem] = []
        self._omitted = 0
        self._warnings: Problems | None = None
        self.budget = suggestions.SearchBudget()

    def add(
        self, code: str, location: Location, message: str, suggestion: str | None = None, *, on_key: bool = False
    ) -> None:
        """Reports a problem; with `on_key` the location is that of the key rather than of its value."""
        if self.full:
            self._omitted += 1
            return
        message = quotes.cut(message, _MAX_MESSAGE)
        if suggestion is not None:
            message = f"{message}; did you mean {quotes.cut(suggestion, _MAX_SUGGESTION)}?"
        path = quotes.path(location)
        problem = errors.Problem(code, path, message, None, None, suggestion, location, on_key)
        if problem not in self._problems:  # what several spaces share is checked for each
            self._problems.append(problem)

    def warn(self, code: str, location: Location, message: str, *, on_key: bool = False) -> None:
        """Reports a warning: the plan is accepted, and its publisher sees the message."""
        if self._warnings is None:
            self._warnings = Problems()
        self._warnings.add(code, location, message, on_key=on_key)

    @property
    def full(self) -> bool:
        """True once further problems are only counted, so that checks can skip the search for a suggestion."""
        return len(self._problems) >= MAX_PROBLEMS

    def has(self, code: str, location: Location) -> bool:
        """True if a problem with this code is reported at this location."""
        return any(problem.code == code and problem.location == location for problem in self._problems)

    def __len__(self) -> int:
        return len(self._problems) + self._omitted

    def collected(self) -> tuple[errors.Problem, ...]:
        """All problems in the order of reporting; the last one gives the number of those that are left out."""
        if not self._omitted:
            return tuple(self._problems)
        more = errors.Problem("too_many_problems", "", f"{self._omitted} more problems are not shown")
        return (*self._problems, more)

    def warnings(self) -> tuple[errors.Problem, ...]:
        """All warnings in the order of reporting."""
        return () if self._warnings is None else self._warnings.collected()

    def within(self, key: str) -> bool:
        """True if a problem inside this key of the plan is reported."""
        return any(problem.location[:1] == (key,) for problem in self._problems)

    def mapping(self, value: object, location: Location, remedy: str = "") -> Mapping[str, object] | None:
        """A mapping; `remedy` says what to write in place of something else."""
        if isinstance(value, Mapping):
            return value
        self._wrong_type(value, location, "a mapping", remedy)
        return None

    def sequence(self, value: object, location: Location, remedy: str = "") -> Sequence[object] | None:
        """A list; `remedy` says what to write in place of something else. A single value belongs in brackets."""
        if isinstance(value, list | tuple):
            return value
        single = isinstance(value, str | int | float) and not remedy
        self._wrong_type(value, location, "a list", f"write [{quotes.brief(value)}]" if single else remedy)
        return None

    def boolean(self, value: object, location: Location) -> bool | None:
        """`true` or `false`."""
        if isinstance(value, bool):
            return value
        self._wrong_type(value, location, "true or false")
        return None

    def integer(self, value: object, location: Location, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, both included; `1.0` is not a whole number."""
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(value, location, "a whole number")
            return None
        if low <= value <= high:
            return value
        self.add("out_of_range", location, f"{quotes.brief(value)} is not between {low} and {high}")
        return None

    def number(self, value: object, location: Location) -> int | float | None:
        """A whole number of at most 64 bits or a float."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, float) or value in canonical.WHOLE:
                return value
            self.add("out_of_range", location, f"{quotes.brief(value)} does not fit 64 bits")
            return None
        self._wrong_type(value, location, "a number")
        return None

    def text(
        self, value: object, location: Location, pattern: re.Pattern[str] | None = None, form: str = ""
    ) -> str | None:
        """A string that matches the pattern, if there is one; `form` describes the pattern in messages."""
        if not isinstance(value, str):
            quoted = " (put it in quotes)" if isinstance(value, bool | int | float) else ""
            self._wrong_type(value, location, f"text{quoted}")
            return None
        if pattern is None or pattern.fullmatch(value):
            return value
        self.add("bad_format", location, f"{quotes.brief(value)} is not {form}")
        return None

    def choice(
        self, value: object, location: Location, choices: Sequence[str], remedies: Remedies = _NONE
    ) -> str | None:
        """One of the choices; `remedies` has the choices that are meant by other words."""
        if isinstance(value, str) and value in choices:
            return value
        message = f"{quotes.brief(value)} is not one of {', '.join(choices)}"
        remedy = remedies.get(value) if isinstance(value, str) else None
        if remedy is not None and " " in remedy:
            self.add("bad_choice", location, f"{message}: {remedy}")
        else:
            nearest = self.nearest(value, choices) if remedy is None and isinstance(value, str) else remedy
            self.add("bad_choice", location, message, nearest)
        return None

    def keys(
        self, mapping: Mapping[str, object], location: Location, known: Iterable[str], remedies: Remedies = _NONE
    ) -> None:
        """Reports every key of the mapping that is not known, with its remedy or the nearest known key."""
        known = tuple(known)
        for key in mapping:
            if key not in known:
                message = "" if self.full else f"unknown key {quotes.brief(key)}{quotes.non_ascii(key)}"
                self.unknown_key((*location, key), message, remedies.get(key), known)

    def unknown_key(self, location: Location, message: str, remedy: str | None, known: Iterable[str] = ()) -> None:
        """Reports an unknown key; a remedy that is a name is suggested, and without one the nearest known key."""
        if remedy is not None and " " in remedy:
            self.add("unknown_key", location, f"{message}: {remedy}", on_key=True)
        else:
            self.add("unknown_key", location, message, remedy or self.nearest(str(location[-1]), known), on_key=True)

    def nearest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name that is most similar, if the search budget allows it; None if messages are no longer shown."""
        return None if self.full else self.budget.nearest(name, known)

    def _wrong_type(self, value: object, location: Location, expected: str, remedy: str = "") -> None:
        hint = f": {remedy}" if remedy else ""
        self.add("wrong_type", location, f"expected {expected}, found {quotes.describe(value)}{hint}")
