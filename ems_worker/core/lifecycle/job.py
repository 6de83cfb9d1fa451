"""A job: its attempts, which of them represents it, when it has ended, and whether it is retried."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from ems_worker.core.lifecycle import retry, run, transitions
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState

# Members as constants: up to Python 3.11 their look-up in the class takes longer than most functions here.
_APPLY, _COMPLETED, _PENDING = Effect.APPLY, RunState.COMPLETED, RunState.PENDING

RETRYABLE_KINDS = frozenset({ErrorKind.INFRASTRUCTURE, ErrorKind.TIMEOUT, ErrorKind.LOST})
FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 300.0
# The reasons for a STOP that give way to another one: a person's decision replaces the worker's.
_OVERRULED: Mapping[StopReason, frozenset[StopReason | None]] = {
    StopReason.CANCELLED: frozenset(
        {None, StopReason.TIMEOUT, StopReason.FAILING_FAST, StopReason.STRAGGLER, StopReason.RACED}
    ),
    StopReason.FAILING_FAST: frozenset({None}),
    StopReason.STRAGGLER: frozenset({None, StopReason.TIMEOUT}),
    StopReason.RACED: frozenset({None, StopReason.TIMEOUT}),
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many attempts a job gets, after which failures, and which metrics it waits for once its run completed."""

    max_attempts: int = 3
    retry_on: frozenset[ErrorKind] = RETRYABLE_KINDS
    awaited: frozenset[str] = frozenset()


class Job(Struct, frozen=True, gc=False):
    """All attempts at (point, replicate), in order; their numbers start at 1 and have no gaps."""

    runs: tuple[Run, ...]

    @property
    def current(self) -> Run:
        """The attempt that represents the job: the winning one, else the last."""
        last = self.runs[-1]
        return last if last.current else next(attempt for attempt in self.runs if attempt.current)

    @property
    def open(self) -> bool:
        """Whether an attempt is in the run window."""
        if len(self.runs) == 1:
            return self.runs[0].state in transitions.OPEN
        return any(attempt.state in transitions.OPEN for attempt in self.runs)

    @property
    def key(self) -> tuple[int, int]:
        return self.runs[0].point, self.runs[0].replicate

    def attempt(self, number: int) -> Run:
        return self.runs[number - 1]

    def with_run(self, after: Run) -> "Job":
        """The job with one attempt replaced."""
        if len(self.runs) == 1:
            return Job((after,))
        return Job(tuple(after if attempt.attempt == after.attempt else attempt for attempt in self.runs))


class Applied(Struct, frozen=True, gc=False):
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
    """Whether another attempt follows a failed or lost one. `retryable: false` from the orchestrator wins.

    None follows an attempt whose result isn't wanted, even if it failed before it could be stopped.
    """
    if failed.state not in (RunState.FAILED, RunState.LOST) or failed.attempt >= policy.max_attempts:
        return False
    if failed.called_off or failed.stop_reason in run.UNWANTED:
        return False
    return failed.retryable is not False and failed.error_kind in policy.retry_on


def apply(
    job: Job,
    attempt: int,
    signal: Signal,
    policy: RetryPolicy,
    *,
    now_ms: int,
    retries: Callable[[], bool] = lambda: True,
) -> Applied:
    """Applies a signal for one attempt to its job. `retries`: whether a failure may lead to another attempt."""
    before = job.attempt(attempt)
    effect, after = run.advance(before, signal, now_ms, policy.awaited)
    if effect not in transitions.CHANGING:
        return Applied(effect, job)
    stop: tuple[int, ...] = ()
    changed_job = job.with_run(after)
    if effect is _APPLY and after.ended:
        won = job.current.state is _COMPLETED
        if after.state is _COMPLETED and not won:
            # The only attempt has nothing to win against.
            if len(job.runs) > 1:
                changed_job, stop = _choose_winner(changed_job, attempt, now_ms)
        elif after.current and not before.ended and may_retry(after, policy) and retries():
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
        excluded=failed.excluded,
    )
    return Job((*job.with_run(replace(failed, current=False, ended_seq=None)).runs, following))


def retried(current: Run, named: frozenset[str] | None = None) -> bool:
    """Whether a person's `retry` includes the job that this run represents.

    `named`: the names that its `where` uses, None without one; rules.sql has the rule without a `where`, for queries.
    It includes jobs that failed, were lost or lack metrics, whatever their number of attempts and kind of failure, and
    those that were dropped because too many others had failed. It includes infeasible jobs only if `where` asks for
    kinds of error, and jobs that were called off only if it asks for states.
    """
    if not current.settled or (current.state is _COMPLETED and current.waiting is None):
        return False
    names = named or frozenset()
    dropped = current.state is RunState.CANCELLED and current.stop_reason is StopReason.FAILING_FAST
    if current.called_off or (current.state is RunState.CANCELLED and not dropped):
        return "state" in names
    infeasible = current.state is RunState.FAILED and current.error_kind is ErrorKind.INFEASIBLE
    return not infeasible or "error_kind" in names


