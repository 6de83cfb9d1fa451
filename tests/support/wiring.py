"""Scenarios that need every callback that `daemon.services.build` connects, and `build` without one of them."""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ems_worker.daemon import services
from tests.support import scenarios, scenarios_settling, scenarios_steering

SCENARIOS = (*scenarios.ALL, *scenarios_settling.ALL, *scenarios_steering.ALL)


async def every_scenario(directory: Path) -> None:
    """Runs the scenarios, each in its own directory, until one fails."""
    for scenario in SCENARIOS:
        await scenario(directory / scenario.__name__)


_TREE = ast.parse(inspect.getsource(services))
_NO_OP = "_no_op"


def _build(tree: ast.Module) -> ast.FunctionDef:
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")


def _connections(build: ast.FunctionDef) -> list[tuple[ast.AST, ast.AST]]:
    """The places where `build` connects a callback, each with its replacement when the connection is cut.

    These are each call in a function inside `build`, each lambda, and each argument of a service that is a method of
    another service or a function inside `build`.
    """
    functions = {node.name: node for node in build.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    built = [node for node in build.body if isinstance(node, ast.Assign)]
    services_built = {target.id for node in built for target in node.targets if isinstance(target, ast.Name)}
    no_op = ast.Name(_NO_OP, ast.Load())
    no_op_async = ast.Name(f"{_NO_OP}_async", ast.Load())

    def within(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        if isinstance(node, ast.Lambda):
            yield node, no_op
        elif isinstance(node, ast.Name) and node.id in functions:
            yield node, no_op_async if isinstance(functions[node.id], ast.AsyncFunctionDef) else no_op
        elif isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in {*services_built, "event_codec"}:
            yield node, no_op
        else:
            for child in ast.iter_child_nodes(node):
                yield from within(child)

    calls = [statement for function in functions.values() for statement in function.body]
    return [
        *((statement, ast.Pass()) for statement in calls if isinstance(statement, ast.Expr)),
        *(connection for assignment in built for connection in within(assignment.value)),
    ]


def cuts() -> Mapping[str, Callable[..., services.Services]]:
    """`build` with a connection cut, for each connection, by the source text that was cut."""
    return dict(_cut(number) for number in range(len(_connections(_build(_TREE)))))


def _cut(number: int) -> tuple[str, Callable[..., services.Services]]:
    tree = copy.deepcopy(_TREE)
    connection, replacement = _connections(_build(tree))[number]
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is connection:
                setattr(parent, field, replacement)
            elif isinstance(value, list) and connection in value:
                value[value.index(connection)] = replacement
    namespace: dict[str, Any] = {**vars(services), _NO_OP: _no_op, f"{_NO_OP}_async": _no_op_async}
    exec(compile(ast.fix_missing_locations(tree), services.__file__, "exec"), namespace)
    assert isinstance(connection, ast.expr | ast.stmt)
    return f"line {connection.lineno}: {ast.unparse(connection)}", namespace["build"]


def _no_op(*_: object) -> None:
    """Replaces a callback that was cut."""


async def _no_op_async(*_: object) -> None:
    """Replaces an awaited callback that was cut."""
