"""Values in CSV files: they take the place of the names of files before a plan is published."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import plans
from ems_worker.core.language.problems import Problems
from ems_worker.core.points import value_files
from tests.support.small_plans import parsed

AXIS = "{parameter_space: {a: {file: t.csv, column: k, as: n}}}"
RUNS = "{runs: {file: t.csv}}"


def inlined(text: str, content: str | bytes) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """The plan with the content of its file, and the problems."""
    data = yaml_reader.read_plan(text.encode()).data
    encoded = content if isinstance(content, bytes) else content.encode()
    problems = Problems()
    result = value_files.inlined(data, {"t.csv": encoded}, problems)
    assert data == yaml_reader.read_plan(text.encode()).data
    return result, [(problem.code, problem.path, problem.message) for problem in problems.collected()]


def refused(text: str, content: str | bytes) -> str:
    """The message of the only problem."""
    [(code, path, message)] = inlined(text, content)[1]
    assert code == "bad_table"
    assert path.endswith(".file")
    assert "'t.csv'" in message
    return message


def test_an_axis_has_the_values_of_its_column() -> None:
    """In the order of the rows, as a plan would read them without quotes; its other keys stay."""
    content = '\ufeffj,k\r\n1,5\r\n2, 1e-3 \r\n3,no\r\n4,"a, b"\r\n5,true\r\n\r\n6,null\r\n'
    plan, problems = inlined(AXIS, content)
    assert problems == []
    assert plan["parameter_space"]["a"] == {"as": "n", "values": [5, 0.001, "no", "a, b", True, None]}


def test_files_are_found_wherever_an_axis_may_be() -> None:
    """In nested paths and in parts of a `concat`; a mapping that only has such keys is not one."""
    text = "{parameter_space: {x: {y: {file: t.csv, column: k}}, z: {concat: [[1], {file: t.csv, column: k}]}}}"
    plan, problems = inlined(text, "k\n7\n")
    assert problems == []
    assert plan["parameter_space"] == {"x": {"y": {"values": [7]}}, "z": {"concat": [[1], {"values": [7]}]}}
    assert (
        value_files.references({"parameter_space": {"f": {"file": ["a"], "column": [1]}}, "runs": [{"file": "x"}]})
        == []
    )


def test_a_file_that_is_named_often_is_read_once() -> None:
    """What is wrong with it is reported once, and what a column lacks where that is named."""
    text = (
        "{parameter_space: {a: {file: t.csv, column: k}, b: {file: t.csv, column: z}, c: {file: other.csv, column: k}}}"
    )
    assert [path for _, path, _ in inlined(text, "k\n1\n")[1]] == ["parameter_space.b.file"]
    assert [path for _, path, _ in inlined(text, "")[1]] == ["parameter_space.a.file"]
    assert inlined(text, "k,z\n1,2\n")[0]["parameter_space"] == {
        "a": {"values": [1]},
        "b": {"values": [2]},
        "c": {"file": "other.csv", "column": "k"},
    }


def test_a_table_of_runs_has_an_entry_for_each_row() -> None:
    """With its suffix, its labels and its overrides; an empty cell is none of them."""
    plan, problems = inlined(RUNS, "run_id_suffix,label:site,f.g,a\nn,north,0.5,1\ns,,2.0,\n,,,\n")
    assert problems == []
    assert plan["runs"] == [
        {"run_id_suffix": "n", "labels": {"site": "north"}, "params_override": {"f.g": 0.5, "a": 1}},
        {"run_id_suffix": "s", "params_override": {"f.g": 2.0}},
        {"params_override": {}},
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "a line with the names of its columns"),
        ("k\n", "a line of values at least"),
        ("j,l\n1,2\n", "no column 'k'"),
        ("kk\n1\n", "did you mean kk?"),
        ("k,k\n1,2\n", "two columns are named 'k'"),
        ("k,\n1,2\n", "line 1: a column has no name"),
        ("k,j\n1,2\n1\n", "line 3: 1 values for 2 columns"),
        ("k,j\n,2\n", "line 2: the column 'k' is empty here"),
        ("k\n.inf\n", "line 2: '.inf' is not a finite number"),
        ("k\n99999999999999999999\n", "line 2: '99999999999999999999' is not a finite number of 64 bits"),
        (b"k\n\xff\n", "not UTF-8"),
        ('k\n"1\n', "not a table of comma-separated values"),
        ("k\n" + "x" * 200_000 + "\n", "not a table of comma-separated values"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(content: str | bytes, words: str) -> None:
    """At its name in the plan, with the line in the file."""
    assert words in refused(AXIS, content)


def test_a_table_of_runs_takes_no_other_keys() -> None:
    """They would be ignored."""
    [(code, path, _)] = inlined("{runs: {file: t.csv, column: k}}", "a\n1\n")[1]
    assert (code, path) == ("unknown_key", "runs.column")


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        (AXIS, "file_not_read", "parameter_space.a.file"),
        ("{parameter_space: {a: {file: t.csv}}}", "missing_key", "parameter_space.a"),
        ("{parameter_space: {a: {file: t.csv, column: 3}}}", "wrong_type", "parameter_space.a.column"),
        (RUNS, "file_not_read", "runs.file"),
    ],
)
def test_a_worker_reads_no_file(text: str, code: str, path: str) -> None:
    """It says who does."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text)
    [problem] = rejected.value.problems
    assert (problem.code, problem.path) == (code, path)
    assert code != "file_not_read" or "ems-publish reads it" in problem.message


