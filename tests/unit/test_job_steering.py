"""What cancel, retry, exclude and include do to a job, in each of its states."""

from collections.abc import Iterable
from itertools import product

import pytest
from msgspec.structs import replace

from ems_worker.core.lifecycle import job, tally, transitions
from ems_worker.core.lifecycle.job import Job, RetryPolicy
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason, Waiting
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState

POLICY = RetryPolicy(awaited=frozenset({"score"}))
FIRST = Run(point=2, replicate=1, attempt=1, seed=7)
EARLIER = replace(FIRST, state=RunState.LOST, error_kind=ErrorKind.LOST, finished_ms=1, current=False)
RUNNING = replace(FIRST, state=RunState.RUNNING, started_ms=1)
BROKEN = Signal(RunEvent.FAIL, ErrorKind.INFRASTRUCTURE, "node died")
STOPPED = Signal(RunEvent.FAIL, ErrorKind.STOPPED, "stopped")
CALLING_OFF = (StopReason.CANCELLED, StopReason.STRAGGLER, StopReason.RACED)


def currents() -> Iterable[Run]:
    """Runs that may represent a job, with everything that a verb looks at."""
    combinations = product(RunState, (1, 2), (None, *StopReason), (False, True), (None, *ErrorKind), (None, *Waiting))
    for state, attempt, stop_reason, drains, kind, waiting in combinations:
        ended = state in transitions.TERMINAL
        if (waiting is not None and state is not RunState.COMPLETED) or kind is ErrorKind.METRICS_MISSING:
            continue
        if (kind is not None) != (state in (RunState.FAILED, RunState.LOST)) or stop_reason is StopReason.SUPERSEDED:
            continue
        if state is RunState.PENDING and (stop_reason is not None or drains):
            continue
        yield replace(
            FIRST,
            state=state,
            attempt=attempt,
            stop_reason=stop_reason,
            drains=drains,
            error_kind=kind,
            waiting=waiting,
            finished_ms=1 if ended else None,
            ended_seq=4 if ended and waiting is not Waiting.AWAITING else None,
            job_revision=1,
        )


def a_job(current: Run) -> Job:
    return Job((current,) if current.attempt == 1 else (EARLIER, current))


JOBS = [a_job(current) for current in currents()]


@pytest.mark.parametrize(("reason", "drain"), [*product(CALLING_OFF, (False,)), (StopReason.CANCELLED, True)])
def test_a_job_that_is_called_off_ends_or_is_on_its_way_out(reason: StopReason, drain: bool) -> None:
    """What has ended stays; what waits for its turn ends at once; what is open is stopped, or drains."""
    for before in JOBS:
        old, after = before.current, job.cancelled(before, 9, reason, drain=drain)
        if tally.bucket(old) in tally.ENDED_BUCKETS:
            assert after is None
        elif old.state is RunState.PENDING:
            assert after is not None
            new = after.current
            assert (new.state, new.stop_reason, new.finished_ms) == (RunState.CANCELLED, reason, 9)
            assert job.has_new_result(before, after) is (old.attempt == 2)
        else:
            _on_its_way_out(before, after, reason, drain=drain)
        if after is not None:
            assert after.runs[:-1] == before.runs[:-1]
            assert after.current.called_off


def _on_its_way_out(before: Job, after: Job | None, reason: StopReason, *, drain: bool) -> None:
    old = before.current
    gives_way = {None, StopReason.TIMEOUT}
    if reason is StopReason.CANCELLED and not drain:
        gives_way |= {StopReason.FAILING_FAST, StopReason.STRAGGLER, StopReason.RACED}
    if old.stop_reason not in gives_way or (drain and old.drains):
        assert after is None
        return
    assert after is not None
    new = after.current
    assert new.state is old.state
    if drain:
        assert new == replace(old, drains=True)
        return
    assert (new.stop_reason, new.drains) == (reason, False)
    missing = old.state is RunState.COMPLETED
    assert new.waiting is (Waiting.MISSING if missing else None)
    assert job.has_new_result(before, after) is missing


