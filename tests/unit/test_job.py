"""A job: which attempt represents it, when it ends, and when it is retried."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ems_worker.core.lifecycle import job, transitions
from ems_worker.core.lifecycle.job import Job, RetryPolicy
from ems_worker.core.lifecycle.run import ErrorKind, Signal, StopReason
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState

POLICY = RetryPolicy(max_attempts=3)
CLAIM, ACCEPT, START = Signal(RunEvent.CLAIM), Signal(RunEvent.ACCEPT), Signal(RunEvent.START)
COMPLETE = Signal(RunEvent.COMPLETE, metrics={"x": 1.0})
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "gone")
BROKEN = Signal(RunEvent.FAIL, ErrorKind.INFRASTRUCTURE, "node died")
WRONG = Signal(RunEvent.FAIL, ErrorKind.SIMULATION, "NaN in the model")


def a_job(*signals: tuple[int, Signal]) -> Job:
    """A job after these signals, each for the attempt of that number."""
    current = Job((job.first(3, 1, 99),))
    for attempt, signal in signals:
        current = job.apply(current, attempt, signal, POLICY, now_ms=1000).job
    return current


def test_a_job_ends_with_its_first_completed_attempt() -> None:
    """The completed attempt represents the job, and there is nothing to stop."""
    before = a_job((1, CLAIM), (1, ACCEPT), (1, START))
    decision = job.apply(before, 1, COMPLETE, POLICY, now_ms=2000)
    assert decision.ended
    assert decision.job.current.state is RunState.COMPLETED
    assert decision.stop == ()


def test_an_infrastructure_failure_is_retried_after_a_pause() -> None:
    """The next attempt has the same seed, and the job has not ended."""
    decision = job.apply(a_job((1, CLAIM), (1, ACCEPT)), 1, BROKEN, POLICY, now_ms=10_000)
    assert not decision.ended
    second = decision.job.current
    assert (second.attempt, second.state, second.seed) == (2, RunState.PENDING, 99)
    assert 10_500 <= second.due_ms <= 11_500
    assert not decision.job.attempt(1).current


def test_a_job_is_open_while_one_of_its_attempts_is() -> None:
    """A new or an ended attempt isn't in the run window, however many there are."""
    assert not a_job().open
    assert a_job((1, CLAIM)).open
    retried = a_job((1, CLAIM), (1, ACCEPT), (1, BROKEN))
    assert not retried.open
    assert job.apply(retried, 2, CLAIM, POLICY, now_ms=20_000).job.open


def test_the_changes_of_a_job_are_its_attempts_that_differ() -> None:
    """Each with what it was before: nothing for a new attempt."""
    submitted = a_job((1, CLAIM), (1, ACCEPT))
    retried = job.apply(submitted, 1, BROKEN, POLICY, now_ms=10_000).job
    assert job.changed(submitted, retried) == [(submitted.current, retried.attempt(1)), (None, retried.attempt(2))]
    assert job.changed(a_job(), submitted) == [(a_job().current, submitted.current)]
    assert job.changed(submitted, submitted) == job.changed(retried, retried) == []


def test_a_failure_of_the_simulation_is_not_retried() -> None:
    """It would fail again, so it ends the job."""
    decision = job.apply(a_job((1, CLAIM)), 1, WRONG, POLICY, now_ms=1)
    assert decision.ended
    assert len(decision.job.runs) == 1


def test_a_failure_that_the_orchestrator_calls_not_retryable_is_not_retried() -> None:
    """`retryable: false` wins over the plan's `retry_on`."""
    decision = job.apply(a_job((1, CLAIM)), 1, replace(BROKEN, retryable=False), POLICY, now_ms=1)
    assert decision.ended


def test_a_job_has_at_most_max_attempts() -> None:
    """The last attempt then represents the job."""
    before = a_job((1, CLAIM), (1, BROKEN), (2, CLAIM), (2, BROKEN), (3, CLAIM))
    decision = job.apply(before, 3, BROKEN, POLICY, now_ms=1)
    assert decision.ended
    assert decision.job.current.attempt == 3


