"""A job: its attempts, which of them represents it, when it has ended, and whether it is retried."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ems_worker.core.lifecycle import retry, run, transitions
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState

RETRYABLE_KINDS = frozenset({ErrorKind.INFRASTRUCTURE, ErrorKind.TIMEOUT, ErrorKind.LOST})
FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many attempts a job gets, after which failures, and which metrics it waits for once its run completed."""

    max_attempts: int = 3
    retry_on: frozenset[ErrorKind] = RETRYABLE_KINDS
    awaited: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Job:
    """All attempts at (point, replicate), in order; their numbers start at 1 and have no gaps."""

    runs: tuple[Run, ...]

    @property
    def current(self) -> Run:
        """The attempt that represents the job: the winning one, else the last."""
        return next(attempt for attempt in self.runs if attempt.current)

    @property
    def key(self) -> tuple[int, int]:
        return self.runs[0].point, self.runs[0].replicate

    def attempt(self, number: int) -> Run:
        return self.runs[number - 1]

    def with_run(self, after: Run) -> "Job":
        """The job with one attempt replaced."""
        return Job(tuple(after if attempt.attempt == after.attempt else attempt for attempt in self.runs))


@dataclass(frozen=True, slots=True)
class Applied:
    """What a signal did to a job: `job` is the job after it.

    `ended`: the signal ended the job, or changed the result of an ended one. `stop`: attempts that the orchestrator
    should stop because their results are no longer needed.
    """

    effect: Effect
    job: Job
    ended: bool = False
    stop: tuple[int, ...] = ()


def first(point: int, replicate: int, seed: int) -> Run:
    """The first run of a new job."""
    return Run(point=point, replicate=replicate, attempt=1, seed=seed)


def backoff_seconds(attempt: int, identity: str) -> float:
    """How long the next attempt waits after `attempt` failed."""
    return retry.pause_seconds(attempt, identity, FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)


def latest_due_ms(now_ms: int) -> int:
    """The latest time for which a job that fails now can have its next attempt scheduled.

    An attempt scheduled for later was recorded while the wall clock was ahead of the present one.
    """
    return now_ms + round(1000 * MAX_BACKOFF_SECONDS * retry.MAX_SPREAD)


def may_retry(failed: Run, policy: RetryPolicy) -> bool:
    """Whether another attempt follows a failed or lost one. `retryable: false` from the orchestrator wins."""
    if failed.state not in (RunState.FAILED, RunState.LOST) or failed.attempt >= policy.max_attempts:
        return False
    return failed.retryable is not False and failed.error_kind in policy.retry_on


def apply(job: Job, attempt: int, signal: Signal, policy: RetryPolicy, *, now_ms: int, retries: bool = True) -> Applied:
    """Applies a signal for one attempt to its job. `retries`: whether a failure may lead to another attempt."""
    before = job.attempt(attempt)
    effect, after = run.advance(before, signal, now_ms, policy.awaited)
    if effect not in transitions.CHANGING:
        return Applied(effect, job)
    stop: tuple[int, ...] = ()
    changed_job = job.with_run(after)
    if effect is Effect.APPLY and after.ended:
        won = job.current.state is RunState.COMPLETED
        if after.state is RunState.COMPLETED and not won:
            changed_job, stop = _choose_winner(changed_job, attempt, now_ms)
        elif after.current and retries and not before.ended and may_retry(after, policy):
            # Not if `before` had ended: a lost run that turns out to have failed doesn't reopen its job.
            changed_job = _with_next_attempt(changed_job, after, now_ms)
    current = changed_job.current
    return Applied(effect, changed_job, ended=current.settled and current != job.current, stop=stop)


def _with_next_attempt(job: Job, failed: Run, now_ms: int) -> Job:
    seconds = backoff_seconds(failed.attempt, f"{failed.point}/{failed.replicate}/{failed.seed}")
    following = Run(
        failed.point,
        failed.replicate,
        failed.attempt + 1,
        failed.seed,
        due_ms=now_ms + round(1000 * seconds),
        job_revision=failed.job_revision,
    )
    return Job((*job.with_run(replace(failed, current=False, ended_seq=None)).runs, following))


def retried(current: Run) -> bool:
    """Whether a person's `retry` includes the job that this run represents; rules.sql has the same rule for queries.

    It includes jobs that failed or were lost, whatever their number of attempts and kind of failure, except infeasible
    ones. Of the cancelled jobs it includes those that were dropped because too many others had failed.
    """
    if current.state is RunState.FAILED:
        return current.error_kind is not ErrorKind.INFEASIBLE
    if current.state is RunState.CANCELLED:
        return current.stop_reason is StopReason.FAILING_FAST
    return current.state is RunState.LOST or current.waiting is Waiting.MISSING


def again(job: Job, now_ms: int) -> Job | None:
    """The job after a person's `retry`: it waits for metrics again if only those are missing, else gets a new attempt.

    None if a retry doesn't include the job. The retry policy doesn't apply. Jobs that were dropped because too many
    others failed are included; jobs that were cancelled for another reason are not.
    """
    last = job.current
    if not retried(last):
        return None
    if last.waiting is Waiting.MISSING:
        return job.with_run(replace(run.advance(last, Signal(RunEvent.AWAIT), now_ms)[1], ended_seq=None))
    number = job.runs[-1].attempt + 1
    earlier = job.with_run(replace(last, current=False, ended_seq=None)).runs
    return Job((*earlier, Run(last.point, last.replicate, number, last.seed, job_revision=last.job_revision)))


def _choose_winner(job: Job, winner: int, now_ms: int) -> tuple[Job, tuple[int, ...]]:
    """Has the attempt that completed first represent the job; the second value is the open attempts to stop.

    Pending attempts are cancelled.
    """
    revision = max(attempt.job_revision for attempt in job.runs)
    runs: list[Run] = []
    stop: list[int] = []
    for attempt in job.runs:
        if attempt.attempt == winner:
            runs.append(replace(attempt, current=True, job_revision=revision))
            continue
        loser = replace(attempt, current=False, ended_seq=None)
        if loser.state is RunState.PENDING:
            loser = run.advance(loser, Signal(RunEvent.CANCEL), now_ms)[1]
        elif loser.state in transitions.OPEN:
            loser = replace(loser, stop_reason=StopReason.SUPERSEDED)
            stop.append(loser.attempt)
        runs.append(loser)
    return Job(tuple(runs)), tuple(stop)


def number_end(job: Job, ended_seq: int) -> Job:
    """The job with its end numbered: position `ended_seq` in the experiment, and the next revision of the job."""
    return job.with_run(replace(job.current, ended_seq=ended_seq, job_revision=job.current.job_revision + 1))


def changed(before: Job, after: Job) -> Iterable[tuple[Run | None, Run]]:
    """The attempts that differ, as (before, after); `before` is None for a new attempt."""
    for index, new in enumerate(after.runs):
        old = before.runs[index] if index < len(before.runs) else None
        if old != new:
            yield old, new
