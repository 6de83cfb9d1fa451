"""Sums of numbers whose possible values are known, and their comparisons.

Such a sum is exact: its order doesn't matter, so that it is kept in the order of dimensions, with all that is known
already as one number. A comparison of a sum is decided as soon as the rest of it can't change the answer, and its limit
is moved to the nearest number that the rest can have: limits between which nothing lies leave the same question open.
"""

import ast
import functools
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any, Final

from ems_worker.core.language.functions import FUNCTIONS
from ems_worker.core.language.operators import EXACT, OPERATORS
from ems_worker.core.points.term_operations import Applied, has_value
from ems_worker.core.points.terms import Operation, Part, Term, Terms

# The digits of a decimal.
_DIGITS: Final = 34
# The pairs of numbers that are added to know all values of a sum; of longer ones only the least and the greatest.
_MAX_PAIRS: Final = 10_000
_PLUS: Final = OPERATORS[ast.Add]
_NEGATIVE: Final = OPERATORS[ast.USub]
_TIMES: Final = OPERATORS[ast.Mult]
_INT: Final = FUNCTIONS["int"]
_EQUALS: Final = frozenset({OPERATORS[ast.Eq], OPERATORS[ast.NotEq]})
_ORDERS: Final = frozenset({OPERATORS[each] for each in (ast.Lt, ast.LtE, ast.Gt, ast.GtE)})


@dataclass(frozen=True, slots=True)
class Reach:
    """The numbers that a part may be, in order: all of them if `complete`, otherwise the least and the greatest.

    None is larger than `size`, without its sign, nor is any sum of its addends; all are multiples of 10 ** `exponent`.
    """

    values: Sequence[int | Decimal]
    size: int | Decimal
    exponent: int
    complete: bool = True

    @property
    def exact(self) -> bool:
        """Whether all of them are decimals without rounding."""
        return self.exponent >= -_DIGITS and self.size < 10 ** (_DIGITS + self.exponent)


class Sum(Operation):
    """The sum of two parts: a number or a term, and a term whose first dimension is no earlier; it may be a sum."""

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        first, rest = parts
        if type(first) is Term:
            return self.of(terms, parts)
        if type(rest) is not Term:
            return _PLUS(first, rest)
        number, rest = self.split(rest)
        return terms.term(self, (_PLUS(first, number), rest))

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        return list(map(_PLUS, *columns))

    def of(self, terms: Terms, parts: Iterable[Part]) -> Part:
        """The sum of any parts."""
        number: int | Decimal = 0
        addends: list[Term] = []
        for part in self.addends(parts):
            if type(part) is Term:
                addends.append(part)
            else:
                number = _PLUS(number, part)
        addends.sort(key=lambda term: (term.first, term.serial))
        if not addends:
            return number
        total = addends.pop()
        while addends:
            total = terms.term(self, (addends.pop(), total))
            reach(total)  # from the last on, so that none is found by a deep recursion
        return total if type(number) is int and number == 0 else terms.term(self, (number, total))

    def addends(self, parts: Iterable[Part]) -> Iterable[Part]:
        """The parts, with the addends of those that are sums in their place."""
        waiting = [*parts]
        while waiting:
            part = waiting.pop()
            if type(part) is Term and part.operation is self:
                waiting += part.parts
            else:
                yield part

    def split(self, term: Term) -> tuple[int | Decimal, Term]:
        """The number that a sum begins with, and the rest."""
        if term.operation is self and type(term.parts[0]) is not Term:
            number, term = term.parts
            return number, term
        return 0, term


class Comparison(Operation):
    """A sum, compared with a limit."""

    def __init__(self, sum_: Sum, compare: Callable[[Any, Any], bool]) -> None:
        self._sum = sum_
        self._compare = compare
        # Numbers that are equal to the limit belong to those below it.
        self._find: Any = bisect_right if compare in (operator.le, operator.gt) else bisect_left

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        total, limit = parts
        if type(total) is not Term:
            return self._compare(total, limit)
        number, total = self._sum.split(total)
        limit = _PLUS(limit, _NEGATIVE(number))
        known = reach(total)
        if known is not None:
            values = known.values
            index = self._find(values, limit)
            if self._compare in (operator.eq, operator.ne):
                if index == len(values) or (values[index] != limit and (known.complete or index == 0)):
                    return self._compare(0, 1)
            elif index in (0, len(values)):
                return self._compare(0, index or -1)
            elif known.complete:
                limit = values[index - (self._find is bisect_right)]
        return terms.term(self, (total, limit))

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        return list(map(self._compare, *columns))


def reach(part: Part) -> Reach | None:
    """What a part may be; None if that is not known, or if it is no number."""
    if type(part) is not Term:
        return _of_values([part])
    if part.reach is None:
        part.reach = (_find(part),)
    found: Reach | None = part.reach[0]
    return found


def exact(reaches: Sequence[Reach | None]) -> bool:
    """Whether numbers of such reaches have an exact sum, in whatever order they are added."""
    known = [each for each in reaches if each is not None]
    size = functools.reduce(_PLUS, [each.size for each in known], 0)
    return len(known) == len(reaches) and Reach((), size, min([each.exponent for each in known])).exact


def _find(term: Term) -> Reach | None:
    operation = term.operation
    if operation is None:
        return _of_values(term.parts) if isinstance(term.parts, list) else None
    if isinstance(operation, Applied) and operation.function is _INT:
        return _of_values([0, 1]) if _is_truth(term.parts[0]) else None
    if isinstance(operation, Sum) or (isinstance(operation, Applied) and operation.function in (_NEGATIVE, _TIMES)):
        inner = [reach(part) for part in term.parts]
        known = [each for each in inner if each is not None]
        if len(known) == len(inner):
            return _calculated(_PLUS if isinstance(operation, Sum) else operation.function, known)
    return None


def _calculated(function: Callable[..., Any], inner: Sequence[Reach]) -> Reach | None:
    """What the sum, the product or the negative value of such numbers may be."""
    exponents = [each.exponent for each in inner]
    if function is _PLUS:
        size, exponent = _PLUS(inner[0].size, inner[1].size), min(exponents)
    else:
        size, exponent = function(*[each.size for each in inner]), sum(exponents)
    complete = all(each.complete for each in inner)
    columns = [each.values for each in inner]
    if len(columns) == 2 and len(columns[0]) * len(columns[1]) > _MAX_PAIRS:
        complete, columns = False, [[each[0], each[-1]] for each in columns]
    values = sorted({function(*each) for each in product(*columns)})
    found = Reach(values if complete else [values[0], values[-1]], abs(size), exponent, complete)
    return found if found.exact else None


def _of_values(values: Sequence[Part]) -> Reach | None:
    if not EXACT.issuperset(map(type, values)):
        return None
    found = sorted(set(values))
    # Decimals here are finite.
    exponents = [int(value.as_tuple().exponent) for value in found if type(value) is Decimal]
    known = Reach(found, max(abs(found[0]), abs(found[-1])), min([0, *exponents]))
    return known if known.exact else None


def _is_truth(part: Part) -> bool:
    """Whether it is sure that a part is true or false, and has a value."""
    if type(part) is not Term:
        return isinstance(part, bool)
    match part.operation:
        case None:
            return {*map(type, part.parts)} == {bool}
        case Applied(function=function) if function in _EQUALS:
            return all(has_value(inner) or reach(inner) is not None for inner in part.parts)
        case Applied(function=function) if function in _ORDERS:
            return all(reach(inner) is not None for inner in part.parts)
    return isinstance(part.operation, Comparison)
