"""Points that a new version of a plan doesn't have: their jobs are cancelled and excluded, until the points return."""

from collections.abc import Iterable

from msgspec.structs import replace

from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import job, tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run, StopReason
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import Change, PointRecord, PointRow
from ems_worker.service.ledger import judging
from ems_worker.service.ledger.judging import Effect, Jobs

# Why the jobs of a withdrawn point are excluded.
REASON = "withdrawn"
# A withdrawn job that was cancelled gets a new attempt when its point returns, as if `retry` named it.
_NAMED = frozenset({"state"})
_CANCELLED = "cancelled"


def withdraw(before: Job, point: PointRecord, now_ms: int) -> Effect | None:
    """A job of a withdrawn point: it is cancelled unless it has ended, and excluded unless a person has done that."""
    cancelled = job.cancelled(before, now_ms, StopReason.CANCELLED)
    after = cancelled or before
    if before.current.excluded is None:
        after = job.excluded(after, REASON) or after
    if after == before:
        return None
    return Effect(after, _state(before), changes.EXCLUDED if cancelled is None else _CANCELLED)


def put_back(before: Job, point: PointRecord, now_ms: int) -> Effect | None:
    """A job of a point that returns: it is included again, and gets a new attempt if the withdrawal cancelled it."""
    after = job.included(before) if before.current.excluded == REASON else None
    if after is None:
        return None
    if before.current.stop_reason is StopReason.CANCELLED:
        after = job.again(after, now_ms, _NAMED) or after
    return Effect(after, changes.EXCLUDED, _state(after))


def stopping(open_runs: Iterable[Run]) -> set[tuple[int, int]]:
    """The withdrawn jobs among those with these open runs, as (point, replicate), whose runs are being stopped."""
    return {
        (run.point, run.replicate)
        for run in open_runs
        if run.excluded == REASON and run.stop_reason is StopReason.CANCELLED
    }


def points(jobs: Jobs) -> int:
    """How many points begin among these jobs, of points that are yet to be withdrawn."""
    return sum(before.key[1] == 0 and before.current.excluded != REASON for before, _ in jobs)


def would_withdraw(change: Change, row: PointRow) -> Change:
    """The change with what it would do to a point that is to be withdrawn."""
    if row.excluded == REASON:
        return change
    for bucket, jobs in row.counts.items():
        ended = bucket in tally.ENDED_BUCKETS
        if jobs and not (ended and row.excluded is not None):
            change = judging.counted(change, _name(bucket), changes.EXCLUDED if ended else _CANCELLED, jobs)
    return replace(change, withdrawn=(change.withdrawn or 0) + 1)


def would_return(change: Change, row: PointRow) -> Change:
    """The change with what it would do to a withdrawn point that the plan has again."""
    for bucket, jobs in row.counts.items():
        if jobs:
            after = Bucket.PENDING if bucket is Bucket.CANCELLED else bucket
            change = judging.counted(change, changes.EXCLUDED, _name(after), jobs)
    return change


def _state(judged: Job) -> str:
    return str(tally.job_state(judged.current))


def _name(bucket: Bucket) -> str:
    """The state of jobs of this bucket, as job_state has it."""
    return Bucket.FAILED.value if bucket is Bucket.INFEASIBLE else bucket.value
