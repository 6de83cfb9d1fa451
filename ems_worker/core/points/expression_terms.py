"""The syntax of an expression, made a term of the terms of its names."""

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from ems_worker.core.language import functions, operations, weights
from ems_worker.core.language.operators import OPERATORS
from ems_worker.core.points import sums
from ems_worker.core.points.term_operations import Applied, Choice, Logic
from ems_worker.core.points.terms import Operation, Part, Term, Terms

# The values inside a list that are walked in the time of a step.
_WALKED_PER_STEP: Final = 10
# Functions that may return what is inside a list.
_CHOOSING: Final = frozenset({functions.FUNCTIONS["max"], functions.FUNCTIONS["min"]})
_COMPARED: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class ExpressionTerms:
    """Makes terms of expressions. Equal operations are one object, so that equal terms are."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._applied: dict[tuple[Callable[..., Any], int], Applied] = {}
        self._logic: dict[bool, Operation] = {decisive: Logic(decisive=decisive) for decisive in (False, True)}
        # Terms know lists by their ids.
        self._literals: list[object] = []
        self._choice = Choice()
        self._sum = sums.Sum()
        self._comparisons = {kind: sums.Comparison(self._sum, compare) for kind, compare in _COMPARED.items()}

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
        summed: list[tuple[type[ast.operator], Part]] = [(ast.Add, self.value(first, names))]
        for sign, operand in rest:
            part = self.value(operand, names)
            if isinstance(sign, ast.Add | ast.Sub):
                summed.append((type(sign), part))
            else:
                summed = [(ast.Add, self.apply(OPERATORS[type(sign)], [self._total(summed), part]))]
        return self._total(summed)

    def _total(self, summed: Sequence[tuple[type[ast.operator], Part]]) -> Part:
        """A sum and difference of parts; one that is exact is in the order of dimensions."""
        parts = [part for _, part in summed]
        if len(parts) > 1 and self._is_exact(parts):
            return self._sum.of(self._terms, [self._negative(part) if sign is ast.Sub else part for sign, part in summed])
        value = parts[0]
        for sign, part in summed[1:]:
            value = self.apply(OPERATORS[sign], [value, part])
        return value

    def _compared(self, node: ast.Compare, inner: Sequence[Part]) -> Part:
        """A chain of comparisons: each of them has to hold."""
        compared: list[Part] = []
        for sign, left, right in zip(node.ops, inner, inner[1:]):
            operation = self._comparisons.get(type(sign))
            if operation is not None and self._is_sum(left, right) and self._is_exact([left, right]):
                total = self._sum.of(self._terms, [left, self._negative(right)])
                compared.append(operation.combine(self._terms, (total, 0)))
            else:
                compared.append(self.apply(OPERATORS[type(sign)], [left, right]))
        return self._logic[False].combine(self._terms, tuple(compared))

    def _negative(self, part: Part) -> Part:
        """The negative value of an exact part, as the sum of those of its addends."""
        negative = [self.apply(OPERATORS[ast.USub], [addend]) for addend in self._sum.addends([part])]
        return self._sum.of(self._terms, negative)

    def _is_sum(self, *parts: Part) -> bool:
        return any(type(part) is Term and part.operation is self._sum for part in parts)

    def _is_exact(self, parts: Sequence[Part]) -> bool:
        """Whether the sum of these parts is exact in any order."""
        return sums.exact([sums.reach(part) for part in parts])


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
