"""A job: which attempt stands for it, when it ends, and when it is tried again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import job, transitions
from ems_worker.core.lifecycle.job import Job, RetryPolicy
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState

POLICY = RetryPolicy(max_attempts=3)
CLAIM, ACCEPT, START = Signal(RunEvent.CLAIM), Signal(RunEvent.ACCEPT), Signal(RunEvent.START)
COMPLETE = Signal(RunEvent.COMPLETE, metrics={"x": 1.0})
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "gone")
BROKEN = Signal(RunEvent.FAIL, ErrorKind.INFRASTRUCTURE, "node died")
WRONG = Signal(RunEvent.FAIL, ErrorKind.SIMULATION, "NaN in the model")


def a_job(*signals: tuple[int, Signal]) -> Job:
    one = Job((job.first(3, 1, 99),))
    for attempt, signal in signals:
        one = job.apply(one, attempt, signal, POLICY, now_ms=1000).job
    return one


def test_a_job_ends_with_its_first_completed_attempt() -> None:
    """One attempt, completed: the job ended by it."""
    before = a_job((1, CLAIM), (1, ACCEPT), (1, START))
    decision = job.apply(before, 1, COMPLETE, POLICY, now_ms=2000)
    assert decision.ended
    assert decision.job.current.state is RunState.COMPLETED
    assert decision.stop == ()


def test_a_broken_attempt_gets_a_next_one_later() -> None:
    """Infrastructure failures are retried after a pause, with the same seed, and the job has not ended."""
    decision = job.apply(a_job((1, CLAIM), (1, ACCEPT)), 1, BROKEN, POLICY, now_ms=10_000)
    assert not decision.ended
    second = decision.job.current
    assert (second.attempt, second.state, second.seed) == (2, RunState.PENDING, 99)
    assert 10_500 <= second.due_ms <= 11_500
    assert not decision.job.attempt(1).current


def test_a_wrong_simulation_is_not_tried_again() -> None:
    """What would fail again ends the job."""
    decision = job.apply(a_job((1, CLAIM)), 1, WRONG, POLICY, now_ms=1)
    assert decision.ended
    assert len(decision.job.runs) == 1


def test_not_retryable_wins_over_the_plan() -> None:
    """`retryable: false` of the orchestrator forbids another attempt, whatever the kind."""
    decision = job.apply(a_job((1, CLAIM)), 1, replace(BROKEN, retryable=False), POLICY, now_ms=1)
    assert decision.ended


def test_tries_are_bounded() -> None:
    """After max_attempts the job ends as its last attempt did."""
    one = a_job((1, CLAIM), (1, BROKEN), (2, CLAIM), (2, BROKEN), (3, CLAIM))
    decision = job.apply(one, 3, BROKEN, POLICY, now_ms=1)
    assert decision.ended
    assert decision.job.current.attempt == 3


def test_nothing_is_retried_once_it_is_not_wanted() -> None:
    """An experiment that is ending doesn't start new attempts."""
    decision = job.apply(a_job((1, CLAIM)), 1, BROKEN, POLICY, now_ms=1, retries=False)
    assert decision.ended


def test_a_late_completion_of_a_lost_attempt_wins_and_the_open_one_is_stopped() -> None:
    """The first completed attempt stands for the job; others that are open are to be stopped."""
    one = a_job((1, CLAIM), (1, ACCEPT), (1, LOSE), (2, CLAIM), (2, ACCEPT))
    decision = job.apply(one, 1, COMPLETE, POLICY, now_ms=1)
    assert decision.ended
    assert decision.stop == (2,)
    assert decision.job.current.attempt == 1
    assert decision.job.attempt(2).stop_reason is StopReason.UNWANTED
    later = job.apply(decision.job, 2, COMPLETE, POLICY, now_ms=2)
    assert not later.ended
    assert later.job.current.attempt == 1


def test_a_late_completion_drops_the_attempt_that_was_never_announced() -> None:
    """A pending next attempt is cancelled at once: nobody has heard of it."""
    decision = job.apply(a_job((1, CLAIM), (1, LOSE)), 1, COMPLETE, POLICY, now_ms=1)
    assert decision.job.attempt(2).state is RunState.CANCELLED
    assert decision.stop == ()
    assert decision.job.current.attempt == 1


def test_the_late_failure_of_a_lost_attempt_leaves_the_next_one_alone() -> None:
    """Its row says how it ended; the job goes on with the next attempt."""
    one = a_job((1, CLAIM), (1, LOSE), (2, CLAIM))
    decision = job.apply(one, 1, BROKEN, POLICY, now_ms=1)
    assert decision.effect is Effect.APPLY
    assert not decision.ended
    assert decision.job.current == one.current


def test_a_job_that_ended_lost_ends_anew_when_its_end_is_heard_of() -> None:
    """The result is another one then, with a higher revision, and nothing is tried again."""
    policy = RetryPolicy(retry_on=frozenset({ErrorKind.INFRASTRUCTURE}))
    lost = job.apply(a_job((1, CLAIM)), 1, LOSE, policy, now_ms=1)
    assert lost.ended
    numbered = job.number_end(lost.job, 8)
    assert (numbered.current.ended_seq, numbered.current.job_revision) == (8, 1)
    failed = job.apply(numbered, 1, BROKEN, policy, now_ms=2)
    assert failed.ended
    assert len(failed.job.runs) == 1
    assert job.number_end(failed.job, 9).current.job_revision == 2