def test_a_failure_is_not_retried_if_retries_are_turned_off() -> None:
    """An experiment that is ending starts no new attempts."""
    decision = job.apply(a_job((1, CLAIM)), 1, BROKEN, POLICY, now_ms=1, retries=lambda: False)
    assert decision.ended


def test_a_late_completion_of_a_lost_attempt_wins_and_the_open_one_is_stopped() -> None:
    """The first completed attempt represents the job, also when the other one completes."""
    before = a_job((1, CLAIM), (1, ACCEPT), (1, LOSE), (2, CLAIM), (2, ACCEPT))
    decision = job.apply(before, 1, COMPLETE, POLICY, now_ms=1)
    assert decision.ended
    assert decision.stop == (2,)
    assert decision.job.current.attempt == 1
    assert decision.job.attempt(2).stop_reason is StopReason.SUPERSEDED
    later = job.apply(decision.job, 2, COMPLETE, POLICY, now_ms=2)
    assert not later.ended
    assert later.job.current.attempt == 1


def test_a_late_completion_cancels_the_pending_next_attempt() -> None:
    """It needs no STOP, because no command was sent."""
    decision = job.apply(a_job((1, CLAIM), (1, LOSE)), 1, COMPLETE, POLICY, now_ms=1)
    assert decision.job.attempt(2).state is RunState.CANCELLED
    assert decision.stop == ()
    assert decision.job.current.attempt == 1


def test_the_late_failure_of_a_lost_attempt_leaves_the_next_one_alone() -> None:
    """The failure is recorded on its row, and the next attempt still represents the job."""
    before = a_job((1, CLAIM), (1, LOSE), (2, CLAIM))
    decision = job.apply(before, 1, BROKEN, POLICY, now_ms=1)
    assert decision.effect is Effect.APPLY
    assert not decision.ended
    assert decision.job.current == before.current


def test_a_job_that_ended_lost_ends_again_when_its_real_end_arrives() -> None:
    """The result gets the next revision, and the job isn't retried."""
    policy = RetryPolicy(retry_on=frozenset({ErrorKind.INFRASTRUCTURE}))
    lost = job.apply(a_job((1, CLAIM)), 1, LOSE, policy, now_ms=1)
    assert lost.ended
    numbered = job.number_end(lost.job, 8)
    assert (numbered.current.ended_seq, numbered.current.job_revision) == (8, 1)
    failed = job.apply(numbered, 1, BROKEN, policy, now_ms=2)
    assert failed.ended
    assert len(failed.job.runs) == 1
    assert job.number_end(failed.job, 9).current.job_revision == 2


def test_the_revision_continues_when_another_attempt_represents_the_job() -> None:
    """Only the row of that attempt has a position among the ends."""
    lost = a_job((1, CLAIM), (1, LOSE), (2, CLAIM), (2, LOSE), (3, CLAIM), (3, LOSE))
    ended = job.number_end(lost, 4)
    decision = job.apply(ended, 1, COMPLETE, POLICY, now_ms=1)
    again = job.number_end(decision.job, 5)
    assert (again.current.attempt, again.current.job_revision, again.current.ended_seq) == (1, 2, 5)
    assert again.attempt(3).ended_seq is None


def test_changes_are_the_attempts_that_differ() -> None:
    """Each changed attempt comes with its earlier state, and a new one with None."""
    before = a_job((1, CLAIM))
    after = job.apply(before, 1, BROKEN, POLICY, now_ms=1).job
    first, second = job.changed(before, after)
    assert first[0] == before.attempt(1)
    assert first[1] == after.attempt(1)
    assert second == (None, after.attempt(2))
    assert list(job.changed(after, after)) == []


def test_the_pause_before_the_next_attempt_doubles_up_to_a_limit() -> None:
    """The spread is half of the pause to both sides, and depends only on the job and the attempt."""
    for attempt in range(1, 20):
        base = min(job.MAX_BACKOFF_SECONDS, job.FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1))
        pause = job.backoff_seconds(attempt, "j")
        assert 0.5 * base <= pause <= 1.5 * base
        assert pause == job.backoff_seconds(attempt, "j")
    assert job.backoff_seconds(1, "a") != job.backoff_seconds(1, "b")


