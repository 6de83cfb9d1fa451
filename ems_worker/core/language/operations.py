"""Expressions as functions of the values of their names."""

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from ems_worker.core.language import decimals, functions
from ems_worker.core.language.operators import OPERATORS

Evaluate = Callable[[Sequence[decimals.Operand]], Any]


def slot(number: int) -> str:
    """The name that stands for a name of an expression in its syntax tree, by the number of the name."""
    return f"v{number}"


def number(name: ast.Name) -> int:
    """The number of the name for which this one stands."""
    return int(name.id[1:])


def literal(node: ast.expr) -> decimals.Operand:
    """The value of a constant, or of a list of constants."""
    value = ast.literal_eval(node)
    return decimals.exact(list(value) if isinstance(value, tuple) else value)


def chain(node: ast.BinOp) -> tuple[ast.expr, list[tuple[ast.operator, ast.expr]]]:
    """A calculation without the nesting of left operands: the first operand, then each operator and its operand."""
    first: ast.expr = node
    rest: list[tuple[ast.operator, ast.expr]] = []
    while isinstance(first, ast.BinOp):
        rest.append((first.op, first.right))
        first = first.left
    return first, rest[::-1]


def compiled(node: ast.expr, *, tolerant: bool = False) -> Evaluate:
    """The function that evaluates a checked expression; what it raises is in decimals.NO_VALUE.

    If `tolerant`, an operand of `and` or `or` that has no value doesn't matter where another operand decides.
    """

    def inner(part: ast.expr) -> Evaluate:
        return compiled(part, tolerant=tolerant)

    match node:
        case ast.Constant() | ast.List() | ast.Tuple():
            given = literal(node)
            return lambda values: given
        case ast.Name():
            return operator.itemgetter(number(node))
        case ast.UnaryOp():
            return _applied(OPERATORS[type(node.op)], [inner(node.operand)])
        case ast.BinOp():
            first, rest = chain(node)
            return _chained(inner(first), [(OPERATORS[type(sign)], inner(operand)) for sign, operand in rest])
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
    return _applied(functions.FUNCTIONS[node.func.id], [inner(part) for part in node.args])


def _applied(apply: Callable[..., Any], operands: Sequence[Evaluate]) -> Evaluate:
    match operands:
        case [one]:
            return lambda values: apply(one(values))
        case [left, right]:
            return lambda values: apply(left(values), right(values))
    return lambda values: apply(*[operand(values) for operand in operands])


def _chained(first: Evaluate, rest: Sequence[tuple[Callable[[Any, Any], Any], Evaluate]]) -> Evaluate:
    """Operators from left to right."""
    if len(rest) == 1:
        return _applied(rest[0][0], [first, rest[0][1]])

    def evaluate(values: Sequence[decimals.Operand]) -> Any:
        value = first(values)
        for apply, operand in rest:
            value = apply(value, operand(values))
        return value

    return evaluate


def _compared(comparisons: Sequence[Callable[[Any, Any], Any]], operands: Sequence[Evaluate]) -> Evaluate:
    """A chain of comparisons; it ends at the first that is false."""
    if len(comparisons) == 1:
        return _applied(comparisons[0], operands)

    def evaluate(values: Sequence[decimals.Operand]) -> Any:
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

    def evaluate(values: Sequence[decimals.Operand]) -> Any:
        value = None
        for operand in operands:
            value = operand(values)
            if bool(value) is decisive:
                break
        return value

    return evaluate


def _decided(decisive: bool, operands: Sequence[Evaluate]) -> Evaluate:
    """As `_first`; an operand without a value raises only if no other operand decides."""

    def evaluate(values: Sequence[decimals.Operand]) -> Any:
        value = failure = None
        for operand in operands:
            try:
                value = operand(values)
            except decimals.NO_VALUE as error:
                failure = error
            else:
                if bool(value) is decisive:
                    return value
        if failure is not None:
            raise failure
        return value

    return evaluate
