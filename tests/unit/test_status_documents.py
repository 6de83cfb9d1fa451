"""Statuses of experiments that somebody pauses, cancels or excludes jobs of, and rounds that have settled."""

from fractions import Fraction

import pytest
from msgspec.structs import replace

from ems_worker.core.documents import documents, limits
from ems_worker.core.language.options import ExperimentLimits, MaxFailed
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentState, PauseOwner
from ems_worker.core.lifecycle.tally import Bucket, Tally
from ems_worker.core.records import Experiment, NewExperiment, PointRecord, PointRow

SPEC = NewExperiment("reef", "Reef", b"", b"{}", "ab", 2, 4, 2, 1000, goal_metric="population", goal="maximize")
RECORD = Experiment(1, SPEC, ExperimentState.RUNNING)
BEST = PointRow(PointRecord(1, {"food": 1}), {Bucket.COMPLETED: 1}, {"population": Aggregate().add(2.0)}, 1)


@pytest.mark.parametrize(
    ("step", "total", "share"),
    [(None, None, 0.0), (3, None, 0.0), (None, 4, 0.0), (3, 4, 0.75), (9, 4, 1.0), (-1, 4, 0.0), (3, 0, 0.0)],
)
def test_the_share_of_a_run_is_between_nothing_and_all(step: float | None, total: float | None, share: float) -> None:
    """A run that reports more than its total is done, and one that reports no total has done nothing yet."""
    assert documents.share(step, total) == share


@pytest.mark.parametrize(
    ("ended", "underway", "progress"), [(1, 0.0, 0.25), (1, 1.5, 0.625), (1, 9.0, 1.0), (4, 0.5, 1.0)]
)
def test_progress_counts_what_open_runs_have_done(ended: int, underway: float, progress: float) -> None:
    """Progress is never above 1, whatever runs report."""
    tally = Tally(4, {Bucket.COMPLETED: ended})
    status = documents.status(
        RECORD, tally, worker_id="w", now_ms=0, pace=documents.Pace(), underway=underway, excluded=2
    )
    assert (status["progress"], status["excluded"]) == (progress, 2)


def test_a_status_says_who_pauses_and_whether_it_is_being_cancelled() -> None:
    """The owners are in the order of their names. A cancelled experiment that has ended isn't being cancelled."""
    pauses = frozenset({PauseOwner.PERSON, PauseOwner.HOLD})
    paused = replace(RECORD, state=ExperimentState.PAUSED, pauses=pauses, kept_open=True, settled_round=1)
    cancelling = replace(RECORD, cancel=CancelMode.DRAIN)
    gone = replace(cancelling, state=ExperimentState.CANCELLED)
    shown = [
        documents.status(record, Tally(1), worker_id="w", now_ms=0, pace=documents.Pace())
        for record in (paused, cancelling, gone)
    ]
    assert (paused.standing.pauses, cancelling.standing.cancel) == (pauses, CancelMode.DRAIN)
    keys = ("pauses", "kept_open", "settled", "cancelling")
    assert [tuple(status[key] for key in keys) for status in shown] == [
        (["hold", "person"], True, True, None),
        ([], False, False, "drain"),
        ([], False, False, None),
    ]


def test_limits_are_written_as_in_a_plan() -> None:
    """The number of jobs that may fail is a number or a percentage."""
    of_jobs = ExperimentLimits(max_failed=MaxFailed(percent=Fraction(25, 2)), priority=-3)
    assert limits.in_force(of_jobs) == {
        "max_concurrent": None,
        "run_timeout_seconds": None,
        "max_attempts": 3,
        "retry_on": ["infrastructure", "lost", "timeout"],
        "max_failed": "12.5%",
        "fail_fast": False,
        "priority": -3,
    }
    assert limits.in_force(ExperimentLimits(max_failed=MaxFailed(count=4)))["max_failed"] == 4


def test_a_settled_round_has_its_counts_and_stragglers() -> None:
    """It says whether the quorum ended or all jobs did, and up to which result it counts."""
    tally = Tally(4, {Bucket.COMPLETED: 2, Bucket.RUNNING: 1}, {"population": Aggregate().add(2.0)})
    quorum = documents.settled(RECORD, tally, by_quorum=True, ended_seq=2, now_ms=0, best=BEST, excluded=1)
    assert (quorum["schema"], quorum["round"], quorum["reason"]) == ("ems.settled.v1", 1, "quorum")
    assert (quorum["total"], quorum["stragglers"], quorum["ended_seq"], quorum["excluded"]) == (4, 2, 2, 1)
    assert (quorum["counts"]["pending"], quorum["best"]["point"]) == (1, 1)
    assert quorum["metrics"]["population"]["mean"] == 2.0
    ended = documents.settled(RECORD, Tally(1, {Bucket.LOST: 1}), by_quorum=False, ended_seq=1, now_ms=0)
    assert (ended["reason"], ended["stragglers"], ended["best"]) == ("ended", 0, None)
