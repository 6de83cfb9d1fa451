"""An experiment: its states, and the tally of its jobs."""

from msgspec.structs import replace

from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import Bucket, ExperimentEvent, ExperimentState, Tally
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.transitions import RunState

PENDING = Run(point=0, replicate=0, attempt=1, seed=1)


def moved(state: RunState, **more: object) -> Run:
    return replace(PENDING, state=state, **more)


def test_every_pair_of_state_and_event_is_decided() -> None:
    """The table has an answer for every event in every state."""
    assert set(experiment.TRANSITIONS) == {(s, e) for s in ExperimentState for e in ExperimentEvent}


def test_an_ended_experiment_can_only_be_reopened() -> None:
    """It is running then."""
    effective = {event for (state, event), to in experiment.TRANSITIONS.items() if state in experiment.ENDED and to}
    assert effective == {ExperimentEvent.REOPEN}
    assert experiment.TRANSITIONS[ExperimentState.FAILED, ExperimentEvent.REOPEN] is ExperimentState.RUNNING


def test_an_experiment_can_end_in_every_open_state() -> None:
    """Its jobs may all be cancelled before it has begun, or while it is paused."""
    ends = {ExperimentEvent.SUCCEED: "completed", ExperimentEvent.MISS: "failed", ExperimentEvent.ABANDON: "cancelled"}
    for state in set(ExperimentState) - experiment.ENDED:
        for event, to in ends.items():
            assert experiment.TRANSITIONS[state, event] == to


def test_a_cancelled_experiment_is_not_paused_any_more() -> None:
    """It runs until its jobs are out."""
    assert experiment.TRANSITIONS[ExperimentState.PAUSED, ExperimentEvent.CANCEL] is ExperimentState.RUNNING


def test_a_job_that_waits_for_metrics_has_not_ended_and_fails_if_they_are_missing() -> None:
    """Its published states are awaiting_metrics and failed."""
    waiting = moved(RunState.COMPLETED, waiting=Waiting.AWAITING)
    missing = moved(RunState.COMPLETED, waiting=Waiting.MISSING)
    assert experiment.job_state(waiting) == "awaiting_metrics"
    assert experiment.job_state(missing) == "failed"
    assert experiment.job_state(moved(RunState.FAILED, error_kind=ErrorKind.INFEASIBLE)) == "failed"
    tally = Tally(2, metrics={"score": Aggregate()}).after([(PENDING, waiting), (PENDING, missing)])
    assert (tally.ended, tally.failures) == (1, 1)
    scored = moved(RunState.COMPLETED, metrics={"score": 4.0})
    tally = tally.after([(waiting, scored), (missing, scored)])
    assert tally.counts[Bucket.COMPLETED] == 2
    assert tally.metrics["score"].n == 2


def test_a_metric_that_arrives_after_the_end_is_no_longer_missing() -> None:
    """The aggregates include it once, and values that were known before are not counted again."""
    first = moved(RunState.COMPLETED, metrics={"x": 1.0})
    tally = Tally(1, metrics={"x": Aggregate(), "y": Aggregate()}).after([(PENDING, first)])
    assert tally.metrics["y"].missing == 1
    tally = tally.after([(first, moved(RunState.COMPLETED, metrics={"x": 1.0, "y": 5.0}))])
    assert (tally.metrics["y"].missing, tally.metrics["y"].mean, tally.metrics["x"].n) == (0, 5.0, 1)


def test_jobs_that_are_not_expanded_count_as_pending() -> None:
    """So the counts add up to the number of jobs from the beginning."""
    tally = Tally(10)
    assert tally.by_bucket[Bucket.PENDING] == 10
    after = tally.after([(PENDING, moved(RunState.SUBMITTING)), (None, moved(RunState.CANCELLED))])
    assert after.by_bucket[Bucket.PENDING] == 8
    assert sum(after.by_bucket.values()) == 10
    assert after.ended == 1


def test_infeasible_jobs_have_a_count_of_their_own_and_are_no_failures() -> None:
    """An infeasible configuration is a finding about the model, not a failure of the experiment."""
    infeasible = moved(RunState.FAILED, error_kind=ErrorKind.INFEASIBLE)
    tally = Tally(2).after([(PENDING, infeasible), (PENDING, moved(RunState.LOST))])
    assert tally.counts[Bucket.INFEASIBLE] == 1
    assert tally.failures == 1


def test_only_completed_jobs_are_aggregated() -> None:
    """A tracked metric that a result lacks counts as missing, not as zero."""
    tally = Tally(3, metrics={"x": Aggregate()}).after(
        [
            (PENDING, moved(RunState.COMPLETED, metrics={"x": 2.0})),
            (PENDING, moved(RunState.COMPLETED, metrics=None)),
            (PENDING, moved(RunState.FAILED, metrics={"x": 50.0})),
            (moved(RunState.COMPLETED), moved(RunState.COMPLETED)),
        ]
    )
    assert tally.metrics["x"] == Aggregate(1, 2.0, 0.0, 2.0, 2.0, 1)
