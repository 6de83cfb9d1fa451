"""Problems of the base file, beside those of the plan that names it."""

import io
import pathlib
import sys

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import plans, problems
from ems_worker.core.documents import documents
from ems_worker.service.intake import check

PLAN = b"""\
experiment_name: reef
base: base.yaml
tags: 5
constraints: ["1 +"]
parameter_space: {fish.cuont: [1]}
metrics: [{name: a, goal: max}]
"""


def rejected(base: bytes | errors.PlanRejected) -> tuple[errors.Problem, ...]:
    """The problems of the plan with this base file."""

    def read_base(path: str) -> bytes:
        if isinstance(base, errors.PlanRejected):
            raise base
        return base

    with pytest.raises(errors.PlanRejected) as refused:
        check.read(PLAN, yaml_reader, read_base)
    return refused.value.problems


def test_problems_of_the_base_file_and_of_the_plan_come_together() -> None:
    """Those of the file have their place in it; paths of the plan can't be checked without the configuration."""
    assert [(each.file, each.code, each.path, each.line, each.column) for each in rejected(b"a: no\nb: 1\nb: 2\n")] == [
        ("base.yaml", "ambiguous_scalar", "a", 1, 4),
        ("base.yaml", "duplicate_key", "b", 3, 1),
        (None, "wrong_type", "tags", 3, 7),
        (None, "bad_expression", "constraints.0", 4, 15),
        (None, "bad_choice", "metrics.0.goal", 6, 27),
    ]


def test_a_base_file_that_cannot_be_read_is_a_problem_of_the_plan() -> None:
    """It is at the key that names the file."""
    missing = errors.Problem("base_not_readable", "base_config_file_path", "?", location=("base_config_file_path",))
    for base in (b"\xff", errors.PlanRejected([missing])):
        first, *others = rejected(base)
        assert (first.file, first.code, first.path, first.line, first.column) == (
            None, "base_not_readable", "base", 2, 7,
        )  # fmt: skip
        assert len(others) == 3


def test_a_problem_of_the_base_file_is_shown_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file, and from the decision of a worker."""
    in_file, *_ = rejected(b"a: no")
    assert str(in_file).startswith("base.yaml: line 1, column 4: a: YAML 1.1")
    [again] = problems.from_documents([documents.problem(in_file)])
    assert again.file == "base.yaml"
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    problems.show([again], plans.PlanFile("plan.yaml", PLAN, pathlib.Path()))
    assert shown.getvalue().startswith("base.yaml:1:4: error: a: YAML 1.1")
    assert "experiment_name" not in shown.getvalue()
