"""The functions of expressions.

Those that choose, round or count keep numbers exact; the others give floats.
"""

import functools
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from ems_worker.core import canonical
from ems_worker.core.language import decimals, operators, quotes
from ems_worker.core.language.decimals import ExpressionError

_MAX_DIGITS: Final = 15


def _function(name: str, calculate: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*given: Any) -> Any:
        try:
            return decimals.limited(calculate(*given))
        except TypeError as error:
            arguments = " and ".join(map(quotes.describe, given)) or "nothing"
            raise ExpressionError(f"{name} can't be calculated from {arguments}") from error

    return apply


def _float(value: Any) -> Any:
    if isinstance(value, int | Decimal):
        return Decimal(value)
    return decimals.comparable(decimals.limited(float(value))) if isinstance(value, str) else float(value)


def _log(value: Any, base: Any = None) -> float:
    return math.log(value) if base is None else math.log(value, base)


def _max(*given: Any) -> Any:
    return max(*given, key=_comparable(given))


def _min(*given: Any) -> Any:
    return min(*given, key=_comparable(given))


def _comparable(given: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    """What arguments are compared by; floats are never inside lists."""
    return decimals.comparable if float in map(type, given) else None


def _round(value: Any, digits: Any = None) -> Any:
    if digits is None:
        return round(value)
    if type(digits) is not int or not -_MAX_DIGITS <= digits <= _MAX_DIGITS:
        raise ExpressionError(f"round takes -{_MAX_DIGITS} to {_MAX_DIGITS} digits, not {quotes.describe(digits)}")
    # Without the limit this would compute a huge power of ten.
    return decimals.rounded(value, digits) if isinstance(value, Decimal) else round(value, digits)


def _sum(given: Any, start: Any = 0) -> Any:
    if not isinstance(given, list) or type(start) not in operators.NUMBERS:
        raise ExpressionError("sum takes a list of numbers")
    kinds = {type(start), *map(type, given)} - {bool}
    if kinds == {int}:
        return sum(given, start)
    return functools.reduce(decimals.add if kinds <= operators.EXACT else operators.plus, given, start)


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        raise ExpressionError(f"{quotes.describe(value)} has no text")
    if value is None or isinstance(value, bool):
        return canonical.text(value)
    return value if isinstance(value, str) else str(decimals.limited(decimals.leaving(value)))


_CALCULATED: Final[dict[str, Callable[..., Any]]] = {
    "abs": lambda value: value.copy_abs() if isinstance(value, Decimal) else abs(value),
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "float": _float,
    "floor": math.floor,
    "int": int,
    "len": len,
    "log": _log,
    "log10": math.log10,
    "log2": math.log2,
    "max": _max,
    "min": _min,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "str": _text,
    "sum": _sum,
    "tan": math.tan,
}
FUNCTIONS: Final = {name: _function(name, calculate) for name, calculate in _CALCULATED.items()}
