"""The syntax of an expression, made a term of the terms of its names."""

import ast
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import groupby, pairwise
from typing import Any, Final

from ems_worker.core.language import functions, operations, weights
from ems_worker.core.language.operators import OPERATORS
from ems_worker.core.points.names import MISSING
from ems_worker.core.points.sums import Sums
from ems_worker.core.points.term_operations import Applied, Decided, Logic
from ems_worker.core.points.terms import FAILED, Operation, Part, Term, Terms

# The values inside a list that are walked in the time of a step.
_WALKED_PER_STEP: Final = 10
# Functions that may return what is inside a list.
_CHOOSING: Final = frozenset({functions.FUNCTIONS["max"], functions.FUNCTIONS["min"]})


class ExpressionTerms:
    """Makes terms of expressions. Equal operations are one object, so that equal terms are."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._applied: dict[tuple[Callable[..., Any], int], Applied] = {}
        self._logic: dict[bool, Operation] = {decisive: Logic(decisive=decisive) for decisive in (False, True)}
        # Terms know lists by their ids.
        self._literals: list[object] = []
        self._choice = Decided(_chosen)
        self._sums = Sums(terms)

    def apply(self, function: Callable[..., Any], parts: Sequence[Part]) -> Part:
        """A function of parts."""
        cost = 2 + sum(map(_weight, parts)) // _WALKED_PER_STEP
        operation = self._applied.setdefault((function, cost), Applied(function, cost))
        result = operation.combine(self._terms, tuple(parts))
        return _weighed(result, parts) if function in _CHOOSING else result

    def choose(self, test: Part, value: Part, other: Part) -> Part:
        """One of two values."""
        return _weighed(self._choice.combine(self._terms, (test, value, other)), (value, other))

    def value(self, node: ast.expr, names: Sequence[Part]) -> Part:
        """The value of a checked expression, given its names."""
        match node:
            case ast.Constant():
                return operations.literal(node)
            case ast.Name():
                return names[operations.number(node)]
            case ast.List() | ast.Tuple():
                self._literals.append(operations.literal(node))
                return self._literals[-1]
            case ast.UnaryOp():
                return self.apply(OPERATORS[type(node.op)], [self.value(node.operand, names)])
            case ast.BinOp():
                return self._calculated(node, names)
            case ast.Compare():
                return self._compared(node, [self.value(each, names) for each in (node.left, *node.comparators)])
            case ast.BoolOp():
                inner = [self.value(operand, names) for operand in node.values]
                logic = self._logic[isinstance(node.op, ast.Or)]
                return _weighed(logic.combine(self._terms, tuple(inner)), inner)
            case ast.IfExp():
                test, value, other = [self.value(each, names) for each in (node.test, node.body, node.orelse)]
                return self.choose(test, value, other)
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        return self.apply(functions.FUNCTIONS[node.func.id], [self.value(each, names) for each in node.args])

    def _calculated(self, node: ast.BinOp, names: Sequence[Part]) -> Part:
        """Operators from left to right."""
        first, rest = operations.chain(node)
        value = self.value(first, names)
        for is_sum, group in groupby(rest, lambda each: isinstance(each[0], ast.Add | ast.Sub)):
            signed = [(type(sign), self.value(operand, names)) for sign, operand in group]
            total = None
            if is_sum:
                plus = [part for sign, part in signed if sign is ast.Add]
                total = self._sums.total([value, *plus], [part for sign, part in signed if sign is ast.Sub])
            if total is None:
                total = reduce(lambda left, right: self.apply(OPERATORS[right[0]], (left, right[1])), signed, value)
            value = total
        return value

    def _compared(self, node: ast.Compare, inner: Sequence[Part]) -> Part:
        """A chain of comparisons: each of them has to hold."""
        compared: list[Part] = []
        for sign, sides in zip(map(type, node.ops), pairwise(inner), strict=True):
            part = self._sums.compared(sign, *sides)
            compared.append(self.apply(OPERATORS[sign], sides) if part is None else part)
        return self._logic[False].combine(self._terms, tuple(compared))


def _weight(part: Part) -> int:
    """The largest number of values inside a part."""
    if type(part) is Term:
        return part.weight
    return weights.of(part) or 0 if isinstance(part, list | dict) else 0


def _weighed(result: Part, parts: Sequence[Part]) -> Part:
    """The result, which may be any of these parts."""
    if type(result) is Term:
        result.weight = max(map(_weight, parts), default=0)
    return result


def _chosen(test: Part, value: Part, other: Part) -> Part:
    return test if test is FAILED or test is MISSING else value if test else other
