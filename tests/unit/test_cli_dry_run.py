"""What a dry run shows of a plan."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker.cli import dry_run, plans

ESTIMATE = {"seconds": 3600.0, "mean_run_seconds": 600.0, "runs": 12, "slots": 4}
TEN = "parameter_space: {a: {range: {start: 1, stop: 100, num: 100}}}"


def shown(
    capsys: pytest.CaptureFixture[str], *lines: str, decision: Any = None, argument: str = "plan.yaml"
) -> list[str]:
    """The lines that a dry run prints for a plan with these lines."""
    text = "\n".join(["experiment_name: reef", "base_config: {a: 1, b: 2}", *lines])
    checked = plans.check(plans.PlanFile("plan.yaml", text.encode(), Path()))
    dry_run.show(checked.plan, checked.count, decision, argument)
    return capsys.readouterr().out.splitlines()


def test_the_first_and_the_last_configuration_are_shown_as_differences(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is compared with the base configuration, under an id that stands for the one that the worker chooses."""
    lines = shown(capsys, "parameter_space: {a: [5, 6, 7]}", "num_replicates_per_run: 2")
    assert lines[0] == "3 points with 2 replicates each: 6 jobs"
    assert [line for line in lines if line.startswith("+")] == [
        "+++ EXPERIMENT-p000000-r000-a1",
        "+a: 5",
        "+++ EXPERIMENT-p000002-r001-a1",
        "+a: 7",
    ]


def test_a_run_with_the_base_configuration_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without differences is named instead of shown, and a single job is not shown twice."""
    lines = shown(capsys)
    assert lines[0] == "1 point: 1 job"
    assert [line for line in lines if "EXPERIMENT" in line] == [
        "EXPERIMENT-p000000-r000-a1 gets the base configuration unchanged"
    ]


def test_points_have_labels_and_units_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """As in `ems points`."""
    lines = shown(capsys, "parameter_space: {a: {values: [5, 6], label: warmth, unit: K}, b: {values: [1], unit: m}}")
    assert lines[3].split("  ")[:3] == ["point", "warmth [K]", "b [m]"]


def test_constraints_are_counted_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    """The size has the number of points that satisfy the constraints."""
    lines = shown(capsys, "parameter_space: {a: [1, 2, 3], b: [1, 2, 3]}", "constraints: [a < b]")
    assert lines[0] == "3 points: 3 jobs"


def test_the_first_and_last_points_and_a_few_between_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Dots stand for those that are left out. A line says how to list all."""
    lines = shown(capsys, TEN)
    table = [line.split() for line in lines[3:16]]
    assert table[0] == ["point", "a", "seed"]
    assert [row[0] for row in table[1:]] == ["0", "1", "2", "...", "25", "...", "50", "...", "75", "...", "98", "99"]
    assert table[-1][:2] == ["99", "100"]
    assert lines[16] == "all points: ems points plan.yaml; all jobs: ems points --jobs plan.yaml"


@pytest.mark.parametrize("number", [1, 2, 12])
def test_few_points_are_listed_without_gaps(capsys: pytest.CaptureFixture[str], number: int) -> None:
    """Each is there once."""
    lines = shown(capsys, f"parameter_space: {{a: {list(range(number))}}}")
    points = [line.split()[0] for line in lines[4 : lines.index("", 3) - 1]]
    assert points == [str(point) for point in range(number)]


@pytest.mark.parametrize(
    ("argument", "named"), [("plan", "./plan"), ("-", "-"), ("my plan.yaml", "'my plan.yaml'"), ("a/plan", "a/plan")]
)
def test_the_line_on_all_points_can_be_pasted(capsys: pytest.CaptureFixture[str], argument: str, named: str) -> None:
    """A file whose name could be an experiment's id has a path, and a shell reads any name as one word."""
    lines = shown(capsys, argument=argument)
    assert f"all points: ems points {named}; all jobs: ems points --jobs {named}" in lines


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        (None, "unknown, because no worker answers"),
        ({"estimate": None}, "unknown, because no earlier run is comparable"),
        (
            {"estimate": ESTIMATE},
            "60 min (16 h 40 min of runs, 4 at once; 600 s a run, from 12 earlier runs of this model)",
        ),
        (
            {"estimate": {**ESTIMATE, "slots": 1, "runs": 1}},
            "60 min (600 s a run, from 1 earlier run of this model)",
        ),
        (
            {"estimate": {**ESTIMATE, "slots": 1000}},
            "60 min (16 h 40 min of runs, 100 at once; 600 s a run, from 12 earlier runs of this model)",
        ),
    ],
    ids=["offline", "first", "some at once", "one at a time", "all at once"],
)
def test_the_cost_is_the_time_until_the_end_and_that_of_all_runs(
    capsys: pytest.CaptureFixture[str], decision: Any, line: str
) -> None:
    """Both come from earlier runs of the model. If there is no estimate, the line says why."""
    assert shown(capsys, TEN, decision=decision)[1] == f"estimated time: {line}"
