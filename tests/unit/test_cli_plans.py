"""Plans on the publisher's side: the message contains exactly the plan and its base configuration."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
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


def parsed(data: bytes) -> dict[str, canonical.JSON]:
    return yaml_reader.read_plan(data).data


def test_a_yaml_plan_keeps_its_own_text_and_lines(tmp_path: Path) -> None:
    """Comments are kept, and a line number in the worker's decision is that of the author's file."""
    file = plan_file(tmp_path)
    sent = message(file)
    assert sent.data.decode().startswith(PLAN)
    assert sent.lines_stay
    assert sent.content_type == "application/yaml"
    assert parsed(sent.data) == {**parsed(file.data), "base_config": yaml_reader.read_base(BASE.encode()).data}


def test_the_message_is_the_same_plan_to_the_worker(tmp_path: Path) -> None:
    """A plan that carries its base configuration has the same sha as one that names the base file."""
    file = plan_file(tmp_path)
    sent = plans.PlanFile("sent", message(file).data, Path("/nonexistent"))
    assert plans.check(sent).plan_sha == plans.check(file).plan_sha


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (PLAN, True),
        (f"{PLAN}\nhold: false\n", False),
        (json.dumps(parsed(PLAN.encode())), False),
        (f"{PLAN}\n...\n", False),
    ],
    ids=["yaml", "not held", "json", "ended"],
)
def test_a_held_plan_is_the_same_plan_with_hold(tmp_path: Path, text: str, kept: bool) -> None:
    """Block YAML keeps its lines; a plan that is held already, or that can't be read, stays as it is."""
    file = plan_file(tmp_path, text)
    held = plans.held(file)
    assert parsed(held.data) == {**parsed(file.data), "hold": True}
    assert held.data.startswith(text.encode()) is kept
    assert plans.held(held) is held
    unreadable = plan_file(tmp_path, "a: [")
    assert plans.held(unreadable) is unreadable


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(parsed(PLAN.encode())),
        "{experiment_name: reef, base_config_file_path: base.yaml, parameter_space: {layer.food: [1, 2]}}",
        "\n".join(f"  {line}" for line in PLAN.splitlines()),
        f"{PLAN}\n...\n",
        f"{PLAN}\ndescription: |\n  without a line break at its end",
    ],
    ids=["json", "flow", "indented", "ended", "text at the end"],
)
def test_a_plan_that_nothing_can_be_appended_to_goes_as_json(tmp_path: Path, text: str) -> None:
    """Whatever the plan's form, the message means exactly the plan and the content of its base file."""
    file = plan_file(tmp_path, text)
    sent = message(file)
    assert not sent.lines_stay
    assert sent.content_type == "application/json"
    assert parsed(sent.data) == {**parsed(file.data), "base_config": yaml_reader.read_base(BASE.encode()).data}


def test_a_plan_with_an_inline_configuration_is_sent_unchanged(tmp_path: Path) -> None:
    """A plan that contains its base configuration is sent byte for byte."""
    file = plan_file(tmp_path, "experiment_id: a\nbase_config: {a: 1}\nparameter_space: {a: [1, 2]}\n")
    assert message(file).data == file.data


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    """A plan that an editor saved with a byte order mark and CRLF line ends is sent with its base configuration."""
    file = plan_file(tmp_path, "\ufeff" + PLAN.replace("\n", "\r\n"))
    assert parsed(message(file).data)["base_config"] == yaml_reader.read_base(BASE.encode()).data


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
configs = st.dictionaries(
    texts,
    st.recursive(scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner)),
    max_size=4,
)


@given(base=configs)
def test_any_configuration_arrives_unchanged(tmp_path_factory: pytest.TempPathFactory, base: dict[str, object]) -> None:
    """Numbers, strings that look like numbers, empty collections and text in any script arrive unchanged."""
    folder = tmp_path_factory.mktemp("plan")
    text = "experiment_id: a\nbase_config_path: base.yaml\nparameter_space:\n  added: [1, 2]\nallow_new_paths: true\n"
    base = {key: value for key, value in base.items() if key != "added"}
    file = plan_file(folder, text, json.dumps(base))
    arrived = parsed(message(file).data)["base_config"]
    assert canonical.canonical_json(arrived) == canonical.canonical_json(base)