WAITS = RetryPolicy(awaited=frozenset({"score"}))
SCORED = Signal(RunEvent.MEASURE, metrics={"score": 2.0})


def test_a_job_that_waits_for_metrics_ends_when_they_arrive() -> None:
    """The completion of its run doesn't end it."""
    waiting = job.apply(a_job((1, CLAIM)), 1, COMPLETE, WAITS, now_ms=1)
    assert not waiting.ended
    ended = job.apply(waiting.job, 1, SCORED, WAITS, now_ms=2)
    assert ended.ended
    assert ended.job.current.settled


def test_missing_metrics_end_a_job_and_a_retry_waits_again_without_a_new_run() -> None:
    """If they arrive then, the result gets the next revision."""
    waiting = job.apply(a_job((1, CLAIM)), 1, COMPLETE, WAITS, now_ms=1).job
    expired = job.apply(waiting, 1, Signal(RunEvent.EXPIRE), WAITS, now_ms=2)
    assert expired.ended
    again = job.again(job.number_end(expired.job, 7), 3)
    assert again is not None
    assert len(again.runs) == 1
    assert not again.current.settled
    assert again.current.ended_seq is None
    ended = job.number_end(job.apply(again, 1, SCORED, WAITS, now_ms=4).job, 8)
    assert (ended.current.job_revision, ended.current.ended_seq) == (2, 8)


def test_a_retry_gives_failed_and_lost_jobs_one_more_attempt() -> None:
    """The number of attempts left doesn't matter. A retry doesn't include completed and open jobs."""
    failed = job.number_end(job.apply(a_job((1, CLAIM)), 1, WRONG, POLICY, now_ms=1).job, 3)
    again = job.again(failed, 5)
    assert again is not None
    assert (again.current.attempt, again.current.state, again.current.job_revision) == (2, RunState.PENDING, 1)
    assert again.attempt(1).ended_seq is None
    assert job.again(again, 6) is None
    assert job.again(a_job((1, CLAIM), (1, COMPLETE)), 6) is None


def test_a_retry_includes_a_job_that_was_dropped_but_no_other_cancelled_one() -> None:
    """The stop reason on its run shows that the job was dropped because too many others failed."""
    dropped = a_job((1, Signal(RunEvent.CANCEL)))
    assert job.again(dropped, 5) is None
    marked = Job((replace(dropped.current, stop_reason=StopReason.FAILING_FAST, ended_seq=2, job_revision=1),))
    again = job.again(marked, 5)
    assert again is not None
    assert (again.current.attempt, again.current.state, again.current.job_revision) == (2, RunState.PENDING, 1)
    assert (again.attempt(1).current, again.attempt(1).ended_seq, again.current.stop_reason) == (False, None, None)


SIGNALS = st.sampled_from([CLAIM, ACCEPT, START, COMPLETE, LOSE, BROKEN, WRONG, Signal(RunEvent.CANCEL)])


@given(st.lists(st.tuples(st.integers(1, 3), SIGNALS), max_size=25))
def test_after_any_signals_one_attempt_represents_the_job_and_the_first_completed_one_wins(
    signals: list[tuple[int, Signal]],
) -> None:
    """Exactly one row is current, attempts have no gaps, a completed job stays so, and ends are numbered in order."""
    after = Job((job.first(0, 0, 1),))
    seq, winner = 0, None
    for attempt, signal in signals:
        if attempt > len(after.runs):
            continue
        before = after
        decision = job.apply(before, attempt, signal, POLICY, now_ms=1)
        after = decision.job
        if decision.ended:
            seq += 1
            after = job.number_end(after, seq)
            assert after.current.job_revision == before.current.job_revision + 1
        assert sum(run.current for run in after.runs) == 1
        assert [run.attempt for run in after.runs] == list(range(1, len(after.runs) + 1))
        assert all(run.ended_seq is None for run in after.runs if not run.current)
        if winner is None and after.current.state is RunState.COMPLETED:
            winner = after.current.attempt
        if winner is not None:
            assert after.current.attempt == winner
        # Earlier attempts have ended before the next one exists; after a late completion others may still be open.
        assert all(run.state in transitions.TERMINAL for run in after.runs[:-1]) or winner is not None
    assert after.key == (0, 0)
