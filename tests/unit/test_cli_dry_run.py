"""What a dry run shows of a plan."""

from pathlib import Path

import pytest

from ems_worker.cli import dry_run, plans


def shown(capsys: pytest.CaptureFixture[str], *lines: str) -> list[str]:
    """The lines that a dry run prints for a plan with these lines."""
    text = "\n".join(["experiment_name: reef", "base_config: {a: 1, b: 2}", *lines])
    checked = plans.check(plans.PlanFile("plan.yaml", text.encode(), Path()))
    dry_run.show(checked.plan, checked.count)
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


def test_constraints_are_counted_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    """The size has the number of points that satisfy the constraints."""
    lines = shown(capsys, "parameter_space: {a: [1, 2, 3], b: [1, 2, 3]}", "constraints: [a < b]")
    assert lines[0] == "3 points: 3 jobs"


def test_shared_seeds_are_listed_by_replicate(capsys: pytest.CaptureFixture[str]) -> None:
    """If all points share their seeds, the table has a row for each replicate."""
    lines = shown(capsys, "parameter_space: {a: [1, 2]}", "num_replicates_per_run: 3")
    table = [line.split() for line in lines[-4:]]
    assert [row[:2] for row in table] == [["point", "replicate"], ["all", "0"], ["all", "1"], ["all", "2"]]


def test_at_most_twelve_seeds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """If each job has its own seed, the first are listed in the order of point and replicate, and the rest counted."""
    flags = ("num_replicates_per_run: 2", "seeds: {policy: independent}")
    lines = shown(capsys, "parameter_space: {a: {range: {start: 1, stop: 10, num: 10}}}", *flags)
    rows = [line.split() for line in lines[-13:-1]]
    assert [row[:2] for row in rows] == [[str(point), str(replicate)] for point in range(6) for replicate in range(2)]
    assert lines[-1] == "... and 8 more"
