"""Sums of single parameters, and their comparisons.

A sum is taken apart here if no order of adding rounds: it is kept in the order of dimensions, with all that is known
already as one number. A comparison is decided as soon as the rest of the sum can't change the answer, and its limit is
moved to the nearest value of the rest: limits between which no value lies leave the same question open.
"""

import ast
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from itertools import product
from typing import Any, Final

from ems_worker.core.language.operators import EXACT, OPERATORS
from ems_worker.core.points.term_operations import Applied
from ems_worker.core.points.terms import Operation, Part, Term, Terms

# The digits of a decimal.
_DIGITS: Final = 34
# The pairs of numbers that are added in all to know the values of sums, a tenth of what is left for each. Of other sums
# only the least and the greatest value are known.
_PAIRS: Final = 200_000
_PLUS: Final = OPERATORS[ast.Add]
_NEGATIVE: Final = OPERATORS[ast.USub]
_COMPARED: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Reach:
    """The values of a number or sum in order: all of them if `complete`, otherwise the least and the greatest.

    No addend, nor any sum of some, is as large as `size`; all are whole multiples of 10 ** `exponent`.
    """

    values: Sequence[int | Decimal]
    size: int
    exponent: int
    complete: bool = True


class Sums:
    """Makes exact sums and their comparisons."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._sum = _Sum()
        self._negated = Applied(_NEGATIVE)
        self._pairs = _PAIRS
        self._comparisons = {kind: _Comparison(compare) for kind, compare in _COMPARED.items()}

    def total(self, plus: Iterable[Part], minus: Iterable[Part] = ()) -> Part | None:
        """The sum of parts, without the sum of others; None if it is not exact."""
        negative = [self._negated.combine(self._terms, (part,)) for part in self._addends(minus)]
        parts = [*self._addends(plus), *negative]
        reaches = [reach for reach in map(_of_part, parts) if reach is not None]
        exponent = min([reach.exponent for reach in reaches], default=0)
        digits = _DIGITS + exponent
        if len(reaches) < len(parts) or digits < 0 or sum([reach.size for reach in reaches]) > 10**digits:
            return None
        number = reduce(_PLUS, [part for part in parts if type(part) is not Term], 0)
        addends = [each for each in zip(parts, reaches, strict=True) if type(each[0]) is Term]
        if not addends:
            return number
        addends.sort(key=lambda each: (each[0].first, each[0].serial))
        total, reach = addends.pop()
        while addends:
            addend, its_reach = addends.pop()
            total, reach = self._terms.term(self._sum, (addend, total)), self._plus(its_reach, reach)
            total.reach = reach
        return self._terms.term(self._sum, (number, total))

    def compared(self, kind: type[ast.cmpop], left: Part, right: Part) -> Part | None:
        """A comparison of exact sums; None if neither side is one."""
        comparison = self._comparisons.get(kind)
        if comparison is None or not (self._is_sum(left) or self._is_sum(right)):
            return None
        total = self.total([left], [right])
        return None if total is None else comparison.combine(self._terms, (total, 0))

    def _addends(self, parts: Iterable[Part]) -> list[Part]:
        """The parts, with the addends of sums in their place."""
        found: list[Part] = []
        waiting = [*parts]
        while waiting:
            part = waiting.pop()
            if self._is_sum(part):
                waiting += part.parts
            else:
                found.append(part)
        return found

    def _plus(self, first: Reach, rest: Reach) -> Reach:
        pairs = len(first.values) * len(rest.values)
        complete = first.complete and rest.complete and pairs <= self._pairs // 10
        if complete:
            self._pairs -= pairs
        columns = [each.values if complete else (each.values[0], each.values[-1]) for each in (first, rest)]
        values = sorted({_PLUS(*pair) for pair in product(*columns)})
        ends = values if complete else [values[0], values[-1]]
        return Reach(ends, first.size + rest.size, min(first.exponent, rest.exponent), complete)

    def _is_sum(self, part: Part) -> bool:
        return type(part) is Term and part.operation is self._sum


class _Sum(Operation):
    """A number or a term of one dimension, plus a term whose first dimension is no earlier, and which may be a sum."""

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        first, rest = parts
        if type(rest) is not Term:
            return _PLUS(first, rest)
        number, rest = _split(rest)
        return terms.term(self, (_PLUS(first, number), rest))

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        return list(map(_PLUS, *columns))


class _Comparison(Operation):
    """A sum, compared with a limit."""

    def __init__(self, compare: Callable[[Any, Any], bool]) -> None:
        self._compare = compare
        # Values that are equal to the limit belong to those below it.
        self._find: Any = bisect_right if compare in (operator.le, operator.gt) else bisect_left

    def combine(self, terms: Terms, parts: Sequence[Part]) -> Part:
        total, limit = parts
        number, total = _split(total)
        limit = _PLUS(limit, _NEGATIVE(number))
        reach: Reach | None = total.reach
        if reach is None:  # of one dimension
            return terms.term(self, (total, limit))
        values = reach.values
        index = self._find(values, limit)
        if self._compare in (operator.eq, operator.ne):
            if index == len(values) or (values[index] != limit and (reach.complete or index == 0)):
                return self._compare(0, 1)
        elif index in (0, len(values)):
            return self._compare(0, index or -1)
        elif reach.complete:
            limit = values[index - (self._find is bisect_right)]
        return terms.term(self, (total, limit))

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        return list(map(self._compare, *columns))


def _split(term: Term) -> tuple[int | Decimal, Term]:
    """The number that a sum begins with, and the rest."""
    if isinstance(term.operation, _Sum) and type(term.parts[0]) is not Term:
        number, term = term.parts
        return number, term
    return 0, term


def _of_part(part: Part) -> Reach | None:
    """The values of a part; None if they are not exact numbers of one dimension."""
    values = part.parts if type(part) is Term else [part]
    if (type(part) is Term and part.operation is not None) or not isinstance(values, list):
        return None
    if not EXACT.issuperset(map(type, values)):
        return None
    found = sorted(set(values))
    # Decimals of plans are finite.
    exponents = [int(value.as_tuple().exponent) for value in found if type(value) is Decimal]
    return Reach(found, 1 + int(max(abs(found[0]), abs(found[-1]))), min([0, *exponents]))
