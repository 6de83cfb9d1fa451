"""What terms do with their parts: functions, logic, choices, and names whose values may be missing."""

from collections.abc import Callable, Sequence
from typing import Any

from ems_worker.core.language import decimals
from ems_worker.core.points import scope
from ems_worker.core.points.names import MISSING, Source
from ems_worker.core.points.terms import FAILED, Operation, Part, Term, Terms


class Applied(Operation):
    """A function of its parts; it has no value where one of them has none."""

    def __init__(self, function: Callable[..., object], cost: int) -> None:
        self.function = function
        self.cost = cost

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        if FAILED in parts:
            return FAILED
        if MISSING in parts:
            return MISSING
        if Term in map(type, parts):
            return terms.term(self, parts)
        try:
            return self.function(*parts)
        except decimals.NO_VALUE:
            return FAILED

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        try:
            return list(map(self.function, *columns))
        except decimals.NO_VALUE:
            return None


class Logic(Operation):
    """`or` if true is decisive, `and` if false is: the first part that decides, otherwise the last one."""

    def __init__(self, *, decisive: bool) -> None:
        self._decisive = decisive

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        kept: list[Part] = []
        for index, part in enumerate(parts):
            if type(part) is Term:
                kept.append(part)
            elif part is FAILED or part is MISSING or bool(part) is self._decisive or index == len(parts) - 1:
                kept.append(part)
                break  # what follows doesn't matter
        return kept[0] if len(kept) == 1 else terms.term(self, tuple(kept))


class Choice(Operation):
    """A test, the value if it holds, and the value if it doesn't."""

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        test, body, other = parts
        if type(test) is Term:
            return terms.term(self, parts)
        return test if test is FAILED or test is MISSING else body if test else other


class Inside(Operation):
    """What a path leads to in a parameter's value; the other value if the parameter is left out."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.cost = 1 + source.weight // 10

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        value, other = parts
        if type(value) is Term:
            return terms.term(self, parts)
        return other if value is MISSING else FAILED if value is FAILED else scope.inside(value, self._source.rest, self._source.below)


class Named(Operation):
    """Names, and the value of an expression that uses them. Where one of them has no value, `if_missing` is it."""

    def __init__(self, *, if_missing: object) -> None:
        self._if_missing = if_missing

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        *names, value = parts
        if FAILED in names:
            return FAILED
        if MISSING in names:
            value = self._if_missing
        names = [name for name in names if type(name) is Term]
        return terms.term(self, (*names, value)) if names else value


class Rule(Operation):
    """Whether combinations are points. Where there is no answer, they are, and `failed` tells."""

    def __init__(self) -> None:
        self.failed = False

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        (answer,) = parts
        if type(answer) is Term:
            return terms.term(self, parts)
        if type(answer) is bool:
            return answer
        self.failed = True
        return True

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        (answers,) = columns
        return answers if {*map(type, answers)} == {bool} else None


class Fails(Operation):
    """Whether an expression has no value; that of a condition is true or false."""

    def __init__(self, *, is_condition: bool) -> None:
        self._is_condition = is_condition

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        (value,) = parts
        if type(value) is Term:
            return terms.term(self, parts)
        return type(value) is not bool if self._is_condition else value is FAILED


def has_value(part: Part) -> bool:
    """Whether it is sure that a part has a value."""
    if type(part) is Term:
        return part.operation is None and not part.partial
    return part is not MISSING and part is not FAILED