def test_the_revision_goes_on_when_another_attempt_comes_to_stand_for_the_job() -> None:
    """A job that ended lost with attempt 3 and completes with attempt 1 gets the next revision; only one row has it."""
    one = a_job((1, CLAIM), (1, LOSE), (2, CLAIM), (2, LOSE), (3, CLAIM), (3, LOSE))
    ended = job.number_end(one, 4)
    decision = job.apply(ended, 1, COMPLETE, POLICY, now_ms=1)
    again = job.number_end(decision.job, 5)
    assert (again.current.attempt, again.current.job_revision, again.current.ended_seq) == (1, 2, 5)
    assert again.attempt(3).ended_seq is None


def test_changes_are_the_attempts_that_differ() -> None:
    """What is recorded of a decision: changed rows with what they were, new rows without."""
    before = a_job((1, CLAIM))
    after = job.apply(before, 1, BROKEN, POLICY, now_ms=1).job
    first, second = job.changed(before, after)
    assert first[0] == before.attempt(1)
    assert first[1] == after.attempt(1)
    assert second == (None, after.attempt(2))
    assert list(job.changed(after, after)) == []


def test_the_pause_before_the_next_attempt_doubles_up_to_a_limit() -> None:
    """With a spread of half its length to both sides, the same for the same job."""
    for attempt in range(1, 20):
        base = min(job.MAX_BACKOFF_SECONDS, job.FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1))
        pause = job.backoff_seconds(attempt, "j")
        assert 0.5 * base <= pause <= 1.5 * base
        assert pause == job.backoff_seconds(attempt, "j")
    assert job.backoff_seconds(1, "a") != job.backoff_seconds(1, "b")


WAITS = RetryPolicy(awaited=frozenset({"score"}))
SCORED = Signal(RunEvent.MEASURE, metrics={"score": 2.0})


def test_a_job_that_waits_for_metrics_ends_when_they_come() -> None:
    """Its run has completed long before."""
    waiting = job.apply(a_job((1, CLAIM)), 1, COMPLETE, WAITS, now_ms=1)
    assert not waiting.ended
    ended = job.apply(waiting.job, 1, SCORED, WAITS, now_ms=2)
    assert ended.ended
    assert ended.job.current.settled


def test_missing_metrics_end_a_job_and_a_retry_waits_again_without_a_new_run() -> None:
    """With the next revision when they come after all."""
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
    """Whatever tries were left; jobs that completed or are open are left alone."""
    failed = job.number_end(job.apply(a_job((1, CLAIM)), 1, WRONG, POLICY, now_ms=1).job, 3)
    again = job.again(failed, 5)
    assert again is not None
    assert (again.current.attempt, again.current.state, again.current.job_revision) == (2, RunState.PENDING, 1)
    assert again.attempt(1).ended_seq is None
    assert job.again(again, 6) is None
    assert job.again(a_job((1, CLAIM), (1, COMPLETE)), 6) is None


def test_a_retry_takes_a_job_that_was_dropped_and_none_that_was_cancelled_otherwise() -> None:
    """Dropped since too many others had failed: the reason is on its run."""
    dropped = a_job((1, Signal(RunEvent.CANCEL)))
    assert job.again(dropped, 5) is None
    marked = Job((replace(dropped.current, stop_reason=StopReason.UNWANTED, ended_seq=2, job_revision=1),))
    again = job.again(marked, 5)
    assert again is not None
    assert (again.current.attempt, again.current.state, again.current.job_revision) == (2, RunState.PENDING, 1)
    assert (again.attempt(1).current, again.attempt(1).ended_seq, again.current.stop_reason) == (False, None, None)


SIGNALS = st.sampled_from([CLAIM, ACCEPT, START, COMPLETE, LOSE, BROKEN, WRONG, Signal(RunEvent.CANCEL)])


@given(st.lists(st.tuples(st.integers(1, 3), SIGNALS), max_size=25))
def test_whatever_comes_one_attempt_stands_for_the_job_and_the_first_completed_one_wins(
    heard: list[tuple[int, Signal]],
) -> None:
    """Exactly one row is current, attempts have no gaps, a completed job stays so, and ends are numbered in order."""
    one = Job((job.first(0, 0, 1),))
    seq, won = 0, None
    for attempt, signal in heard:
        if attempt > len(one.runs):
            continue
        before = one
        decision = job.apply(one, attempt, signal, POLICY, now_ms=1)
        one = decision.job
        if decision.ended:
            seq += 1
            one = job.number_end(one, seq)
            assert one.current.job_revision == before.current.job_revision + 1 or not before.current.ended
        assert sum(each.current for each in one.runs) == 1
        assert [each.attempt for each in one.runs] == list(range(1, len(one.runs) + 1))
        assert all(each.ended_seq is None for each in one.runs if not each.current)
        if won is None and one.current.state is RunState.COMPLETED:
            won = one.current.attempt
        if won is not None:
            assert one.current.attempt == won
        # A further attempt exists only where those before it failed, were lost, or were cancelled with it.
        assert all(each.state in transitions.TERMINAL for each in one.runs[:-1]) or won is not None
    assert isinstance(one.current, Run)
    assert one.key == (0, 0)
