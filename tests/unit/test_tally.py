"""The tally: which jobs count, and what is known of the metrics of those that completed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ems_worker.core.lifecycle import tally as tallies
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.tally import Alike, Bucket, Tally
from ems_worker.core.lifecycle.transitions import RunState

PENDING = Run(point=0, replicate=0, attempt=1, seed=1)
COMPLETED = replace(PENDING, state=RunState.COMPLETED, metrics={"x": 4.0})
FAILED = replace(PENDING, state=RunState.FAILED, error_kind=ErrorKind.SIMULATION)
LOST = replace(PENDING, state=RunState.LOST, error_kind=ErrorKind.LOST)
CANCELLED = replace(PENDING, state=RunState.CANCELLED, stop_reason=StopReason.CANCELLED)
DROPPED = replace(CANCELLED, stop_reason=StopReason.FAILING_FAST)


def moved(state: RunState, **more: object) -> Run:
    return replace(PENDING, state=state, **more)


def tallied(*runs: Run, total: int | None = None) -> Tally:
    """The tally of jobs that are represented by these runs."""
    tally = Tally(len(runs) if total is None else total, metrics={"x": Aggregate()})
    return tally.after([(PENDING, run) for run in runs])


def test_excluded_jobs_count_on_neither_side_and_are_still_counted_by_state() -> None:
    """They are among the counts of a status, and neither failures nor completed jobs that count."""
    tally = tallied(*(replace(run, excluded="bad disk") for run in (COMPLETED, FAILED, LOST, CANCELLED, PENDING)))
    assert sum(tally.by_bucket.values()) == 5
    assert tally.by_bucket[Bucket.COMPLETED] == tally.by_bucket[Bucket.FAILED] == 1
    assert (tally.failures, tally.of(Bucket.COMPLETED), tally.counting, tally.aside) == (0, 0, 0, 5)
    assert tally.metrics["x"] == Aggregate()
    assert tally.ended == 4


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.STRAGGLER, StopReason.RACED])
def test_a_job_that_was_called_off_counts_only_if_it_completes(reason: StopReason) -> None:
    """It may have been stopped, given up, or have failed by itself meanwhile."""
    tally = tallied(*(replace(run, stop_reason=reason) for run in (COMPLETED, FAILED, LOST, CANCELLED)))
    assert (tally.failures, tally.of(Bucket.COMPLETED), tally.counting) == (0, 1, 1)
    assert tally.metrics["x"].n == 1


def test_a_job_that_drains_counts_only_if_it_completes() -> None:
    """While it is open it counts as any other, because nobody knows how it ends."""
    tally = tallied(*(replace(run, drains=True) for run in (COMPLETED, FAILED, LOST)), PENDING)
    assert (tally.failures, tally.of(Bucket.COMPLETED), tally.counting) == (0, 1, 2)


def test_an_attempt_stopped_at_its_time_limit_is_a_failure() -> None:
    """Nobody called off its job."""
    tally = tallied(replace(FAILED, error_kind=ErrorKind.TIMEOUT, stop_reason=StopReason.TIMEOUT), LOST)
    assert (tally.failures, tally.counting) == (2, 2)


def test_jobs_that_failing_fast_dropped_are_counted_unless_they_are_excluded() -> None:
    """They are no failures themselves."""
    tally = tallied(DROPPED, DROPPED, replace(DROPPED, excluded="x"), FAILED)
    assert (tally.dropped, tally.failures, tally.counting) == (2, 1, 3)
    assert tally.after([(DROPPED, replace(PENDING, attempt=2))]).dropped == 1


def test_jobs_that_never_started_are_cancelled_in_bulk_as_one_by_one() -> None:
    """The tally is the same."""
    tally = tallied(COMPLETED, PENDING, PENDING, PENDING)
    bulk, single = tally.cancelled_unstarted(2), tally.after([(PENDING, CANCELLED)] * 2)
    assert bulk.by_bucket == single.by_bucket
    assert (bulk.ended, bulk.counting, bulk.aside) == (single.ended, single.counting, single.aside) == (3, 2, 2)


def test_a_million_jobs_are_cancelled_in_one_step() -> None:
    """Those that aren't expanded yet go on counting as pending."""
    tally = Tally(1_000_000).cancelled_unstarted(999_000)
    assert (tally.by_bucket[Bucket.PENDING], tally.ended, tally.counting) == (1000, 999_000, 1000)


