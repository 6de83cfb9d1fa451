"""Plans on the publisher's side: the message is the plan and its base configuration, nothing else."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import exits, plans, problems, publish
from ems_worker.core import canonical
from ems_worker.core.documents import documents
from ems_worker.core.records import PlanDecision

BASE = "layer:\n  food: 1.0\n  name: 'no'\n  list: [1, {a: null}]\n  empty: {}\n"
PLAN = """\
experiment_name: reef   # the author's comment
base_config_file_path: base.yaml
parameter_space:
  layer.food: [1, 2]"""


def plan_file(folder: Path, text: str = PLAN, base: str = BASE) -> plans.PlanFile:
    (folder / "base.yaml").write_text(base)
    (folder / "plan.yaml").write_text(text)
    return plans.read(str(folder / "plan.yaml"))


def message(file: plans.PlanFile) -> plans.Message:
    return plans.message(file, plans.check(file))


def said(data: bytes) -> dict[str, canonical.JSON]:
    return yaml_reader.read_plan(data).data


def test_a_yaml_plan_keeps_its_own_text_and_lines(tmp_path: Path) -> None:
    """Comments stay, and the line of an error that the worker finds is the line in the author's file."""
    file = plan_file(tmp_path)
    sent = message(file)
    assert sent.data.decode().startswith(PLAN)
    assert sent.lines_stay
    assert sent.content_type == "application/yaml"
    assert said(sent.data) == {**said(file.data), "base_config": yaml_reader.read_base(BASE.encode()).data}


def test_the_message_is_the_same_plan_to_the_worker(tmp_path: Path) -> None:
    """With the content beside it a plan has the identity that it has with its base file."""
    file = plan_file(tmp_path)
    sent = plans.PlanFile("sent", message(file).data, Path("/nonexistent"))
    assert plans.check(sent).plan_sha == plans.check(file).plan_sha


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(said(PLAN.encode())),
        "{experiment_name: reef, base_config_file_path: base.yaml, parameter_space: {layer.food: [1, 2]}}",
        "\n".join(f"  {line}" for line in PLAN.splitlines()),
        f"{PLAN}\n...\n",
        f"{PLAN}\ndescription: |\n  without a line break at its end",
    ],
    ids=["json", "flow", "indented", "ended", "text at the end"],
)
def test_a_plan_that_nothing_can_be_appended_to_goes_as_json(tmp_path: Path, text: str) -> None:
    """What is sent says the plan and the content, whatever the plan's form."""
    file = plan_file(tmp_path, text)
    sent = message(file)
    assert not sent.lines_stay
    assert sent.content_type == "application/json"
    assert said(sent.data) == {**said(file.data), "base_config": yaml_reader.read_base(BASE.encode()).data}


def test_a_plan_with_its_configuration_inline_is_sent_as_it_is(tmp_path: Path) -> None:
    """Byte for byte."""
    file = plan_file(tmp_path, "experiment_id: a\nbase_config: {a: 1}\nparameter_space: {a: [1, 2]}\n")
    assert message(file).data == file.data


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    """Editors write them."""
    file = plan_file(tmp_path, "\ufeff" + PLAN.replace("\n", "\r\n"))
    assert said(message(file).data)["base_config"] == yaml_reader.read_base(BASE.encode()).data


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
configs = st.dictionaries(
    texts,
    st.recursive(scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner)),
    max_size=4,
)


@settings(max_examples=40)
@given(base=configs)
def test_any_configuration_arrives_as_it_was(tmp_path_factory: pytest.TempPathFactory, base: dict[str, object]) -> None:
    """Numbers, words that look like numbers, empty things, text of any script."""
    folder = tmp_path_factory.mktemp("plan")
    text = "experiment_id: a\nbase_config_path: base.yaml\nparameter_space:\n  added: [1, 2]\nallow_new_paths: true\n"
    base = {key: value for key, value in base.items() if key != "added"}
    file = plan_file(folder, text, json.dumps(base))
    arrived = said(message(file).data)["base_config"]
    assert canonical.canonical_json(arrived) == canonical.canonical_json(base)


def test_an_absent_base_file_is_told_at_the_line_that_names_it(tmp_path: Path) -> None:
    """With the folder that its path is taken from."""
    file = plan_file(tmp_path, PLAN.replace("base.yaml", "bass.yaml"))
    with pytest.raises(errors.PlanRejected) as caught:
        plans.check(file)
    (problem,) = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("base_not_readable", 2, 24)
    assert str(tmp_path) in problem.message