def again(job: Job, now_ms: int, named: frozenset[str] | None = None) -> Job | None:
    """The job after a person's `retry`: it waits for metrics again if only those are missing, else gets a new attempt.

    None if a retry doesn't include the job, see `retried`. The retry policy doesn't apply.
    """
    last = job.current
    if not retried(last, named):
        return None
    if last.waiting is Waiting.MISSING:
        waiting = run.advance(last, Signal(RunEvent.AWAIT), now_ms)[1]
        return job.with_run(replace(waiting, ended_seq=None, stop_reason=None, drains=False))
    number = job.runs[-1].attempt + 1
    earlier = job.with_run(replace(last, current=False, ended_seq=None)).runs
    following = Run(
        last.point, last.replicate, number, last.seed, job_revision=last.job_revision, excluded=last.excluded
    )
    return Job((*earlier, following))


def cancelled(job: Job, now_ms: int, reason: StopReason, *, drain: bool = False) -> Job | None:
    """The job after it was called off for this reason; None if it has ended, or is on its way out already.

    An open attempt gets the reason, for which it is to be stopped. `drain`: it may end by itself instead, and metrics
    are waited for. A completed run that still lacks metrics stays completed: its job fails, because they are missing.
    """
    last = job.current
    if last.settled:
        return None
    if last.state is _PENDING:
        return job.with_run(run.advance(replace(last, stop_reason=reason), Signal(RunEvent.CANCEL), now_ms)[1])
    if last.stop_reason not in _OVERRULED[reason]:
        return None
    if drain:
        # One that is stopped at its time limit gets no next attempt.
        draining = last.drains or last.stop_reason not in (None, StopReason.TIMEOUT)
        return None if draining else job.with_run(replace(last, drains=True))
    marked = replace(last, stop_reason=reason, drains=False)
    if last.waiting is Waiting.AWAITING:
        marked = run.advance(marked, Signal(RunEvent.EXPIRE), now_ms)[1]
    return job.with_run(marked)


def unstarted(job: Job) -> bool:
    """Whether the job was never started."""
    return job.current.state is _PENDING and job.current.attempt == 1


def excluded(job: Job, reason: str) -> Job | None:
    """The job after it was excluded for this reason, which each attempt has; None if it is already, for the same."""
    return _with_exclusion(job, reason)


def included(job: Job) -> Job | None:
    """The job after it was included again; None if it isn't excluded."""
    return _with_exclusion(job, None)


def _with_exclusion(job: Job, reason: str | None) -> Job | None:
    if all(attempt.excluded == reason for attempt in job.runs):
        return None
    return Job(tuple(replace(attempt, excluded=reason) for attempt in job.runs))


def has_new_result(before: Job, after: Job) -> bool:
    """Whether a change has given the job a result, or another one: that it is excluded is part of its result.

    A job that was cancelled before it ever started has none, then or later: it is only counted.
    """
    old, new = before.current, after.current
    if not new.settled or new == old:
        return False
    return old.ended_seq is not None if old.settled else not unstarted(before)


def error_kind(current: Run) -> ErrorKind | None:
    """Why the job that this run represents has no result: a completed run may lack metrics."""
    return ErrorKind.METRICS_MISSING if current.waiting is Waiting.MISSING else current.error_kind


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
        if loser.state is _PENDING:
            loser = run.advance(loser, Signal(RunEvent.CANCEL), now_ms)[1]
        elif loser.state in transitions.OPEN:
            loser = replace(loser, stop_reason=StopReason.SUPERSEDED)
            stop.append(loser.attempt)
        runs.append(loser)
    return Job(tuple(runs)), tuple(stop)


def number_end(job: Job, ended_seq: int) -> Job:
    """The job with its end numbered: position `ended_seq` in the experiment, and the next revision of the job."""
    return job.with_run(replace(job.current, ended_seq=ended_seq, job_revision=job.current.job_revision + 1))


def changed(before: Job, after: Job) -> list[tuple[Run | None, Run]]:
    """The attempts that differ, as (before, after); `before` is None for a new attempt."""
    olds = before.runs
    if len(olds) == len(after.runs) == 1:
        return [] if olds == after.runs else [(olds[0], after.runs[0])]
    return [
        (old, new)
        for index, new in enumerate(after.runs)
        if (old := olds[index] if index < len(olds) else None) is not new and old != new
    ]