def test_jobs_that_an_extension_adds_are_pending() -> None:
    """The rest stays as it is."""
    tally = tallied(COMPLETED).extended(4)
    assert (tally.total, tally.ended, tally.by_bucket[Bucket.PENDING]) == (5, 1, 4)


def test_the_aggregates_are_stale_once_a_completed_job_is_excluded() -> None:
    """A value can't be taken out; an inclusion adds it again."""
    excluded = replace(COMPLETED, excluded="x")
    tally = tallied(COMPLETED, PENDING)
    assert not tally.stale
    out = tally.after([(COMPLETED, excluded)])
    assert out.stale
    read = out.reread({"x": Aggregate()})
    assert not read.stale
    back = read.after([(excluded, COMPLETED)])
    assert (back.stale, back.metrics["x"].n) == (False, 1)


def test_other_excluded_jobs_leave_the_aggregates_as_they_are() -> None:
    """They were no part of them."""
    tally = tallied(COMPLETED, FAILED, PENDING)
    after = tally.after([(FAILED, replace(FAILED, excluded="x")), (PENDING, replace(PENDING, excluded="x"))])
    assert (after.stale, after.metrics) == (False, tally.metrics)


STATES = st.builds(
    replace,
    st.sampled_from(
        [PENDING, COMPLETED, FAILED, LOST, CANCELLED, DROPPED]
        + [replace(PENDING, state=RunState.RUNNING), replace(FAILED, error_kind=ErrorKind.INFEASIBLE)]
        + [replace(COMPLETED, waiting=waiting) for waiting in Waiting]
    ),
    excluded=st.sampled_from([None, "x"]),
    drains=st.booleans(),
    stop_reason=st.sampled_from([None, *StopReason]),
)


@given(st.lists(st.lists(STATES, min_size=1, max_size=5), max_size=6))
def test_the_tally_depends_only_on_the_present_runs(histories: list[list[Run]]) -> None:
    """However jobs came to be what they are, each is counted once, as it would be if it had been so at once."""
    tally = Tally(len(histories))
    for history in histories:
        tally = tally.after(zip([PENDING, *history], history, strict=False))
    current = [history[-1] for history in histories]
    expected = Tally(len(current)).after([(PENDING, run) for run in current])
    assert tally.by_bucket == expected.by_bucket
    assert (tally.ended, tally.failures, tally.dropped) == (expected.ended, expected.failures, expected.dropped)
    assert (tally.counting, tally.aside) == (expected.counting, expected.aside)
    for name in Bucket:
        if name is not Bucket.PENDING:
            assert tally.of(name) == expected.of(name) >= 0
    assert tally.by_bucket == {**dict.fromkeys(Bucket, 0), **Counter(tallies.bucket(run) for run in current)}


@given(st.lists(STATES, max_size=20))
def test_the_tally_of_counted_jobs_is_that_of_each(runs: list[Run]) -> None:
    """This is how it is read from the manifest."""
    alike = Counter((tallies.bucket(run), run.excluded is not None, run.stop_reason, run.drains) for run in runs)
    read = tallies.tally(30, [Alike(*key, jobs) for key, jobs in alike.items()], {})
    expected = Tally(30).after([(None, run) for run in runs])
    assert read.by_bucket == expected.by_bucket
    assert (read.aside, read.dropped, read.failures) == (expected.aside, expected.dropped, expected.failures)
    assert all(read.of(name) == expected.of(name) for name in Bucket if name is not Bucket.PENDING)


def test_a_job_that_waits_for_metrics_has_not_ended_and_fails_if_they_are_missing() -> None:
    """Its published states are awaiting_metrics and failed."""
    waiting = moved(RunState.COMPLETED, waiting=Waiting.AWAITING)
    missing = moved(RunState.COMPLETED, waiting=Waiting.MISSING)
    assert tallies.job_state(waiting) == "awaiting_metrics"
    assert tallies.job_state(missing) == "failed"
    assert tallies.job_state(moved(RunState.FAILED, error_kind=ErrorKind.INFEASIBLE)) == "failed"
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
