"""What expressions calculate: operators, functions, and an expression as a function of the values of its names.

Numbers and texts have a maximum size, so that no operation takes much time or memory.
"""

import ast
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from ems_worker.core import canonical
from ems_worker.core.language import quotes

Evaluate = Callable[[Sequence[canonical.JSON]], Any]

_MAX_TEXT: Final = 1000
_MAX_BITS: Final = 256
_MAX_DIGITS: Final = 15
# What an evaluation raises if there is no value.
NO_VALUE: Final = (ArithmeticError, TypeError, ValueError)


class ExpressionError(ValueError):
    """An expression can't be read, or has no value for some parameters; the text gives the reason."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        self.suggestion = suggestion
        super().__init__(message)


def slot(number: int) -> str:
    """The name that stands for a name of an expression in its syntax tree, by the number of the name."""
    return f"v{number}"


def number(name: ast.Name) -> int:
    """The number of the name for which this one stands."""
    return int(name.id[1:])


def compiled(node: ast.expr, *, tolerant: bool = False) -> Evaluate:
    """The function that evaluates a checked expression; what it raises is in NO_VALUE.

    If `tolerant`, an operand of `and` or `or` that has no value doesn't matter where another operand decides.
    """

    def inner(part: ast.expr) -> Evaluate:
        return compiled(part, tolerant=tolerant)

    match node:
        case ast.Constant(value=value):
            return lambda values: value
        case ast.Name():
            return operator.itemgetter(number(node))
        case ast.List() | ast.Tuple():
            literal = ast.literal_eval(node)
            return lambda values: literal
        case ast.UnaryOp():
            return _applied(OPERATORS[type(node.op)], [inner(node.operand)])
        case ast.BinOp():
            return _applied(OPERATORS[type(node.op)], [inner(node.left), inner(node.right)])
        case ast.Compare():
            operands = [inner(part) for part in (node.left, *node.comparators)]
            return _compared([OPERATORS[type(each)] for each in node.ops], operands)
        case ast.BoolOp():
            decide = _decided if tolerant else _first
            return decide(isinstance(node.op, ast.Or), [inner(part) for part in node.values])
        case ast.IfExp():
            test, body, other = inner(node.test), inner(node.body), inner(node.orelse)
            return lambda values: body(values) if test(values) else other(values)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return _applied(_LIMITED[node.func.id], [inner(part) for part in node.args])


def _applied(apply: Callable[..., Any], operands: Sequence[Evaluate]) -> Evaluate:
    match operands:
        case [one]:
            return lambda values: apply(one(values))
        case [left, right]:
            return lambda values: apply(left(values), right(values))
    return lambda values: apply(*[operand(values) for operand in operands])


def _compared(comparisons: Sequence[Callable[[Any, Any], Any]], operands: Sequence[Evaluate]) -> Evaluate:
    """A chain of comparisons; it ends at the first that is false."""
    if len(comparisons) == 1:
        return _applied(comparisons[0], operands)

    def evaluate(values: Sequence[canonical.JSON]) -> Any:
        left = operands[0](values)
        for compare, operand in zip(comparisons, operands[1:], strict=True):
            right = operand(values)
            if not compare(left, right):
                return False
            left = right
        return True

    return evaluate


def _first(decisive: bool, operands: Sequence[Evaluate]) -> Evaluate:
    """`or` or `and`: the value of the first operand that decides, else of the last one."""

    def evaluate(values: Sequence[canonical.JSON]) -> Any:
        value = None
        for operand in operands:
            value = operand(values)
            if bool(value) is decisive:
                break
        return value

    return evaluate


def _decided(decisive: bool, operands: Sequence[Evaluate]) -> Evaluate:
    """As `_first`; an operand without a value raises only if no other operand decides."""

    def evaluate(values: Sequence[canonical.JSON]) -> Any:
        value = failure = None
        for operand in operands:
            try:
                value = operand(values)
            except NO_VALUE as error:
                failure = error
            else:
                if bool(value) is decisive:
                    return value
        if failure is not None:
            raise failure
        return value

    return evaluate


def limited(value: Any) -> Any:
    """The value. Raises ExpressionError if it is not a real, finite number, or is too large."""
    if isinstance(value, complex):
        raise ExpressionError("it has no real value")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ExpressionError("a number in it grows too large")
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionError("a number in it is not finite")
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise ExpressionError("a text in it grows too long")
    return value


def _arithmetic(calculate: Callable[[Any, Any], Any], sign: str) -> Callable[[Any, Any], Any]:
    def apply(a: object, b: object) -> object:
        if not (type(a) in (int, float) and type(b) in (int, float)):
            raise ExpressionError(f"{quotes.describe(a)} {sign} {quotes.describe(b)} can't be calculated")
        return limited(calculate(a, b))

    return apply


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, str) and isinstance(b, str):
        return limited(a + b)
    return _plus(a, b)


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() * b > _MAX_BITS:
        raise ExpressionError("a number in it grows too large")
    return a**b


def _within(a: Any, b: Any) -> bool:
    if not isinstance(b, list | tuple | str):
        raise ExpressionError(f"'in' needs a list or a text, not {quotes.describe(b)}")
    return a in b


_plus: Final = _arithmetic(operator.add, "+")
OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: _add,
    ast.Sub: _arithmetic(operator.sub, "-"),
    ast.Mult: _arithmetic(operator.mul, "*"),
    ast.Div: _arithmetic(operator.truediv, "/"),
    ast.FloorDiv: _arithmetic(operator.floordiv, "//"),
    ast.Mod: _arithmetic(operator.mod, "%"),
    ast.Pow: _arithmetic(_power, "**"),
    ast.Not: operator.not_,
    ast.USub: lambda a: _arithmetic(operator.mul, "*")(a, -1),
    ast.UAdd: lambda a: _arithmetic(operator.mul, "*")(a, 1),
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _within,
    ast.NotIn: lambda a, b: not _within(a, b),
}


def _function(calculate: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: limited(calculate(*given))


def _log(value: float, base: float = math.e) -> float:
    return math.log(value) if base == math.e else math.log(value, base)


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is None:
        return round(value)
    if type(digits) is not int or not -_MAX_DIGITS <= digits <= _MAX_DIGITS:
        raise ExpressionError(f"round takes -{_MAX_DIGITS} to {_MAX_DIGITS} digits, not {quotes.describe(digits)}")
    return round(value, digits)  # without the limit this would compute a huge power of ten


def _sum(values: Any, start: Any = 0) -> Any:
    if not isinstance(values, list | tuple) or type(start) not in (int, float):
        raise ExpressionError("sum takes a list of numbers")
    return sum(values, start)


def _text(value: object) -> str:
    if isinstance(value, list | dict):
        raise ExpressionError(f"{quotes.describe(value)} has no text")
    return canonical.text(value) if value is None or isinstance(value, bool) else str(value)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "float": float,
    "floor": math.floor,
    "int": int,
    "len": len,
    "log": _log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "str": _text,
    "sum": _sum,
    "tan": math.tan,
}
_LIMITED: Final = {name: _function(calculate) for name, calculate in FUNCTIONS.items()}
