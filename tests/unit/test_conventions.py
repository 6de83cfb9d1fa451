"""The conventions of docs/architecture.md that a program can check."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for part in ("ems_worker", "tests", "docs", "benchmarks")
    for path in sorted((ROOT / part).rglob("*.py"))
    if "pb" not in path.relative_to(ROOT).parts
]
MAX_LINES = 300
MAX_POSITIONAL = 4
# The worker promises milliseconds in which its event loop turns. `make test-long` measures them, without the time in
# which other processes had the processor.
MEASURES_TIME = {"tests/support/held.py"}

TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCES}
CALLS = [
    (name, node)
    for name, tree in TREES.items()
    if name.startswith("tests/")
    for node in ast.walk(tree)
    if isinstance(node, ast.Call)
]


def package() -> Iterator[tuple[str, ast.AST]]:
    """Every node of every module of the package, with the module's path."""
    for name, tree in TREES.items():
        if name.startswith("ems_worker/"):
            yield from ((name, node) for node in ast.walk(tree))


def test_no_file_is_longer_than_300_lines() -> None:
    """A longer module has more than one subject."""
    lengths = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in TREES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_functions_take_at_most_four_positional_arguments() -> None:
    """Further arguments are passed by keyword, so that a call shows what they are."""
    functions = [(n, node) for n, node in package() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    # A method of a library's class that we override has the library's arguments.
    ours = [(name, node) for name, node in functions if f"super().{node.name}(" not in ast.unparse(node)]
    assert [f"{name}: {node.name}" for name, node in ours if _positional(node) > MAX_POSITIONAL] == []


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = (*function.args.posonlyargs, *function.args.args)
    return len([argument for argument in arguments if argument.arg not in ("self", "cls")])


def test_functions_of_other_modules_are_called_by_their_module() -> None:
    """Modules and types are imported by name; a function is called as `module.function`, which says where it is."""
    imports = [(name, node) for name, node in package() if isinstance(node, ast.ImportFrom)]
    imported = [
        (name, f"{node.module}.{alias.name}")
        for name, node in imports
        if (node.module or "").startswith("ems_worker") and not name.endswith("__init__.py")
        for alias in node.names
        if alias.name.islower()
    ]
    modules = {known: importlib.util.find_spec(known) is not None for known in {what for _, what in imported}}
    assert [(name, what) for name, what in imported if not modules[what]] == []


def test_tests_wait_for_conditions() -> None:
    """A test doesn't sleep: it waits for what it needs with `wait.until`. `asyncio.sleep(0)` only gives up a turn."""
    sleeps = [(name, node) for name, node in CALLS if ast.unparse(node.func) in ("asyncio.sleep", "time.sleep")]
    tests = [(name, node) for name, node in sleeps if Path(name).name.startswith("test_")]
    assert [f"{name}:{node.lineno}" for name, node in tests if ast.unparse(node.args[0]) != "0"] == []


def test_tests_measure_no_time() -> None:
    """How long something takes depends on the machine: work is counted in steps."""
    clocks = ("time.perf_counter", "time.process_time", "time.thread_time")
    readers = [(name, node) for name, node in CALLS if ast.unparse(node.func) in clocks]
    assert [f"{name}:{node.lineno}" for name, node in readers if name not in MEASURES_TIME] == []


def test_only_the_ledger_replaces_a_record() -> None:
    """An experiment's record changes in one module, in memory and in the manifest together."""
    assigned = [(name, target) for name, node in package() if isinstance(node, ast.Assign) for target in node.targets]
    attributes = [(name, target.attr) for name, target in assigned if isinstance(target, ast.Attribute)]
    assert {name for name, attribute in attributes if attribute == "record"} == {"ems_worker/service/ledger/records.py"}
