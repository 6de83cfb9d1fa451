"""Terms: expressions over the digits of dimensions, and what is left of them once some of the digits are known.

The column of a term has, for each digit of its first dimension, what is left of the term: a value if it needs no other
digit, otherwise a smaller term. What known values decide is computed at once, and equal terms are one object: this
shows where different digits leave the same question open.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import compress, repeat
from typing import Any, Final

from ems_worker.core.points.names import MISSING
from ems_worker.core.points.work_limits import Work

# A term or a value. MISSING and FAILED are values.
Part = Any
# Terms of a single dimension of at most this size are evaluated when they are made.
_SMALL: Final = 1024
# The digits that are taken at once.
_BLOCK: Final = 16
# The values in columns and evaluated terms that are kept to be used again.
_KEPT: Final = 200_000
_BITS: Final = [1 << digit for digit in range(_SMALL)]
_SCALARS: Final = frozenset({bool, int, float, Decimal, str, type(None)})


class Failed:
    """The value of an expression that has none."""


FAILED: Final = Failed()


class Operation(ABC):
    """What a term does with its parts, in `cost` steps."""

    cost = 1

    @abstractmethod
    def combine(self, terms: "Terms", parts: Sequence[Part]) -> Part:
        """The value if these parts decide it, otherwise a term."""

    def at_once(self, columns: Sequence[Any]) -> list[Part] | None:
        """The values for columns of values, none of which is MISSING or FAILED; None: they are combined one by one."""
        return None


class Term:
    """An operation on parts; without an operation, the parts are the values at the digits of a dimension.

    `first` and `last` are its first and last dimension. `partial`: MISSING or FAILED may be among its values. `serial`
    orders terms by their creation. `weight` is the largest number of values inside one of its values. `reach` has
    the values of a sum, if they are known.
    """

    __slots__ = ("first", "last", "operation", "partial", "parts", "reach", "serial", "weight")

    def __init__(self, operation: Operation | None, parts: Any, span: tuple[int, int], serial: int) -> None:
        self.operation = operation
        self.parts = parts
        self.first, self.last = span
        self.serial = serial
        self.partial = operation is not None
        self.weight = 0
        self.reach: Any = None


class Terms:
    """Makes terms and their columns. `sizes` are those of the dimensions.

    Terms of one dimension, unless that is large, are evaluated at once: they have values and no operation.
    """

    def __init__(self, sizes: Sequence[int], work: Work) -> None:
        self._sizes = sizes
        self._work = work
        self._serial = self._kept = 0
        self._block = range(0)
        self._shared: dict[object, Term] = {}
        self._evaluated: dict[object, Term] = {}
        self._columns: dict[Term, list[Part]] = {}

    def leaf(self, dimension: int, values: Sequence[Part], *, partial: bool = False) -> Term:
        """The values at the digits of a dimension."""
        if self.is_small(dimension):
            self._work.spend(self._sizes[dimension])
            values = list(values[: self._sizes[dimension]])
        self._serial += 1
        term = Term(None, values, (dimension, dimension), self._serial)
        term.partial = partial
        return term

    def term(self, operation: Operation, parts: Sequence[Part]) -> Term:
        """An operation on parts, at least one of which is a term."""
        first, last = len(self._sizes), -1
        keys: list[object] = [operation]
        for part in parts:
            kind = type(part)
            if kind is Term:
                first, last = min(first, part.first), max(last, part.last)
                keys.append(part)
            else:  # 1, 1.0 and true are not equal
                keys.append((kind, part) if kind in _SCALARS else id(part))
        key = tuple(keys)
        is_single = first == last and self.is_small(first)
        table = self._evaluated if is_single else self._shared
        term = table.get(key)
        if term is None:
            self._work.spend(5 + len(parts))
            if is_single:
                term = self._evaluate(operation, parts, first)
            else:
                self._serial += 1
                self._work.keep(_size(parts))
                term = Term(operation, parts, (first, last), self._serial)
            table[key] = term
        return term

    def is_small(self, dimension: int) -> bool:
        """Whether all digits of a dimension are taken at once."""
        return self._sizes[dimension] <= _SMALL

    def blocks(self, dimension: int) -> Iterator[range]:
        """Begins with a dimension, and with each block of its digits."""
        # Of the terms that earlier dimensions left, only those are needed that are in use.
        self._work.keep(-sum([_size(term.parts) for term in self._shared.values()]))
        self._shared.clear()
        for start in range(0, self._sizes[dimension], _BLOCK):
            self._block = range(start, min(start + _BLOCK, self._sizes[dimension]))
            self._columns.clear()
            yield self._block

    def column(self, term: Term) -> list[Part]:
        """What is left of a term at the digits of the block, which are those of its first dimension."""
        if self._kept > _KEPT:
            self._columns.clear()
            self._evaluated.clear()
            self._kept = 0
        columns, waiting = self._columns, [term]
        while term not in columns:
            made = waiting[-1]
            inner: list[Term] = []
            if made.operation is not None:
                inner = [part for part in made.parts if type(part) is Term and part.first == made.first]
                inner = [part for part in inner if part not in columns]
            if inner:
                waiting += inner
            else:
                columns[made] = self._made(made)
                waiting.pop()
        return columns[term]

    def mask(self, term: Term) -> int:
        """The digits at which a term is true, as bits. It is the term of a small dimension, with truth values."""
        return sum(compress(_BITS, term.parts))

    def _made(self, term: Term) -> list[Part]:
        operation, size = term.operation, len(self._block)
        self._kept += size
        if operation is None:
            self._work.spend(size)
            return list(term.parts[self._block.start : self._block.stop])
        self._work.spend(10 + size * (operation.cost + len(term.parts)))
        columns = [
            self._columns[part] if type(part) is Term and part.first == term.first else repeat(part)
            for part in term.parts
        ]
        return [operation.combine(self, parts) for parts in zip(*columns, strict=False)]

    def _evaluate(self, operation: Operation, parts: Sequence[Part], dimension: int) -> Term:
        """An operation on parts of a single dimension, which is small."""
        size = self._sizes[dimension]
        self._work.spend(size * operation.cost)
        self._kept += size
        columns: list[Any] = [part.parts if type(part) is Term else repeat(part) for part in parts]
        column = None
        if not any(type(part) is Term and part.partial for part in parts):
            column = operation.at_once(columns)
        is_partial = column is None
        if column is None:
            column = [operation.combine(self, each) for each in zip(*columns, strict=False)]
            is_partial = FAILED in column or MISSING in column
        self._serial += 1
        term = Term(None, column, (dimension, dimension), self._serial)
        term.partial = is_partial
        return term


def _size(parts: Sequence[Part]) -> int:
    """The parts of memory that a term takes, with its key."""
    return len(parts) + 6


def dimensions(parts: Sequence[Part]) -> set[int]:
    """The dimensions whose digits terms need."""
    waiting = [part for part in parts if type(part) is Term]
    seen = set(waiting)
    reached = set()
    while waiting:
        term = waiting.pop()
        if term.operation is None:
            reached.add(term.first)
            continue
        inner = {part for part in term.parts if type(part) is Term} - seen
        seen |= inner
        waiting += inner
    return reached
