"""An experiment: its states, the tally of its jobs, and its conclusion."""

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import Bucket, ExperimentEvent, ExperimentState, Tally
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.transitions import RunState

PENDING = Run(point=0, replicate=0, attempt=1, seed=1)


def moved(state: RunState, **more: object) -> Run:
    return replace(PENDING, state=state, **more)  # type: ignore[arg-type]  # fields by name


def test_every_pair_of_state_and_event_is_decided() -> None:
    """The table has an answer for every event in every state."""
    assert set(experiment.TRANSITIONS) == {(s, e) for s in ExperimentState for e in ExperimentEvent}


def test_an_ended_experiment_can_only_be_reopened() -> None:
    """It is running then."""
    effective = {event for (state, event), to in experiment.TRANSITIONS.items() if state in experiment.ENDED and to}
    assert effective == {ExperimentEvent.REOPEN}
    assert experiment.TRANSITIONS[ExperimentState.FAILED, ExperimentEvent.REOPEN] is ExperimentState.RUNNING


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
    assert experiment.conclusion(tally, 1) is ExperimentEvent.SUCCEED


@pytest.mark.parametrize(("allowed", "event"), [(0, ExperimentEvent.MISS), (1, ExperimentEvent.SUCCEED)])
def test_an_experiment_ends_when_every_job_has_and_fails_above_what_is_allowed(
    allowed: int, event: ExperimentEvent
) -> None:
    """There is no conclusion while a job is open."""
    failed = moved(RunState.FAILED, error_kind=ErrorKind.SIMULATION)
    tally = Tally(2).after([(PENDING, failed)])
    assert experiment.conclusion(tally, allowed) is None
    assert experiment.conclusion(tally.after([(PENDING, moved(RunState.COMPLETED))]), allowed) is event


def test_an_experiment_with_dropped_jobs_has_failed() -> None:
    """This holds even if the job that had failed turns out to have completed, until the dropped jobs are retried."""
    lost, dropped = moved(RunState.LOST), moved(RunState.CANCELLED)
    tally = Tally(2).after([(PENDING, lost), (PENDING, dropped)])
    assert experiment.conclusion(tally, 0) is ExperimentEvent.MISS
    assert experiment.reason(tally, 0) == "too many jobs failed"
    tally = tally.after([(lost, moved(RunState.COMPLETED))])
    assert experiment.conclusion(tally, 0) is ExperimentEvent.MISS
    assert experiment.reason(tally, 0) == "1 job was cancelled because too many failed"
    assert experiment.conclusion(tally.after([(dropped, moved(RunState.COMPLETED))]), 0) is ExperimentEvent.SUCCEED


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


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_aggregates_are_mean_and_sample_standard_deviation(values: list[float]) -> None:
    """They agree with `statistics.mean` and `statistics.stdev`."""
    aggregate = Aggregate()
    for value in values:
        aggregate = aggregate.add(value)
    assert aggregate.n == len(values)
    assert aggregate.mean == pytest.approx(statistics.mean(values), rel=1e-9, abs=1e-6)
    assert aggregate.std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)
    assert (aggregate.min, aggregate.max) == (min(values), max(values))


def test_values_that_are_not_finite_are_missing() -> None:
    """NaN and infinities are left out of the mean, and a single value has no deviation."""
    aggregate = Aggregate().add(math.nan).add(math.inf).add(None).add(1.0)
    assert (aggregate.n, aggregate.missing, aggregate.mean, aggregate.std) == (1, 3, 1.0, None)
