"""The values of expressions: numbers as the decimals that a plan writes, and the maximum size of each value.

Whole numbers are ints. Any other number of a plan is a Decimal, and is calculated with 34 digits. Floats only come from
functions such as `sin`, and from calculating with what came from them.
"""

import decimal
import functools
import math
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, Final, TypeAlias, TypeVar

from ems_worker.core import canonical

JSON = canonical.JSON
T = TypeVar("T")
Number = int | Decimal | float
# A value as expressions calculate with it.
Operand: TypeAlias = bool | int | Decimal | float | str | list["Operand"] | dict[str, "Operand"] | None

_MAX_TEXT: Final = 1000
_MAX_BITS: Final = 256
# What an evaluation raises if there is no value.
NO_VALUE: Final = (ArithmeticError, TypeError, ValueError)

# Every setting of a context is given: what is left out would come from the program's default context.
_TRAPS: Final = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
# decimal128 of IEEE 754.
_CONTEXT: Final = Context(34, decimal.ROUND_HALF_EVEN, -6143, 6144, capitals=1, clamp=0, flags=[], traps=_TRAPS)
# Whole quotients and remainders of any two such numbers have fewer digits than this.
_WIDE: Final = Context(20_000, decimal.ROUND_HALF_EVEN, -20_000, 20_000, capitals=1, clamp=0, flags=[], traps=_TRAPS)

add: Final[Callable[[int | Decimal, int | Decimal], Decimal]] = _CONTEXT.add
subtract: Final[Callable[[int | Decimal, int | Decimal], Decimal]] = _CONTEXT.subtract
multiply: Final[Callable[[int | Decimal, int | Decimal], Decimal]] = _CONTEXT.multiply
divide: Final[Callable[[int | Decimal, int | Decimal], Decimal]] = _CONTEXT.divide


class ExpressionError(ValueError):
    """An expression can't be read, or has no value for some parameters; the text gives the reason."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        self.suggestion = suggestion
        super().__init__(message)


def exact(value: JSON) -> Operand:
    """A value of a plan as expressions calculate with it, with the numbers inside lists and mappings."""
    if type(value) is float:
        return _written(value)
    if type(value) is list:
        return [exact(item) for item in value]
    if type(value) is dict:
        return {key: exact(item) for key, item in value.items()}
    return value  # type: ignore[return-value]  # only a list or mapping of JSON is none of operands


def comparable(value: Any) -> Any:
    """What stands for a value in comparisons: for a float its shortest decimal."""
    return _written(value) if type(value) is float else value


def leaving(value: Number) -> int | float:
    """A number as points have it: a decimal is the nearest float, which may be infinite, and -0 is 0."""
    return value if isinstance(value, int) else float(value) + 0.0


@functools.lru_cache(maxsize=4096)
def _written(value: float) -> Decimal:
    return Decimal(repr(value + 0.0))  # 0.0 for -0.0, which is the same key of the cache


def floor_divide(a: int | Decimal, b: int | Decimal) -> Decimal:
    """The whole quotient, rounded down."""
    return _CONTEXT.plus(_floored(a, b)[0])


def modulo(a: int | Decimal, b: int | Decimal) -> Decimal:
    """The remainder of a whole quotient that is rounded down; it has the sign of the divisor."""
    return _CONTEXT.plus(_floored(a, b)[1])


def _floored(a: int | Decimal, b: int | Decimal) -> tuple[Decimal, Decimal]:
    quotient, remainder = _WIDE.divmod(a, b)
    if remainder and (remainder < 0) != (b < 0):
        return _WIDE.subtract(quotient, 1), _WIDE.add(remainder, b)
    return quotient, remainder


def whole_power(a: int, b: int) -> Number:
    """A power of whole numbers; a decimal if the exponent is negative."""
    if b < 0:
        return power(a, b)
    if abs(a) > 1 and a.bit_length() * b > _MAX_BITS:
        raise ExpressionError("a number in it grows too large")
    return int(a**b)


def power(a: int | Decimal, b: int | Decimal) -> Decimal | float:
    """A power; a float if the exponent is not whole."""
    exponent = limited(int(b))
    if exponent != b:
        return real_power(float(a), float(b))
    if exponent == 0:
        return Decimal(1)
    if exponent < 0 and not a:
        raise ZeroDivisionError
    return _CONTEXT.power(a, exponent)


def real_power(a: float, b: float) -> float:
    """A power of floats."""
    result: float | complex = a**b
    if isinstance(result, complex):
        raise ExpressionError("it has no real value")
    return limited(result)


def rounded(value: Decimal, digits: int) -> Decimal:
    """Rounded to a number of decimal places, half to even."""
    return value.quantize(Decimal((0, (1,), -digits)), context=_WIDE)


def limited(value: T) -> T:
    """The value. Raises ExpressionError if it is a number that is not finite, or is too large."""
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise ExpressionError("a number in it grows too large")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ExpressionError("a number in it is not finite")
    elif isinstance(value, str) and len(value) > _MAX_TEXT:
        raise ExpressionError("a text in it grows too long")
    return value


def reason(error: Exception) -> str:
    """Why an evaluation raised one of NO_VALUE."""
    if isinstance(error, decimal.Overflow):
        return "a number in it grows too large"
    if isinstance(error, ZeroDivisionError | decimal.InvalidOperation):
        return "it has no value: division by zero"
    return f"it has no value: {error}" if isinstance(error, ArithmeticError) else str(error)
