"""Expressions of plans: arithmetic, comparisons and logic over parameters.

They look like Python, but Python never runs them. The text is split into tokens here: a dotted path is one name, and
anything that is not a name, a literal, an operator or a known function is an error before simpleeval evaluates the
rest. Numbers, texts and lists have a maximum size, so that no expression takes much time or memory.
"""

import ast
import functools
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import simpleeval

from ems_worker.core import canonical
from ems_worker.core.language import quotes, suggestions

JSON = canonical.JSON

MAX_LENGTH: Final = 1000
_MAX_DEPTH: Final = 40
_MAX_TEXT: Final = 1000
_MAX_BITS: Final = 256
_MAX_DIGITS: Final = 15

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<text>'[^'\\\n]*'|"[^"\\\n]*")
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z0-9_.]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
      | (?P<operator>\*\*|//|==|!=|<=|>=|[-+*/%<>(),\[\]])""",
    re.VERBOSE,
)
_HINTS: Final = {
    "=": "compare two values with ==",
    "&": "join two conditions with 'and'",
    "|": "join two conditions with 'or'",
    "!": "negate a condition with 'not'",
    "^": "write powers with **",
}
_LITERALS: Final = {"true": "True", "false": "False", "null": "None", "True": "True", "False": "False", "None": "None"}
# What an evaluation raises if there is no value, before that is an ExpressionError.
_NO_VALUE: Final = (ArithmeticError, TypeError, ValueError, simpleeval.InvalidExpression)
_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "if", "else"})
_NODES: Final = (
    ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In,
    ast.NotIn, ast.IfExp, ast.Call, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Load,
)  # fmt: skip


class ExpressionError(ValueError):
    """An expression can't be read, or has no value for some parameters; the text gives the reason."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        self.suggestion = suggestion
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression: its text, the distinct names in the order of their first use, and how often it uses each.

    `size` is the work to evaluate it, apart from the elements that its functions and comparisons walk. `tree` is its
    syntax, with `v0`, `v1`, ... for the names.
    """

    text: str
    names: tuple[str, ...]
    uses: tuple[int, ...]
    size: int
    tree: ast.expr = field(repr=False, compare=False)
    _evaluator: simpleeval.SimpleEval = field(repr=False, compare=False)

    def evaluate(self, values: Sequence[JSON]) -> bool | int | float | str | None:
        """Its value, given the values of `names`. Raises ExpressionError if it has none."""
        self._evaluator.names = dict(zip(map(_slot, range(len(values))), values, strict=True))
        try:
            result = self._evaluator.eval(self.text, previously_parsed=self.tree)
        except ArithmeticError as error:
            raise ExpressionError(f"it has no value: {error}") from error
        except _NO_VALUE as error:
            raise ExpressionError(str(error)) from error
        if isinstance(result, int) and not -(2**63) <= result < 2**64:
            raise ExpressionError("its value is a number that does not fit 64 bits")
        if not isinstance(result, bool | int | float | str | None):
            raise ExpressionError(f"its value is {quotes.describe(result)}")
        return result

    def holds(self, values: Sequence[JSON]) -> bool:
        """Its value as a condition. Raises ExpressionError unless that is true or false."""
        result = self.evaluate(values)
        if isinstance(result, bool):
            return result
        raise ExpressionError(f"a condition must be true or false, and this is {quotes.describe(result)}")


def read(text: str, *, tolerant: bool = False) -> Expression:
    """Reads an expression. Raises ExpressionError if it is incomplete or contains anything that is not allowed.

    If `tolerant`, an operand of `and` or `or` that has no value doesn't matter where another operand decides.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters")
    names: dict[str, str] = {}
    python = _rewritten(text, names)
    try:
        tree = ast.parse(python, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError("this is not a complete expression") from error
    _check(tree, 0)
    evaluator = simpleeval.SimpleEval(operators=_OPERATORS, functions=_LIMITED, names={})
    # Lists are allowed for `in`, and contain only literals.
    evaluator.nodes[ast.List] = evaluator.nodes[ast.Tuple] = ast.literal_eval
    if tolerant:
        evaluator.nodes[ast.BoolOp] = functools.partial(_decide, evaluator)
    parts = [node.id if isinstance(node, ast.Name) else "" for node in ast.walk(tree)]
    used = Counter(parts)
    uses = tuple(used[slot] for slot in names.values())
    return Expression(text, tuple(names), uses, len(parts), tree, evaluator)


def _decide(evaluator: simpleeval.SimpleEval, node: ast.BoolOp) -> Any:
    """The value of `and` or `or`, whatever the order of the operands: the one that decides, else the last one."""
    decisive = isinstance(node.op, ast.Or)
    value: Any = None
    failure: Exception | None = None
    for operand in node.values:
        try:
            value = evaluator.eval("", previously_parsed=operand)
        except _NO_VALUE as error:
            failure = error
        else:
            if bool(value) is decisive:
                return value
    if failure is not None:
        raise failure
    return value


def _rewritten(text: str, names: dict[str, str]) -> str:
    """The expression with each dotted path replaced by a plain name; adds the paths and their names to `names`."""
    out: list[str] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            hint = _HINTS.get(text[at], "")
            raise ExpressionError(f"expressions have no {text[at : at + 10]!r}{hint and ': '}{hint}")
        at = token.end()
        word = token[0]
        if token.lastgroup != "name":
            out.append(" " if token.lastgroup == "space" else word)
        elif word in _LITERALS or word in _KEYWORDS:
            out.append(f" {_LITERALS.get(word, word)} ")
        elif text[at:].lstrip().startswith("("):
            if word not in FUNCTIONS:
                message = f"there is no function {word!r}; the functions are {', '.join(sorted(FUNCTIONS))}"
                raise ExpressionError(message, suggestions.nearest(word, FUNCTIONS))
            out.append(word)
        else:
            out.append(names.setdefault(word, _slot(len(names))))
    return "".join(out).strip()


def _slot(number: int) -> str:
    return f"v{number}"


def _check(node: ast.AST, depth: int) -> None:
    """Raises ExpressionError for Python syntax other than arithmetic, comparisons and logic."""
    if depth > _MAX_DEPTH:
        raise ExpressionError(f"this is nested more than {_MAX_DEPTH} deep")
    if not isinstance(node, _NODES):
        raise ExpressionError(f"expressions have no {type(node).__name__.lower()}")
    if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS):
        raise ExpressionError("only functions can be called")
    if isinstance(node, ast.List | ast.Tuple) and not all(isinstance(item, ast.Constant) for item in node.elts):
        raise ExpressionError("a list contains numbers and texts, not expressions")
    if isinstance(node, ast.Constant):
        _limited(node.value)
    for inner in ast.iter_child_nodes(node):
        _check(inner, depth + 1)


def _limited(value: Any) -> Any:
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
        return _limited(calculate(a, b))

    return apply


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, str) and isinstance(b, str):
        return _limited(a + b)
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
_OPERATORS: Final = {
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
    return lambda *given: _limited(calculate(*given))


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
