"""The conventions of docs/architecture.md that a program can check."""

import ast
import collections
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 300
MAX_POSITIONAL = 4
# The worker promises that its event loop turns within milliseconds. `make test-long` measures this, without the time in
# which other processes had the processor.
MEASURES_TIME = {"tests/support/held.py"}


@functools.cache
def sources() -> dict[str, str]:
    """The text of every module that isn't generated, by its path."""
    paths = [
        path for part in ("ems_worker", "tests", "docs", "benchmarks") for path in sorted((ROOT / part).rglob("*.py"))
    ]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths if "pb" not in path.relative_to(ROOT).parts}
    return {name: path.read_text("utf-8") for name, path in names.items()}


@functools.cache
def statements() -> Mapping[type[ast.AST], Sequence[tuple[str, ast.AST]]]:
    """The statements of the package by type, each with the path of its module."""
    by_type: dict[type[ast.AST], list[tuple[str, ast.AST]]] = collections.defaultdict(list)
    for name, text in sources().items():
        if name.startswith("ems_worker/"):
            pending: list[ast.AST] = [ast.parse(text)]
            while pending:
                node = pending.pop()
                by_type[type(node)].append((name, node))
                # Expressions contain no statements, and skipping them saves most of the time.
                blocks = (getattr(node, field, ()) for field in ("body", "orelse", "finalbody", "handlers", "cases"))
                pending += [child for block in blocks if isinstance(block, list) for child in block]
    return by_type


def of_type(node_type: type[Node]) -> Sequence[tuple[str, Node]]:
    """The statements of this type in the package, each with the path of its module."""
    return [(name, node) for name, node in statements()[node_type] if isinstance(node, node_type)]


def calls(*functions: str) -> Sequence[tuple[str, ast.Call]]:
    """The calls of these functions, such as `time.sleep`, in the tests."""
    return [
        (name, node)
        for name, text in sources().items()
        if name.startswith("tests/") and any(function in text for function in functions)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in functions
    ]


def test_no_file_is_longer_than_300_lines() -> None:
    """A longer module has more than one subject."""
    lengths = {name: len(text.splitlines()) for name, text in sources().items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_functions_take_at_most_four_positional_arguments() -> None:
    """Further arguments are passed by keyword, so that a call shows what they are."""
    functions: list[tuple[str, Function]] = [*of_type(ast.FunctionDef), *of_type(ast.AsyncFunctionDef)]
    long = [(name, node) for name, node in functions if _positional(node) > MAX_POSITIONAL]
    # A method that overrides a library's method has the library's arguments.
    ours = [(name, node) for name, node in long if f"super().{node.name}(" not in ast.unparse(node)]
    assert [f"{name}: {node.name}" for name, node in ours] == []


def _positional(function: Function) -> int:
    arguments = (*function.args.posonlyargs, *function.args.args)
    return len([argument for argument in arguments if argument.arg not in ("self", "cls")])


def test_functions_of_other_modules_are_called_by_their_module() -> None:
    """Modules and types are imported by name; a function is called as `module.function`, which shows where it is."""
    imported = [
        (name, f"{node.module}.{alias.name}")
        for name, node in of_type(ast.ImportFrom)
        if (node.module or "").startswith("ems_worker") and not name.endswith("__init__.py")
        for alias in node.names
        if alias.name.islower()
    ]
    assert [(name, target) for name, target in imported if not _is_module(target)] == []


def _is_module(target: str) -> bool:
    path = ROOT.joinpath(*target.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def test_tests_wait_for_conditions() -> None:
    """A test doesn't sleep: it waits for a condition with `wait.until`. `asyncio.sleep(0)` only gives up a turn."""
    sleeps = [(name, node) for name, node in calls("asyncio.sleep", "time.sleep") if "/test_" in name]
    assert [f"{name}:{node.lineno}" for name, node in sleeps if ast.unparse(node.args[0]) != "0"] == []


def test_tests_measure_no_time() -> None:
    """Durations depend on the machine: tests count steps of work instead."""
    clocks = calls("time.perf_counter", "time.process_time", "time.thread_time")
    assert [f"{name}:{node.lineno}" for name, node in clocks if name not in MEASURES_TIME] == []


def test_only_the_ledger_replaces_a_record() -> None:
    """One module changes the record of an experiment, in memory and in the manifest together."""
    assigned = [(name, target) for name, node in of_type(ast.Assign) for target in node.targets]
    attributes = [(name, target.attr) for name, target in assigned if isinstance(target, ast.Attribute)]
    assert {name for name, attribute in attributes if attribute == "record"} == {"ems_worker/service/ledger/records.py"}