def refused(file: plans.PlanFile) -> errors.Problem:
    with pytest.raises(errors.PlanRejected) as caught:
        plans.check(file)
    (problem,) = caught.value.problems
    assert problem.code == "base_not_readable"
    return problem


def test_a_plan_reads_nothing_outside_its_own_directory(tmp_path: Path) -> None:
    """What it names is published, and a plan may come from anyone: no `..`, no absolute path, no link out."""
    folder = tmp_path / "plans"
    folder.mkdir()
    secret = tmp_path / "secret.yaml"
    secret.write_text(BASE)
    (folder / "link.yaml").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    for path in ("../secret.yaml", str(secret), "link.yaml", "folder/secret.yaml", "../nothing.yaml"):
        problem = refused(plan_file(folder, PLAN.replace("base.yaml", path)))
        assert "outside" in problem.message
        assert "--allow-files-from" in problem.message
        assert (problem.line, problem.path) == (2, "base_config_file_path")


def test_files_below_an_allowed_directory_are_read(tmp_path: Path) -> None:
    """Relative to the plan still, whatever links lead there; also below the plan's own directory, with `..` in it."""
    folder, bases = tmp_path / "plans", tmp_path / "bases"
    folder.mkdir()
    bases.mkdir()
    (bases / "sea.yaml").write_text(BASE)
    (tmp_path / "linked").symlink_to(bases)
    for path in ("../bases/sea.yaml", str(bases / "sea.yaml"), "../plans/base.yaml"):
        plan_file(folder, PLAN.replace("base.yaml", path))
        file = plans.read(str(folder / "plan.yaml"), [folder, tmp_path / "linked"])
        assert plans.check(file).base == yaml_reader.read_base(BASE.encode()).data


def test_a_directory_that_is_none_cannot_be_allowed(tmp_path: Path) -> None:
    """A misspelt one would be refused later, with words that say otherwise."""
    with pytest.raises(exits.Misused, match="no such directory"):
        plans.read("-", [tmp_path / "nothing"])


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A directory, or a pipe that nobody writes into."""
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refused(plan_file(tmp_path, PLAN.replace("base.yaml", "pipe"))).message
    assert "not a file" in refused(plan_file(tmp_path, PLAN.replace("base.yaml", "."))).message


def test_bytes_that_are_no_text_are_an_invalid_plan(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(errors.PlanRejected, match="unreadable"):
        plans.check(plans.PlanFile("x", b"\xff\xfe\x00", tmp_path))


def test_problems_are_told_with_the_line_and_a_mark_under_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the text; a long line (JSON) is cut around the place; without lines only the words are told."""
    file = plans.PlanFile("p.yaml", b"a: 1\n\tkey: value\n" + b"x" * 200 + b" bad " + b"y" * 200, Path())
    found = [
        errors.Problem("late", "path", "words", 3, 202),
        errors.Problem("early", "", "words", 2, 7),
        errors.Problem("nowhere", "", "words"),
    ]
    problems.tell(found, file)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "p.yaml: error: words [nowhere]"
    assert lines[1:4] == ["p.yaml:2:7: error: words [early]", "    2 |  key: value", "      |       ^^^^^"]
    assert lines[4] == "p.yaml:3:202: error: path: words [late]"
    assert lines[5].index("bad") == lines[6].index("^^^")
    assert len(lines[5]) < 130
    problems.tell(found[:1], file, show_lines=False, kind="warning")
    assert capsys.readouterr().err == "p.yaml: warning: path: words [late]\n"


def test_warnings_that_only_the_worker_has_are_told_with_its_decision(capsys: pytest.CaptureFixture[str]) -> None:
    """At their places; those that were told by the check here are not told twice."""
    file = plans.PlanFile("p.yaml", b"experiment_id: x\nmodel_version: v2\ndesign: {}\n", Path())
    known = errors.Problem("sobol_samples", "design.samples", "known", 3, 1)
    warnings = [known, errors.Problem("model_version", "model_version", "isn't checked", 2, 16)]
    decision = documents.decision(PlanDecision.ACCEPTED, experiment_id="x", points=1, jobs=1, warnings=warnings)
    publish._tell(decision, file, plans.Message(file.data, "application/yaml", lines_stay=True), [known])
    shown = capsys.readouterr()
    assert shown.out == "x: accepted, 1 points, 1 jobs\n"
    assert shown.err.startswith("p.yaml:2:16: warning: model_version: isn't checked [model_version]\n")
    assert "known" not in shown.err
