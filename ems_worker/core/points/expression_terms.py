"""The syntax of an expression, made a term of the terms of its names."""

import ast
from collections.abc import Callable, Sequence
from typing import Any, Final

from ems_worker.core.language import functions, operations, operators
from ems_worker.core.points.term_operations import Applied, Choice, Logic, Sum
from ems_worker.core.points.terms import Operation, Part, Term, Terms

# The values inside a list that are walked in the time of a step.
_WALKED_PER_STEP: Final = 10
_WHOLE_FUNCTIONS: Final = frozenset({"int", "floor", "ceil", "len"})
_WHOLE_OPERATORS: Final = (ast.Mult, ast.FloorDiv, ast.Mod, ast.USub)
# A part, and the number of values inside it.
Weighed = tuple[Part, int]


class ExpressionTerms:
    """Makes terms of expressions. Equal operations are one object, so that equal terms are."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._applied: dict[tuple[Callable[..., Any], int, bool], Applied] = {}
        self._logic: dict[bool, Operation] = {decisive: Logic(decisive=decisive) for decisive in (False, True)}
        # Terms know lists by their ids.
        self._literals: list[object] = []
        self._choice = Choice()
        self._sum = Sum()

    def value(self, node: ast.expr, names: Sequence[Weighed]) -> Part:
        """The value of a checked expression, given its names."""
        return self._weighed(node, names)[0]

    def apply(self, function: Callable[..., Any], parts: Sequence[Part], *, cost: int = 2, whole: bool = False) -> Part:
        """A function of parts."""
        operation = self._applied.setdefault((function, cost, whole), Applied(function, cost, whole=whole))
        return operation.combine(self._terms, tuple(parts))

    def choose(self, test: Part, value: Part, other: Part) -> Part:
        """One of two values."""
        return self._choice.combine(self._terms, (test, value, other))

    def _weighed(self, node: ast.expr, names: Sequence[Weighed]) -> Weighed:
        match node:
            case ast.Constant():
                return operations.literal(node), 0
            case ast.Name():
                return names[operations.number(node)]
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                literal = operations.literal(node)
                self._literals.append(literal)
                return literal, len(elements)
            case ast.UnaryOp(op=operator, operand=operand):
                return self._calculated(type(operator), [self._weighed(operand, names)])
            case ast.BinOp():
                first, rest = operations.chain(node)
                value = self._weighed(first, names)
                for sign, operand in rest:
                    value = self._calculated(type(sign), [value, self._weighed(operand, names)])
                return value
            case ast.Compare():
                return self._compared(node, [self._weighed(each, names) for each in (node.left, *node.comparators)])
            case ast.BoolOp(op=operator, values=operands):
                inner = [self._weighed(operand, names) for operand in operands]
                logic = self._logic[isinstance(operator, ast.Or)]
                return logic.combine(self._terms, tuple([part for part, _ in inner])), _heaviest(inner)
            case ast.IfExp():
                inner = [self._weighed(each, names) for each in (node.test, node.body, node.orelse)]
                return self.choose(*[part for part, _ in inner]), _heaviest(inner)
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        inner = [self._weighed(each, names) for each in node.args]
        return self._with_cost(functions.FUNCTIONS[node.func.id], inner, whole=node.func.id in _WHOLE_FUNCTIONS)

    def _calculated(self, operator: type[ast.AST], inner: Sequence[Weighed]) -> Weighed:
        whole = all(_is_whole(part) for part, _ in inner)
        if whole and operator in (ast.Add, ast.Sub):
            left, right = [part for part, _ in inner]
            if operator is ast.Sub:
                right = self.apply(operators.OPERATORS[ast.USub], [right], whole=True)
            return self._sum.combine(self._terms, (left, right)), 0
        return self._with_cost(operators.OPERATORS[operator], inner, whole=whole and operator in _WHOLE_OPERATORS)

    def _compared(self, node: ast.Compare, inner: Sequence[Weighed]) -> Weighed:
        """A chain of comparisons: each of them has to hold."""
        comparisons = [
            self._with_cost(operators.OPERATORS[type(operator)], inner[index : index + 2])[0]
            for index, operator in enumerate(node.ops)
        ]
        return self._logic[False].combine(self._terms, tuple(comparisons)), 0

    def _with_cost(self, function: Callable[..., Any], inner: Sequence[Weighed], *, whole: bool = False) -> Weighed:
        cost = 2 + sum([weight for _, weight in inner]) // _WALKED_PER_STEP
        # A function may return what is inside a list, as `max` does.
        return self.apply(function, [part for part, _ in inner], cost=cost, whole=whole), _heaviest(inner)


def _is_whole(part: Part) -> bool:
    return type(part) is int or (type(part) is Term and part.whole)


def _heaviest(inner: Sequence[Weighed]) -> int:
    return max([weight for _, weight in inner], default=0)