def test_a_missing_base_file_is_reported_at_the_line_that_names_it(tmp_path: Path) -> None:
    """The problem has the line and column of the file's name, and the directory that its path is relative to."""
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
    """A base file outside the plan's directory is refused, whether by `..`, an absolute path or a symbolic link."""
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
    """A base file below an allowed directory is read, whether by a relative path, an absolute path or through `..`."""
    folder, bases = tmp_path / "plans", tmp_path / "bases"
    folder.mkdir()
    bases.mkdir()
    (bases / "sea.yaml").write_text(BASE)
    (tmp_path / "linked").symlink_to(bases)
    for path in ("../bases/sea.yaml", str(bases / "sea.yaml"), "../plans/base.yaml"):
        plan_file(folder, PLAN.replace("base.yaml", path))
        file = plans.read(str(folder / "plan.yaml"), [folder, tmp_path / "linked"])
        assert plans.check(file).base == yaml_reader.read_base(BASE.encode()).data


def test_a_missing_directory_can_not_be_allowed(tmp_path: Path) -> None:
    """A misspelt directory is reported itself, rather than as a base file that is outside."""
    with pytest.raises(exits.Misused, match="no such directory"):
        plans.read("-", [tmp_path / "nothing"])


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A directory and a pipe without a writer are refused without waiting for data."""
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refused(plan_file(tmp_path, PLAN.replace("base.yaml", "pipe"))).message
    assert "not a file" in refused(plan_file(tmp_path, PLAN.replace("base.yaml", "."))).message


def test_bytes_that_are_not_text_are_an_invalid_plan(tmp_path: Path) -> None:
    """Bytes that can't be decoded are reported as a problem of the plan."""
    with pytest.raises(errors.PlanRejected, match="unreadable"):
        plans.check(plans.PlanFile("x", b"\xff\xfe\x00", tmp_path))


def test_problems_are_shown_with_the_line_and_a_mark_under_the_position(capsys: pytest.CaptureFixture[str]) -> None:
    """Problems come in the order of their positions, and a long line is cut around the position.

    Without lines only the messages are shown.
    """
    file = plans.PlanFile("p.yaml", b"a: 1\n\tkey: value\n" + b"x" * 200 + b" bad " + b"y" * 200, Path())
    shown = [
        errors.Problem("late", "path", "message", 3, 202),
        errors.Problem("early", "", "message", 2, 7),
        errors.Problem("nowhere", "", "message"),
    ]
    problems.show(shown, file)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "p.yaml: error: message [nowhere]"
    assert lines[1:4] == ["p.yaml:2:7: error: message [early]", "    2 |  key: value", "      |       ^^^^^"]
    assert lines[4] == "p.yaml:3:202: error: path: message [late]"
    assert lines[5].index("x bad y") + 2 == lines[6].index("^^^")
    assert len(lines[5]) < 130
    problems.show(shown[:1], file, show_lines=False, kind="warning")
    assert capsys.readouterr().err == "p.yaml: warning: path: message [late]\n"


def test_only_new_warnings_are_shown_with_a_decision(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings of the worker are shown at their positions, except those that were reported before publishing."""
    file = plans.PlanFile("p.yaml", b"experiment_id: x\nmodel_version: v2\ndesign: {}\n", Path())
    known = errors.Problem("sobol_samples", "design.samples", "known", 3, 1)
    warnings = [known, errors.Problem("model_version", "model_version", "isn't checked", 2, 16)]
    decision = documents.decision(PlanDecision.ACCEPTED, experiment_id="x", points=1, jobs=1, warnings=warnings)
    publish.show_decision(decision, file, plans.Message(file.data, "application/yaml", lines_stay=True), [known])
    printed = capsys.readouterr()
    assert printed.out == "x: accepted, 1 point, 1 job\n"
    assert printed.err.startswith("p.yaml:2:16: warning: model_version: isn't checked [model_version]\n")
    assert "known" not in printed.err


@pytest.mark.parametrize(
    ("message", "line"),
    [("unknown key", "unknown key; did you mean x?"), ("unknown key; did you mean x?", "unknown key; did you mean x?")],
)
def test_a_suggestion_is_shown_once(message: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A suggestion follows the message unless the message contains it."""
    problem = errors.Problem("unknown_key", "y", message, suggestion="did you mean x?")
    problems.show([problem], plans.PlanFile("p.yaml", b"", Path()))
    assert capsys.readouterr().err == f"p.yaml: error: y: {line} [unknown_key]\n"


def test_what_only_the_orchestrator_knows_is_a_warning(tmp_path: Path) -> None:
    """Its model version, and whether it takes start commands larger than gRPC's default."""
    text = PLAN + "\nmodel_version: reef-2\n"
    checked = plans.check(plan_file(tmp_path, text, f"layer:\n  food: 1.0\n  long: {'x' * 4_194_200}\n"))
    version, size = checked.plan.warnings
    assert (version.code, version.line, version.column) == ("model_version", 5, 16)
    assert "not checked" in version.message
    assert size.code == "configuration_too_large"
    assert "4,194,304" in size.message
