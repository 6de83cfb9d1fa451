"""Points that a new version of a plan doesn't have: their jobs are cancelled and excluded, until the points return."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import experiment, job
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run, StopReason
from ems_worker.core.records import Change, PointRecord
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger import judging
from ems_worker.service.ledger.judging import Effect, Jobs
from ems_worker.service.ledger.live import Live, RunKey

# Why the jobs of a withdrawn point are excluded.
REASON = "withdrawn"
# A withdrawn job that was cancelled gets a new attempt when its point returns, as if `retry` named it.
_NAMED = frozenset({"state"})
_CANCELLED = "cancelled"
# Points that a preview reads at once.
_POINTS = 500


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


def stopping(live: Live, open_runs: Iterable[tuple[RunKey, Live, Run]]) -> set[tuple[int, int]]:
    """The withdrawn jobs of the experiment, as (point, replicate), with an attempt that is still to be stopped."""
    return {
        (run.point, run.replicate)
        for _, owner, run in open_runs
        if owner is live and run.excluded == REASON and run.stop_reason is StopReason.CANCELLED
    }


def points(jobs: Jobs) -> int:
    """How many points begin among these jobs, of points that are yet to be withdrawn."""
    return sum(before.key[1] == 0 and before.current.excluded != REASON for before, _ in jobs)


async def previewed(
    manifest: Manifest, live: Live, draft: Change, *, numbers: Sequence[int], in_time: Callable[[], bool]
) -> Change | None:
    """The change with what withdrawing these points would do; None if it is not in time."""
    withdrawn = 0
    for start in range(0, len(numbers), _POINTS):
        if not in_time():
            return None
        for row in await manifest.points(live.key, numbers[start : start + _POINTS]):
            if row.excluded == REASON:
                continue
            withdrawn += 1
            for bucket, jobs in row.counts.items():
                ended = bucket in experiment.ENDED_BUCKETS
                if jobs and not (ended and row.excluded is not None):
                    draft = judging.counted(draft, bucket.value, changes.EXCLUDED if ended else _CANCELLED, jobs)
    return replace(draft, withdrawn=withdrawn)


def _state(judged: Job) -> str:
    return str(experiment.job_state(judged.current))