@pytest.mark.parametrize("drain", [False, True])
def test_a_job_that_is_cancelled_twice_changes_once(drain: bool) -> None:
    """The second time there is nothing to do."""
    for before in JOBS:
        if (after := job.cancelled(before, 9, StopReason.CANCELLED, drain=drain)) is not None:
            assert job.cancelled(after, 10, StopReason.CANCELLED, drain=drain) is None


@pytest.mark.parametrize("reason", CALLING_OFF)
@pytest.mark.parametrize("signal", [BROKEN, STOPPED, Signal(RunEvent.LOSE, ErrorKind.LOST), Signal(RunEvent.CANCEL)])
@pytest.mark.parametrize("drain", [False, True])
def test_a_job_that_was_called_off_gets_no_next_attempt(reason: StopReason, signal: Signal, drain: bool) -> None:
    """However its run ends, that ends the job; a confirmed STOP is a cancellation."""
    cancelled = job.cancelled(a_job(RUNNING), 9, reason, drain=drain)
    assert cancelled is not None
    applied = job.apply(cancelled, 1, signal, POLICY, now_ms=10)
    assert applied.ended
    assert len(applied.job.runs) == 1
    assert applied.job.current.called_off
    if signal is STOPPED:
        assert applied.job.current.state is (RunState.FAILED if drain else RunState.CANCELLED)


def test_a_job_that_was_called_off_and_completes_all_the_same_is_completed() -> None:
    """Its result is worth having."""
    stopping = job.cancelled(a_job(RUNNING), 9, StopReason.CANCELLED)
    assert stopping is not None
    completed = job.apply(stopping, 1, Signal(RunEvent.COMPLETE, metrics={"score": 1.0}), POLICY, now_ms=10)
    assert tally.bucket(completed.job.current) is Bucket.COMPLETED
    lost = job.apply(stopping, 1, Signal(RunEvent.LOSE, ErrorKind.LOST), POLICY, now_ms=10).job
    late = job.apply(lost, 1, Signal(RunEvent.COMPLETE, metrics={"score": 1.0}), POLICY, now_ms=11)
    assert tally.bucket(late.job.current) is Bucket.COMPLETED


def test_metrics_that_arrive_after_a_cancellation_complete_the_job() -> None:
    """Its run had completed, and only the waiting was called off."""
    waiting = job.apply(a_job(RUNNING), 1, Signal(RunEvent.COMPLETE), POLICY, now_ms=9).job
    cancelled = job.cancelled(waiting, 10, StopReason.CANCELLED)
    assert cancelled is not None
    assert tally.bucket(cancelled.current) is Bucket.FAILED
    assert job.error_kind(cancelled.current) is ErrorKind.METRICS_MISSING
    scored = job.apply(cancelled, 1, Signal(RunEvent.MEASURE, metrics={"score": 2.0}), POLICY, now_ms=11)
    assert scored.ended
    assert tally.bucket(scored.job.current) is Bucket.COMPLETED


NAMES = [None, *(frozenset(names) for names in ((), ("point",), ("state",), ("error_kind",), ("state", "error_kind")))]


@pytest.mark.parametrize("names", NAMES)
def test_a_retry_takes_what_has_no_result_and_what_nobody_called_off(names: frozenset[str] | None) -> None:
    """Infeasible jobs and those that were called off are taken only if the condition asks for that."""
    for before in JOBS:
        old, after = before.current, job.again(before, 9, names)
        bucket = tally.bucket(old)
        taken = bucket in tally.ENDED_BUCKETS - {Bucket.COMPLETED}
        dropped = old.stop_reason is StopReason.FAILING_FAST
        if old.drains or old.stop_reason in CALLING_OFF or (bucket is Bucket.CANCELLED and not dropped):
            taken = taken and "state" in (names or ())
        elif bucket is Bucket.INFEASIBLE:
            taken = "error_kind" in (names or ())
        assert (after is not None) is taken
        assert job.retried(old, names) is taken


