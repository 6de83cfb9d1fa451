"""What messages since a backup tell about a job of the restored manifest, beside the events that are replayed.

That a run passed its time limit is in no event. Because of that a job may have fewer attempts than it had, or have
ended otherwise, or less often; its readers take the result with the highest `job_revision`.
"""

from msgspec.structs import replace

from ems_worker.core.lifecycle import tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import PublishedResult

# Why a run is lost that must have ended.
LOST = "the manifest was restored, and no event tells how this run ended"
# The ids of runs come from outside: a job gets no more attempts at once.
MAX_NEW_ATTEMPTS = 100


def with_attempt(restored: Job, number: int, now_ms: int, *, ended: bool = False) -> Job | None:
    """The job with so many attempts, because something tells of this one: the earlier ones must have ended.

    Unless the last one `ended`, too, it is pending: an event that tells more of it follows. None if the job has that
    attempt, or can't have had it.
    """
    missing = number - len(restored.runs)
    last = restored.current
    if not 0 < missing <= MAX_NEW_ATTEMPTS or last.state is RunState.COMPLETED:
        return None
    runs = [_lost(attempt, now_ms) for attempt in restored.runs]
    for following in range(len(runs) + 1, number + 1):
        begun = Run(
            last.point,
            last.replicate,
            following,
            last.seed,
            due_ms=now_ms,
            job_revision=last.job_revision,
            excluded=last.excluded,
        )
        runs.append(begun if following == number and not ended else _lost(begun, now_ms))
    runs[-1] = replace(runs[-1], current=True)
    return Job(tuple(runs))


def counted(restored: Job, published: PublishedResult) -> Job:
    """The job with at least as many ends as were published; the same job if it has them."""
    current = restored.current
    if current.job_revision >= published.job_revision:
        return restored
    return restored.with_run(replace(current, job_revision=published.job_revision))


def ends_anew(restored: Job, attempt: int, published: PublishedResult) -> bool:
    """Whether the job has ended otherwise than its last result says, which is of this attempt."""
    current = restored.current
    if not current.settled or current.job_revision > published.job_revision:
        return False
    ours = current.attempt, str(tally.job_state(current)), current.excluded
    return ours != (attempt, published.state, published.excluded)


def _lost(attempt: Run, now_ms: int) -> Run:
    """The attempt as one that doesn't represent its job, and is lost unless it has ended."""
    if attempt.ended:
        return replace(attempt, current=False, ended_seq=None)
    return replace(
        attempt,
        current=False,
        state=RunState.LOST,
        finished_ms=now_ms,
        error_kind=ErrorKind.LOST,
        error_message=LOST,
        suspended=False,
    )
