"""The operators of expressions. Numbers and texts have a maximum size, so that none takes much time or memory."""

import ast
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from ems_worker.core.language import decimals, quotes

EXACT: Final = frozenset({int, Decimal})
NUMBERS: Final = frozenset({int, Decimal, float})


def _refuse(a: Any, sign: str, b: Any) -> Any:
    raise decimals.ExpressionError(f"{quotes.describe(a)} {sign} {quotes.describe(b)} can't be calculated")


def _joined(a: Any, sign: str, b: Any) -> Any:
    return decimals.limited(a + b) if isinstance(a, str) and isinstance(b, str) else _refuse(a, sign, b)


def _arithmetic(
    sign: str,
    whole: Callable[[int, int], Any],
    exact: Callable[[int | Decimal, int | Decimal], Any],
    real: Callable[[float, float], Any],
    *,
    otherwise: Callable[[Any, str, Any], Any] = _refuse,
) -> Callable[[Any, Any], Any]:
    """An operator: `whole` for two whole numbers, `real` if one of two numbers is a float, else `exact`."""

    def apply(a: Any, b: Any) -> Any:
        left, right = type(a), type(b)
        if left is int and right is int:
            return decimals.limited(whole(a, b))
        if left in EXACT and right in EXACT:
            return exact(a, b)
        if left in NUMBERS and right in NUMBERS:
            return decimals.limited(real(float(a), float(b)))
        return otherwise(a, sign, b)

    return apply


def _signed(sign: str, apply: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def evaluate(a: Any) -> Any:
        if type(a) not in NUMBERS:
            raise decimals.ExpressionError(f"{sign} {quotes.describe(a)} can't be calculated")
        return apply(a)

    return evaluate


def _comparison(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def apply(a: Any, b: Any) -> bool:
        if type(a) is float or type(b) is float:
            a, b = decimals.comparable(a), decimals.comparable(b)
        try:
            return compare(a, b)
        except TypeError as error:
            message = f"{quotes.describe(a)} can't be compared with {quotes.describe(b)}"
            raise decimals.ExpressionError(message) from error

    return apply


def _within(a: Any, b: Any) -> bool:
    if isinstance(b, str) and not isinstance(a, str):
        raise decimals.ExpressionError(f"a text contains only texts, not {quotes.describe(a)}")
    if not isinstance(b, list | str):
        raise decimals.ExpressionError(f"'in' needs a list or a text, not {quotes.describe(b)}")
    return decimals.comparable(a) in b


plus: Final = _arithmetic("+", operator.add, decimals.add, operator.add, otherwise=_joined)
OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: plus,
    ast.Sub: _arithmetic("-", operator.sub, decimals.subtract, operator.sub),
    ast.Mult: _arithmetic("*", operator.mul, decimals.multiply, operator.mul),
    ast.Div: _arithmetic("/", decimals.divide, decimals.divide, operator.truediv),
    ast.FloorDiv: _arithmetic("//", operator.floordiv, decimals.floor_divide, operator.floordiv),
    ast.Mod: _arithmetic("%", operator.mod, decimals.modulo, operator.mod),
    ast.Pow: _arithmetic("**", decimals.whole_power, decimals.power, decimals.real_power),
    ast.Not: operator.not_,
    ast.USub: _signed("-", lambda a: a.copy_negate() if type(a) is Decimal else -a),
    ast.UAdd: _signed("+", lambda a: a),
    ast.Eq: _comparison(operator.eq),
    ast.NotEq: _comparison(operator.ne),
    ast.Lt: _comparison(operator.lt),
    ast.LtE: _comparison(operator.le),
    ast.Gt: _comparison(operator.gt),
    ast.GtE: _comparison(operator.ge),
    ast.In: _within,
    ast.NotIn: lambda a, b: not _within(a, b),
}