PLAN = """\
experiment_name: reef
base_config: {a: 1, b: 2}
parameter_space:
  a: {file: t.csv, column: k}
"""


def test_a_publisher_sends_the_values(tmp_path: Path) -> None:
    """The worker gets a plan without files, of the same digest as the publisher's."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "t.csv").write_text("k\n5\n6\n")
    file = plans.read(str(tmp_path / "plan.yaml"))
    checked = plans.check(file)
    message = plans.message(file, checked)
    assert yaml_reader.read_plan(message.data).data["parameter_space"] == {"a": {"values": [5, 6]}}
    assert not message.lines_stay
    assert plans.check(plans.PlanFile("sent", message.data, Path("/nonexistent"))).plan_sha == checked.plan_sha


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.csv", "can't be read: No such file"), ("../outside.csv", "outside"), ("/etc/passwd", "outside")],
)
def test_a_file_that_may_not_be_read_is_an_error_at_its_name(tmp_path: Path, name: str, words: str) -> None:
    """Like a base file: only below the plan's directory."""
    folder = tmp_path / "plans"
    folder.mkdir()
    (tmp_path / "outside.csv").write_text("k\n1\n")
    (folder / "plan.yaml").write_text(PLAN.replace("t.csv", name))
    with pytest.raises(errors.PlanRejected) as rejected:
        plans.check(plans.read(str(folder / "plan.yaml")))
    [problem] = rejected.value.problems
    assert (problem.code, problem.path, problem.line) == ("file_not_readable", "parameter_space.a.file", 4)
    assert words in problem.message


def test_the_problems_of_files_come_with_those_of_the_plan(tmp_path: Path) -> None:
    """In the order of the text. What is wrong only because a file wasn't read isn't reported."""
    (tmp_path / "bad.csv").write_text("k,n\n,1\n")
    (tmp_path / "plan.yaml").write_text("""\
experiment_name: reef
base_config: {a: 1, b: 2, c: 3, d: 4}
parameter_space:
  a: {file: bad.csv, column: k, as: first}
  b: {file: missing.csv, column: k}
  c: {file: missing.csv, column: n}
  d: {file: bad.csv, column: n}
  e: [1]
design: {zip: [[a, b], [c, d]]}
constraints: [first < b, "seond > 1"]
runs: {file: missing.csv}
replicates: 0
""")
    with pytest.raises(errors.PlanRejected) as rejected:
        plans.check(plans.read(str(tmp_path / "plan.yaml")))
    assert [(problem.code, problem.line) for problem in rejected.value.problems] == [
        ("bad_table", 4), ("file_not_readable", 5), ("unknown_path", 8), ("unknown_name", 10), ("out_of_range", 12),
    ]  # fmt: skip


def test_the_problems_of_files_come_with_those_of_the_base_file(tmp_path: Path) -> None:
    """And with those that the plan has without it."""
    (tmp_path / "base.yaml").write_text("a: no\n")
    (tmp_path / "plan.yaml").write_text(PLAN.replace("base_config: {a: 1, b: 2}", "base: base.yaml\nreplicates: 0"))
    with pytest.raises(errors.PlanRejected) as rejected:
        plans.check(plans.read(str(tmp_path / "plan.yaml")))
    assert [problem.code for problem in rejected.value.problems] == [
        "ambiguous_scalar", "out_of_range", "file_not_readable",
    ]  # fmt: skip


def test_a_file_with_a_problem_alone_rejects_the_plan(tmp_path: Path) -> None:
    """Also if the plan has no other."""
    (tmp_path / "plan.yaml").write_text(PLAN.replace("a: {", "b: [1]\n  a: {"))
    (tmp_path / "t.csv").write_text("j\n1\n")
    with pytest.raises(errors.PlanRejected, match="no column 'k'") as rejected:
        plans.check(plans.read(str(tmp_path / "plan.yaml")))
    assert len(rejected.value.problems) == 1
