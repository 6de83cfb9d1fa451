"""What people read about a change: a sentence for each, and the changes that `ems show` names."""

from typing import Any

import pytest

from ems_worker.cli import changed


def change(verb: str, **keys: Any) -> dict[str, Any]:
    return {
        "experiment_id": "reef",
        "verb": verb,
        "changed": True,
        "refused": False,
        "state": "running",
        "round": 1,
        "reason": None,
        "dry_run": False,
        "counts": {},
        "added": None,
        "withdrawn": None,
        "unchanged": None,
        "applied": False,
        "request": {},
        **keys,
    }


OPEN = {"pending": {"cancelled": 1200}, "running": {"cancelled": 3}, "lost": {"cancelled": 0}}
NEW = {"counts": {"new": {"pending": 40}}, "added": 8, "unchanged": 100, "round": 2}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (change("cancel", counts=OPEN), "cancelling 1,203 jobs (1,200 pending, 3 running)"),
        (
            change("retry", changed=False, refused=True, reason="it is being cancelled"),
            "refused: it is being cancelled",
        ),
        (change("cancel", counts=OPEN, applied=True), "cancelled 1,203 jobs (1,200 pending, 3 running)"),
        (change("cancel", counts=OPEN, dry_run=True), "would cancel 1,203 jobs (1,200 pending, 3 running)"),
        (
            change("cancel", counts=dict(reversed(OPEN.items())), request={"drain": True}),
            "cancelling 1,203 jobs (1,200 pending, 3 running), but open runs may end",
        ),
        (
            change("cancel", counts={"pending": {"cancelled": 2}}, request={"drain": True}),
            "cancelling 2 jobs (2 pending)",
        ),
        (change("cancel"), "cancelling no jobs"),
        (change("cancel", counts=None), "cancelling jobs, which are still being counted"),
        (change("cancel", counts=None, dry_run=True), "would cancel jobs, too many to count them in time"),
        (
            change("retry", counts={"failed": {"pending": 1}}, round=2),
            "retrying 1 job (1 failed), round 2",
        ),
        (
            change("retry", counts={"failed": {"awaiting_metrics": 2}, "lost": {"pending": 1}}, applied=True),
            "retried 3 jobs (2 failed, 1 lost), round 1",
        ),
        (
            change("exclude", counts={"awaiting_metrics": {"excluded": 2}}),
            "excluding 2 jobs (2 awaiting metrics)",
        ),
        (change("include", counts={"excluded": {"completed": 2}}, dry_run=True), "would include 2 jobs (2 excluded)"),
        (change("pause"), "paused, no more jobs start"),
        (change("pause", dry_run=True), "would be paused, no more jobs start"),
        (
            change("pause", request={"now": True}),
            "paused, no more jobs start, and running ones pause if they can",
        ),
        (change("resume"), "resumed, and running"),
        (change("resume", dry_run=True), "would be resumed, and running"),
        (change("resume", state="paused"), "stays paused: its budget is used up; raise it with `ems set`"),
        (
            change("set", request={"priority": 5, "max_failed": "5%", "max_concurrent": None}),
            "set: priority 5, max_concurrent as in the plan, max_failed 5%",
        ),
        (change("close"), "closed, it ends as soon as its jobs have"),
        (change("close", state="completed"), "closed, and completed"),
        (change("extend", **NEW), "adding 8 points and 40 jobs, 100 points unchanged (round 2)"),
        (
            change("extend", **{**NEW, "withdrawn": 1, "unchanged": 1}, dry_run=True),
            "would add 8 points and 40 jobs, would withdraw 1 point, 1 point unchanged (round 2)",
        ),
        (
            change("extend", counts={"new": {"pending": 1}}, added=0, applied=True),
            "added 1 job (round 1)",
        ),
        (
            change("extend", counts={"completed": {"excluded": 2}}, withdrawn=2, unchanged=3, applied=True),
            "withdrew 2 points, 3 points unchanged (round 1)",
        ),
        (
            change("extend", counts={"cancelled": {"pending": 4}}, unchanged=2),
            "4 jobs again, 2 points unchanged (round 1)",
        ),
        (change("extend"), "adding points, none so far (round 1)"),
        (change("extend", applied=True), "no points (round 1)"),
        (change("extend", counts=None), "adding points, which are still being compared"),
        (change("extend", counts=None, dry_run=True), "would add points, too many to compare them in time"),
        (
            change("cancel", changed=False, reason="it has ended (completed)"),
            "nothing changed: it has ended (completed)",
        ),
        (change("retry", changed=False, reason="no job is to be retried", dry_run=True), None),
    ],
)
def test_a_change_is_one_sentence(document: dict[str, Any], sentence: str | None) -> None:
    """It has the number of jobs and their states, and says of a dry run that it would happen."""
    expected = sentence or "nothing would change: no job is to be retried"
    assert changed.sentence(document) == f"reef: {expected}"


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (change("pause"), "reef: paused, no more jobs start\n"),
        (
            {"changes": [change("pause"), {**change("resume"), "experiment_id": "other"}]},
            "reef: paused, no more jobs start\nother: resumed, and running\n",
        ),
        ({"changes": []}, ""),
        ({"changes": [], "resumed": True, "dry_run": False}, "the worker starts runs again\n"),
        ({"changes": [], "resumed": True, "dry_run": True}, "the worker would start runs again\n"),
        ({"changes": [], "resumed": False, "dry_run": False}, "nothing changed: the worker is not held\n"),
        ({"changes": [], "resumed": False, "dry_run": True}, "nothing would change: the worker is not held\n"),
    ],
)
def test_a_group_is_a_line_for_each_experiment(
    document: dict[str, Any], lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group without experiments is said on stderr."""
    changed.show(document, json=False)
    printed = capsys.readouterr()
    assert (printed.out, bool(printed.err)) == (lines, document.get("changes") == [] and "resumed" not in document)


SO_FAR = {"counts": {"pending": {"cancelled": 5}}, "added": None, "withdrawn": None, "unchanged": None}


def latest(verb: str, **keys: Any) -> dict[str, Any]:
    return {**change(verb, **keys), "so_far": SO_FAR}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ([], []),
        (
            [
                latest("cancel", counts=None, request={"where": "lr > 0.01", "reason": "too hot"}),
                latest("retry", counts={}, applied=True),
                latest("pause"),
            ],
            [
                "  in progress: cancelling 5 jobs (5 pending) where lr > 0.01 (too hot)",
                "  in progress: paused, no more jobs start",
            ],
        ),
        (
            [latest("retry", counts={"lost": {"pending": 1}}, applied=True), latest("pause", applied=True)],
            ["  last change: retried 1 job (1 lost), round 1"],
        ),
        (
            [latest("resume", changed=False), latest("resume", request={"reason": "go"}, applied=True)],
            ["  last change: resumed, and running (go)"],
        ),
    ],
)
def test_changes_in_progress_are_shown_or_else_the_last_one(
    changes: list[dict[str, Any]], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A change whose jobs are not all judged has the numbers so far. What changed nothing is left out."""
    changed.show_latest({"changes": changes})
    assert capsys.readouterr().out.splitlines() == lines


def test_a_reason_adds_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else's words could look like one of ours."""
    forged = change("pause", applied=True, request={"reason": "x\n  paused by: nobody"})
    changed.show_latest({"changes": [forged]})
    changed.show(change("retry", changed=False, reason="a\nb"), json=False)
    assert len(capsys.readouterr().out.splitlines()) == 2
