"""What terms do with their parts: functions, logic, choices, and names whose values may be missing."""

from collections.abc import Callable, Sequence
from typing import Any

from ems_worker.core.language import decimals
from ems_worker.core.points.names import MISSING
from ems_worker.core.points.terms import FAILED, Operation, Part, Term, Terms


class Applied(Operation):
    """A function of its parts; it has no value where one of them has none."""

    def __init__(self, function: Callable[..., object], cost: int = 2) -> None:
        self._function = function
        self.cost = cost

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        if FAILED in parts:
            return FAILED
        if MISSING in parts:
            return MISSING
        if Term in map(type, parts):
            return terms.term(self, parts)
        try:
            return self._function(*parts)
        except decimals.NO_VALUE:
            return FAILED

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        try:
            return list(map(self._function, *columns))
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


class Decided(Operation):
    """A function of its first part, once that is known, and of the others, which may not be."""

    def __init__(self, function: Callable[..., Part], cost: int = 1) -> None:
        self._function = function
        self.cost = cost

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        return terms.term(self, parts) if type(parts[0]) is Term else self._function(*parts)


class Rule(Decided):
    """Whether combinations are points. Where there is no answer, they are, and `failed` tells."""

    def __init__(self) -> None:
        super().__init__(self._judged)
        self.failed = False

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        (answers,) = columns
        return answers if {*map(type, answers)} == {bool} else None

    def _judged(self, answer: Part) -> bool:
        self.failed |= type(answer) is not bool
        return answer is not False
