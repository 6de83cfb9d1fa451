"""The names on NATS stand in one module; every other one uses its constants."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ems_worker
from ems_worker.conformance import subjects as conformance_subjects
from ems_worker.core.documents import subjects

PACKAGE = Path(ems_worker.__file__).parent
# Where each kind of name may be spelt out. The conformance kit may not import the core.
HOMES = {"core/documents/subjects.py", "core/documents/titles.py", "conformance/subjects.py"}
NAMES = re.compile(
    r"(?<![\w.-])ems\\?\.(?:(?:experiment|api|dlq)\b|\w+\\?\.v\d)"  # our subjects, and the documents' names
    r"|\bsim\\?\.run_"
    r"|\b(?:OBJ_)?(?:EMS_(?:PLANS|STATUS|RESULTS|DLQ|PLAN_OBJECTS)|SIM_EVENTS)\b"
    r"|\bEms-[A-Z]"
    r"|\$JS\b"
)


def literals(source: str) -> Iterator[tuple[int, str]]:
    """The text constants of a module, parts of f-strings among them, but no docstrings: (line, text)."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str()) as docstring), *_]:
                    docstrings.add(docstring)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


def test_no_other_module_spells_out_a_name_on_nats() -> None:
    """A subject, stream, header or document name outside its home could be changed in one place and not the other."""
    spelt_out = [
        f"{path.relative_to(PACKAGE)}:{line}: {text!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in HOMES and "pb" not in path.relative_to(PACKAGE).parts
        for line, text in literals(path.read_text("utf-8"))
        if NAMES.search(text)
    ]
    assert spelt_out == []


@pytest.mark.parametrize(
    "source",
    [
        '"ems.experiment.status"',
        'f"ems.experiment.result.{experiment_id}"',
        'f"ems.api.{verb}"',
        '"ems.status.v1"',
        r'r"ems\.dlq\.plan"',
        '"sim.run_started"',
        '"EMS_PLANS"',
        '"of the stream SIM_EVENTS"',
        'f"{api}.STREAM.INFO.OBJ_EMS_PLAN_OBJECTS"',
        '"Ems-Reason"',
        'f"$JS.ACK.{stream}"',
    ],
)
def test_a_name_that_is_spelt_out_is_found(source: str) -> None:
    """The search sees whole texts, parts of f-strings and regular expressions."""
    assert any(NAMES.search(text) for _, text in literals(f"x = {source}"))


@pytest.mark.parametrize("source", ['"EMS_PLANS_PER_MINUTE"', '"EMS_DATA_DIR"', '"ems.json"', '"the `ems` command"'])
def test_settings_and_commands_are_no_names_on_nats(source: str) -> None:
    """Environment variables share the streams' prefix, and files that of the subjects."""
    assert not any(NAMES.search(text) for _, text in literals(f"x = {source}"))


def test_the_conformance_kit_and_the_worker_name_the_same() -> None:
    """The kit has its own copy of what an orchestrator uses, since it knows nothing of the worker."""
    own = {name: value for name, value in vars(conformance_subjects).items() if name.isupper()}
    assert own == {name: getattr(subjects, name) for name in own}
    assert len(own) == 5
