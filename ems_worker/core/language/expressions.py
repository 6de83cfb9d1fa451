"""Expressions of plans: arithmetic, comparisons and logic over parameters.

They look like Python, but Python never runs them. The text is split into tokens here: a dotted path is one name, and
anything that is not a name, a literal, an operator or a known function is an error. The rest is carried out by
`operations`. Numbers, texts and lists have a maximum size, so that no expression takes much time or memory.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import decimals, functions, operations, quotes, suggestions
from ems_worker.core.language.decimals import ExpressionError as ExpressionError

MAX_LENGTH: Final = 20_000
# Python's parser nests a sum once for each operand.
_MAX_TOKENS: Final = 4_000
_MAX_DEPTH: Final = 40

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<text>'[^'\\\n]*'|"[^"\\\n]*")
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z0-9_.]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
      | (?P<operator>\*\*|//|==|!=|<=|>=|[-+*/%<>(),\[\]])""",
    re.VERBOSE,
)
# What may be a name with hyphens, or a subtraction.
_HYPHENATED: Final = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]*+(?:[.-][A-Za-z0-9_]++)+")
_ELEMENT: Final = "an element is part of the path: species.0.speed"
_HINTS: Final = {
    "=<": "write <=",
    "=>": "write >=",
    ".": _ELEMENT,
    "$": "a name stands alone",
    "?": "write a if condition else b",
    "=": "compare two values with ==",
    "&": "join two conditions with 'and'",
    "|": "join two conditions with 'or'",
    "!": "negate a condition with 'not'",
    "^": "write powers with **",
}
# Words that other languages have for operators.
_NO_OPERATORS: Final = {
    "is": "compare two values with ==",
    "between": "write 1 <= x <= 5",
    "then": "write a if condition else b",
    "mod": "the remainder is %",
    "AND": "write it in small letters",
    "OR": "write it in small letters",
    "NOT": "write it in small letters",
}
_EACH: Final = "a path with a '*' has no name here; give its axis one with 'as'"
_NO_FUNCTIONS: Final = {"pow": "write powers with **", "ln": "the natural logarithm is log"}
_NO_NAMES: Final = {"pi": "write its digits, 3.141592653589793", "e": "write exp(1)"}
_LITERALS: Final = {"true": "True", "false": "False", "null": "None", "True": "True", "False": "False", "None": "None"}
_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "if", "else"})
_ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_NODES: Final = (
    ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In,
    ast.NotIn, ast.IfExp, ast.Call, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Load,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression: its text, the distinct names in the order of their first use, and how often it uses each.

    `size` is the work to evaluate it, apart from the elements that its functions and comparisons walk. `tree` is its
    syntax, with `v0`, `v1`, ... for the names. `compute` gives its value without the checks of `evaluate`; what it
    raises is in `decimals.NO_VALUE`.
    """

    text: str
    names: tuple[str, ...]
    uses: tuple[int, ...]
    size: int
    tree: ast.expr = field(repr=False, compare=False)
    compute: operations.Evaluate = field(repr=False, compare=False)

    def evaluate(self, values: Sequence[decimals.Operand]) -> bool | int | float | str | None:
        """Its value, given the values of `names` as `decimals.exact` gives them. Raises ExpressionError if it has none.

        A number is the nearest one that a plan can have.
        """
        try:
            result = self.compute(values)
        except decimals.NO_VALUE as error:
            raise ExpressionError(decimals.reason(error)) from error
        return checked(result)

    def holds(self, values: Sequence[decimals.Operand]) -> bool:
        """Its value as a condition. Raises ExpressionError unless that is true or false."""
        result = self.evaluate(values)
        if isinstance(result, bool):
            return result
        raise ExpressionError(f"a condition must be true or false, and this is {quotes.describe(result)}")


def checked(result: object) -> bool | int | float | str | None:
    """The value of an expression as a parameter has it. Raises ExpressionError if a parameter can't have it."""
    if isinstance(result, bool | str | None):
        return result
    if not isinstance(result, int | float | Decimal):
        raise ExpressionError(f"its value is {quotes.describe(result)}")
    if isinstance(result, int) and result not in canonical.WHOLE:
        raise ExpressionError("its value is a number that does not fit 64 bits")
    return decimals.limited(decimals.leaving(result))


def read(text: str, *, known: Callable[[str], bool] | None = None, tolerant: bool = False) -> Expression:
    """Reads an expression. Raises ExpressionError if it is incomplete or contains anything that is not allowed.

    `known` tells whether a name exists, and may raise ExpressionError. Of names with hyphens the longest that exists is
    taken; otherwise a hyphen is a minus sign.

    If `tolerant`, an operand of `and` or `or` that has no value doesn't matter where another operand decides.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH:,} characters")
    names: dict[str, str] = {}
    python = _rewritten(text, names, known)
    try:
        tree = ast.parse(python, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hints = [hint for word, hint in _NO_OPERATORS.items() if word in names]
        hints += ["unequal is !="] if "<>" in text else []
        raise ExpressionError(": ".join(["this is not a complete expression", *hints[:1]])) from error
    _check(tree)
    parts = [node.id if isinstance(node, ast.Name) else "" for node in ast.walk(tree)]
    used = Counter(parts)
    uses = tuple(used[slot] for slot in names.values())
    return Expression(text, tuple(names), uses, len(parts), tree, operations.compiled(tree, tolerant=tolerant))


def hyphenated(text: str, name: str | None = None) -> str | None:
    """The first part of an expression, with `name` in it if that is given, that may be a name with hyphens."""
    spans = (match[0] for match in _HYPHENATED.finditer(text))
    return next((span for span in spans if "-" in span and (name is None or name in span.split("-"))), None)


def remedy(expression: Expression, name: str) -> str:
    """What to write in place of a name that is unknown, if that is clear, as the end of a message."""
    if name in _NO_NAMES:
        return f"; {_NO_NAMES[name]}"
    slot = operations.slot(expression.names.index(name))
    for node in ast.walk(expression.tree):
        match node:
            case ast.Compare() if not any(isinstance(each, _ORDERS) for each in node.ops):
                parts = [node.left, *node.comparators]
            case ast.IfExp():
                parts = [node.body, node.orelse]
            case _:
                continue
        numbers = any(isinstance(each, ast.Constant) and not isinstance(each.value, str) for each in parts)
        if not numbers and any(isinstance(each, ast.Name) and each.id == slot for each in parts):
            return f"; if it is a text, put it in quotes: '{name}'"
    return ""


def _rewritten(text: str, names: dict[str, str], known: Callable[[str], bool] | None) -> str:
    """The expression with each dotted path replaced by a plain name; adds the paths and their names to `names`."""
    out: list[str] = []
    at = tokens = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            hint = _HINTS.get(text[at : at + 2]) or _HINTS.get(text[at], "")
            if text.startswith(".*", at):
                hint = _EACH
            raise ExpressionError(f"expressions have no {text[at : at + 10]!r}{hint and ': '}{hint}")
        word = token[0]
        if known is not None and token.lastgroup == "name" and text[token.end() : token.end() + 1] == "-":
            word = _longest(text, at, known) or word
        at += len(word)
        tokens += token.lastgroup != "space"
        if tokens > _MAX_TOKENS:
            raise ExpressionError(f"an expression has at most {_MAX_TOKENS:,} names, literals and operators")
        if token.lastgroup != "name":
            out.append(" " if token.lastgroup == "space" else word)
        elif word in _LITERALS or word in _KEYWORDS:
            out.append(f" {_LITERALS.get(word, word)} ")
        elif text[at:].lstrip().startswith("("):
            if word in _NO_FUNCTIONS:
                raise ExpressionError(f"there is no function {word!r}: {_NO_FUNCTIONS[word]}")
            if word not in functions.FUNCTIONS:
                message = f"there is no function {word!r}; the functions are {', '.join(sorted(functions.FUNCTIONS))}"
                raise ExpressionError(message, suggestions.nearest(word, functions.FUNCTIONS))
            out.append(word)
        else:
            out.append(names.setdefault(word, operations.slot(len(names))))
    return "".join(out).strip()


def _longest(text: str, at: int, known: Callable[[str], bool]) -> str | None:
    """The longest known name with hyphens that begins here; it is not followed by the arguments of a function."""
    span = _HYPHENATED.match(text, at)
    name = span[0] if span is not None else ""
    while "-" in name:
        if known(name) and not text.startswith("(", at + len(name)):
            return name
        name = name.rpartition("-")[0]
    return None


def _check(tree: ast.expr) -> None:
    """Raises ExpressionError for Python syntax other than arithmetic, comparisons and logic."""
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ExpressionError(f"this is nested more than {_MAX_DEPTH} deep")
        _check_node(node)
        # The left operand of an operator is not nested: a sum is as deep as its deepest operand.
        left = node.left if isinstance(node, ast.BinOp) else None
        inner = [(child, depth if child is left else depth + 1) for child in ast.iter_child_nodes(node)]
        waiting += reversed(inner)


def _check_node(node: ast.AST) -> None:
    if isinstance(node, ast.Subscript):
        raise ExpressionError(f"expressions have no brackets after a name: {_ELEMENT}")
    if not isinstance(node, _NODES):
        raise ExpressionError(f"expressions have no {type(node).__name__.lower()}")
    if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.func.id not in functions.FUNCTIONS):
        raise ExpressionError("only functions can be called")
    if isinstance(node, ast.List | ast.Tuple) and not all(map(_is_literal, node.elts)):
        unquoted = any(isinstance(item, ast.Name) for item in node.elts)
        hint = "; put texts in quotes" if unquoted else ""
        raise ExpressionError(f"a list contains numbers and texts, not expressions{hint}")
    if isinstance(node, ast.Constant):
        decimals.limited(node.value)


def _is_literal(node: ast.expr) -> bool:
    """Whether an element of a list is a constant, or a number with a sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant)
