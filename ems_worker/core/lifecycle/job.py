"""One job: its attempts, which of them stands for it, when it has ended, and whether it is tried again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ems_worker.core.lifecycle import retry, run
from ems_worker.core.lifecycle.run import ErrorKind, Run, RunEvent, RunState, Signal, StopReason, Verdict, Waiting

RETRYABLE_KINDS = frozenset({ErrorKind.INFRASTRUCTURE, ErrorKind.TIMEOUT, ErrorKind.LOST})
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a job may be tried, after which kinds of failure, and which metrics it waits for after its run."""

    max_attempts: int = 3
    retry_on: frozenset[ErrorKind] = RETRYABLE_KINDS
    awaited: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Job:
    """All attempts at (point, replicate), in order, attempt numbers from 1 without gaps."""

    runs: tuple[Run, ...]

    @property
    def current(self) -> Run:
        """The attempt that stands for the job: the winning one, else the last."""
        return next(attempt for attempt in self.runs if attempt.current)

    @property
    def key(self) -> tuple[int, int]:
        return self.runs[0].point, self.runs[0].replicate

    def attempt(self, number: int) -> Run:
        return self.runs[number - 1]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event does to a job.

    `job` is the job after it; `ended` says that the job ended by it, or ended anew with another result; `stop` has
    the attempts that the orchestrator should be asked to stop, since nobody waits for them any more.
    """

    verdict: Verdict
    job: Job
    ended: bool = False
    stop: tuple[int, ...] = ()


def first(point: int, replicate: int, seed: int) -> Run:
    """The run that a new job starts with."""
    return Run(point=point, replicate=replicate, attempt=1, seed=seed)


def backoff_seconds(attempt: int, identity: str) -> float:
    """How long the next attempt waits after `attempt` failed."""
    return retry.pause_seconds(attempt, identity, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)


def latest_due_ms(now_ms: int) -> int:
    """When the next attempt of a job that failed now waits no longer, whichever it is.

    One that is to wait longer was recorded under a wall clock that was ahead of this one.
    """
    return now_ms + round(1000 * LONGEST_BACKOFF_SECONDS * retry.MOST_SPREAD)


def may_retry(failed: Run, policy: RetryPolicy) -> bool:
    """Whether a failed or lost attempt gets a next one. `retryable: false` of the orchestrator wins."""
    if failed.state not in (RunState.FAILED, RunState.LOST) or failed.attempt >= policy.max_attempts:
        return False
    return failed.retryable is not False and failed.error_kind in policy.retry_on


def decide(job: Job, attempt: int, signal: Signal, policy: RetryPolicy, now_ms: int, wanted: bool = True) -> Decision:
    """Applies a signal for one attempt to its job. It is not tried again unless it is `wanted`."""
    before = job.attempt(attempt)
    verdict, after = run.advance(before, signal, now_ms, policy.awaited)
    if verdict not in (Verdict.APPLY, Verdict.NOTE):
        return Decision(verdict, job)
    runs = [after if one.attempt == attempt else one for one in job.runs]
    if verdict is Verdict.NOTE or not after.ended:
        return _noted(verdict, job, Job(tuple(runs)))
    stop: tuple[int, ...] = ()
    won = job.current.state is RunState.COMPLETED
    if after.state is RunState.COMPLETED and not won:
        runs, stop = _choose_winner(runs, attempt, now_ms)
    elif after.current and wanted and not before.ended and may_retry(after, policy):
        # A run that was lost, ended its job so, and turns out to have failed doesn't open the job again.
        due = now_ms + round(1000 * backoff_seconds(attempt, f"{after.point}/{after.replicate}/{after.seed}"))
        runs[attempt - 1] = replace(after, current=False, ended_seq=None)
        runs.append(
            Run(after.point, after.replicate, attempt + 1, after.seed, due_ms=due, job_revision=after.job_revision)
        )
    result = Job(tuple(runs))
    return Decision(verdict, result, ended=result.current.settled and result.current != job.current, stop=stop)


def _noted(verdict: Verdict, before: Job, after: Job) -> Decision:
    """A run that goes on, or that more became known of: its job ends, or ends anew, if it stands for it."""
    return Decision(verdict, after, ended=after.current.settled and after.current != before.current)


def retried(current: Run) -> bool:
    """Whether a person's `retry` takes the job of this current run; rules.sql has the same rule for queries.

    It takes jobs that failed or were lost, whatever their number of attempts and kind of failure, except infeasible
    ones. Of the cancelled jobs it takes those that were dropped because too many others had failed.
    """
    if current.state is RunState.FAILED:
        return current.error_kind is not ErrorKind.INFEASIBLE
    if current.state is RunState.CANCELLED:
        return current.stop_reason is StopReason.UNWANTED
    return current.state is RunState.LOST or current.waiting is Waiting.MISSING


def again(job: Job, now_ms: int) -> Job | None:
    """The job after a person's `retry`; None if that doesn't take it.

    A job that only lacks metrics waits for them again, any other gets a new attempt.
    """
    last = job.current
    if not retried(last):
        return None
    if last.waiting is Waiting.MISSING:
        after = replace(run.advance(last, Signal(RunEvent.AWAIT), now_ms)[1], ended_seq=None)
        return Job(tuple(after if one is last else one for one in job.runs))
    number = job.runs[-1].attempt + 1
    old = tuple(replace(one, current=False, ended_seq=None) if one is last else one for one in job.runs)
    return Job((*old, Run(last.point, last.replicate, number, last.seed, job_revision=last.job_revision)))


def _choose_winner(runs: list[Run], winner: int, now_ms: int) -> tuple[list[Run], tuple[int, ...]]:
    """The first completed attempt stands for the job. Pending attempts are dropped, open ones are to be stopped."""
    revision = max(one.job_revision for one in runs)
    stop = []
    for index, one in enumerate(runs):
        if one.attempt == winner:
            runs[index] = replace(one, current=True, job_revision=revision)
            continue
        other = replace(one, current=False, ended_seq=None)
        if other.state is RunState.PENDING:
            other = run.advance(other, Signal(RunEvent.CANCEL), now_ms)[1]
        elif other.state in run.OPEN:
            other = replace(other, stop_reason=StopReason.UNWANTED)
            stop.append(one.attempt)
        runs[index] = other
    return runs, tuple(stop)


def number_end(job: Job, ended_seq: int) -> Job:
    """The job with its end numbered: position `ended_seq` in the experiment, and the next revision of the job."""

    def numbered(one: Run) -> Run:
        if not one.current:
            return one
        return replace(one, ended_seq=ended_seq, job_revision=one.job_revision + 1)

    return Job(tuple(numbered(one) for one in job.runs))


def changed(before: Job, after: Job) -> Iterable[tuple[Run | None, Run]]:
    """The attempts that differ, as (before, after); before is None for an attempt that is new."""
    for index, one in enumerate(after.runs):
        old = before.runs[index] if index < len(before.runs) else None
        if old != one:
            yield old, one