def test_a_retried_job_is_open_and_nobody_has_called_it_off() -> None:
    """It waits for its metrics again, or gets the next attempt with the same seed, at once."""
    for before in JOBS:
        if (after := job.again(before, 9, frozenset({"state", "error_kind"}))) is None:
            continue
        new = after.current
        assert not new.settled
        assert not new.called_off
        assert (new.stop_reason, new.ended_seq, new.job_revision, new.seed) == (None, None, 1, 7)
        assert not job.has_new_result(before, after)
        assert job.again(after, 10, frozenset({"state", "error_kind"})) is None
        if before.current.waiting is Waiting.MISSING:
            assert len(after.runs) == len(before.runs)
            assert new.waiting is Waiting.AWAITING
        else:
            assert [run.attempt for run in after.runs] == list(range(1, len(before.runs) + 2))
            assert (new.state, new.due_ms) == (RunState.PENDING, 0)


def test_every_attempt_of_an_excluded_job_says_why() -> None:
    """Everything else about the job stays, and it is included as it was. A repetition changes nothing."""
    for before in JOBS:
        excluded = job.excluded(before, "bad disk")
        assert excluded is not None
        assert {run.excluded for run in excluded.runs} == {"bad disk"}
        assert job.excluded(excluded, "bad disk") is None
        other = job.excluded(excluded, "wrong units")
        assert other is not None
        assert {run.excluded for run in other.runs} == {"wrong units"}
        assert job.included(excluded) == before
        assert job.included(before) is None
        has_result = before.current.settled
        assert job.has_new_result(before, excluded) is job.has_new_result(excluded, before) is has_result


def test_exclusion_gives_no_result_to_a_job_that_never_started() -> None:
    """It was only counted when it was cancelled."""
    cancelled = job.cancelled(a_job(FIRST), 9, StopReason.CANCELLED)
    assert cancelled is not None
    excluded = job.excluded(cancelled, "x")
    assert excluded is not None
    assert not job.has_new_result(cancelled, excluded)


def test_each_new_attempt_takes_the_exclusion_over() -> None:
    """This is so after a failure, after a retry, and when a late attempt wins."""
    excluded = job.excluded(a_job(RUNNING), "x")
    assert excluded is not None
    lost = job.apply(excluded, 1, Signal(RunEvent.LOSE, ErrorKind.LOST), POLICY, now_ms=9).job
    assert (lost.current.attempt, lost.current.excluded) == (2, "x")
    won = job.apply(lost, 1, Signal(RunEvent.COMPLETE, metrics={"score": 1.0}), POLICY, now_ms=10).job
    assert (won.current.attempt, won.current.excluded) == (1, "x")
    failed = job.apply(excluded, 1, Signal(RunEvent.FAIL, ErrorKind.SIMULATION), POLICY, now_ms=9).job
    again = job.again(failed, 10)
    assert again is not None
    assert again.current.excluded == "x"


def test_a_job_has_no_new_result_while_nothing_about_it_changed() -> None:
    """Nor while it is open."""
    for before in JOBS:
        assert not job.has_new_result(before, before)


def test_only_a_first_attempt_that_is_pending_was_never_started() -> None:
    """Such jobs are cancelled in bulk."""
    assert {before.current.state for before in JOBS if job.unstarted(before)} == {RunState.PENDING}
    assert {before.current.attempt for before in JOBS if job.unstarted(before)} == {1}


def test_an_attempt_that_failed_while_failing_fast_stopped_it_is_not_followed_by_another() -> None:
    """Its result was not wanted any more."""
    stopping = a_job(replace(RUNNING, stop_reason=StopReason.FAILING_FAST))
    applied = job.apply(stopping, 1, BROKEN, POLICY, now_ms=9)
    assert (applied.effect, applied.ended, len(applied.job.runs)) == (Effect.APPLY, True, 1)
