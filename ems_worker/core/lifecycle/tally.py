"""The tally of an experiment's jobs: how each is counted, and what is known of their metrics."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from ems_worker.core.lifecycle import run
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.words import Word


class Bucket(Word):
    """The counts of a status: jobs by state, with infeasible jobs counted separately from failed ones."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    RUNNING = "running"
    AWAITING_METRICS = "awaiting_metrics"
    COMPLETED = "completed"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    CANCELLED = "cancelled"
    LOST = "lost"


_BUCKETS = {state: Bucket(state.value) for state in RunState}
ENDED_BUCKETS = frozenset({Bucket.COMPLETED, Bucket.FAILED, Bucket.INFEASIBLE, Bucket.CANCELLED, Bucket.LOST})

# Members as constants: up to Python 3.11 their look-up in the class takes longer than most functions here.
_FAILED, _AWAITING = RunState.FAILED, Waiting.AWAITING


def bucket(current: Run) -> Bucket:
    """The count to which a job belongs, by the run that represents it; rules.sql has the same rule for queries."""
    if current.waiting is not None:
        return Bucket.AWAITING_METRICS if current.waiting is _AWAITING else Bucket.FAILED
    if current.state is _FAILED and current.error_kind is ErrorKind.INFEASIBLE:
        return Bucket.INFEASIBLE
    return _BUCKETS[current.state]


def job_state(current: Run) -> str:
    """The state of a job, by the run that represents it: an infeasible job has failed."""
    name = bucket(current)
    return Bucket.FAILED if name is Bucket.INFEASIBLE else name


class Tally(Struct, frozen=True, gc=False):
    """Counts of an experiment's jobs, and aggregates of its tracked metrics over completed jobs that aren't excluded.

    Jobs that are not expanded yet count as pending. Of `counts`, `excluded` are the jobs that are excluded, and
    `called_off` the others that were called off and ended without completing (`Run.called_off`), all by bucket: neither
    makes the experiment a success or a failure. `dropped`: jobs that failing fast cancelled.

    A value can't be taken out of an aggregate. When a completed job is excluded, `stale` becomes true, and the metrics
    have to be read again, from the aggregates of the points, which the manifest keeps.
    """

    total: int
    counts: Mapping[Bucket, int] = {}
    metrics: Mapping[str, Aggregate] = {}
    excluded: Mapping[Bucket, int] = {}
    called_off: Mapping[Bucket, int] = {}
    dropped: int = 0
    stale: bool = False

    @property
    def ended(self) -> int:
        return sum(self.counts.get(name, 0) for name in ENDED_BUCKETS)

    @property
    def aside(self) -> int:
        """Jobs that count on neither side: excluded ones, and those that were called off."""
        return sum(self.excluded.values()) + sum(self.called_off.values())

    @property
    def counting(self) -> int:
        """Jobs whose success or failure counts, open ones included: `max_failed` is a part of these."""
        return self.total - self.aside

    def of(self, name: Bucket) -> int:
        """The jobs of this bucket that count."""
        return self.counts.get(name, 0) - self.excluded.get(name, 0) - self.called_off.get(name, 0)

    @property
    def failures(self) -> int:
        """Jobs that count against `max_failed`: infeasible, cancelled and excluded ones don't."""
        return self.of(Bucket.FAILED) + self.of(Bucket.LOST)

    @property
    def pending(self) -> int:
        """The count of pending jobs, which is what the others leave of `total`."""
        return self.total - sum(self.counts.values()) + self.counts.get(Bucket.PENDING, 0)

    @property
    def by_bucket(self) -> dict[Bucket, int]:
        """Every bucket's count; they add up to `total`."""
        known: dict[Bucket, int] = {name: self.counts.get(name, 0) for name in Bucket if name is not Bucket.PENDING}
        return {Bucket.PENDING: self.pending, **known}

    def after(self, changes: Iterable[tuple[Run | None, Run]]) -> "Tally":
        """The tally after changes of jobs' current runs, as (old, new); `old` is None for a new job."""
        counts, excluded, called_off = dict(self.counts), dict(self.excluded), dict(self.called_off)
        dropped, stale = self.dropped, self.stale
        metrics = dict(self.metrics)
        moved: dict[tuple[_Part, _Part], int] = {}
        for old, new in changes:
            was, now = _NEW if old is None else _part(old), _part(new)
            if was is not now:
                moved[was, now] = moved.get((was, now), 0) + 1
            if now.aggregated:
                _add(metrics, old.metrics or {} if old is not None and was.aggregated else None, new.metrics or {})
        for (was, now), jobs in moved.items():
            for part, step in ((was, -jobs), (now, jobs)):
                _count(counts, part.bucket, step)
                _count(excluded, part.bucket, step * part.excluded)
                _count(called_off, part.bucket, step * part.called_off)
                dropped += step * part.dropped
            stale = stale or (was.aggregated and not now.aggregated)
        return Tally(self.total, counts, metrics, excluded, called_off, dropped=dropped, stale=stale)

    def cancelled_unstarted(self, jobs: int) -> "Tally":
        """The tally after so many jobs that never started and aren't excluded were cancelled."""
        counts, called_off = dict(self.counts), dict(self.called_off)
        _count(counts, Bucket.PENDING, -jobs)
        _count(counts, Bucket.CANCELLED, jobs)
        _count(called_off, Bucket.CANCELLED, jobs)
        return replace(self, counts=counts, called_off=called_off)

    def extended(self, jobs: int) -> "Tally":
        """The tally after so many jobs were added, which are yet to be expanded."""
        return replace(self, total=self.total + jobs)

    def reread(self, metrics: Mapping[str, Aggregate]) -> "Tally":
        """The tally with the aggregates of all that it counts, as they were read again."""
        return replace(self, metrics=metrics, stale=False)


class Alike(NamedTuple):
    """So many jobs whose current runs have these values in common, which decide how a job is counted."""

    bucket: Bucket
    excluded: bool
    stop_reason: StopReason | None
    drains: bool
    jobs: int


def tally(total: int, counted: Iterable[Alike], metrics: Mapping[str, Aggregate]) -> Tally:
    """The tally of `total` jobs, from counts of those that are expanded."""
    counts: dict[Bucket, int] = {}
    excluded: dict[Bucket, int] = {}
    called_off: dict[Bucket, int] = {}
    dropped = 0
    for alike in counted:
        part = _part_of(alike.bucket, alike.excluded, alike.stop_reason, alike.drains)
        _count(counts, part.bucket, alike.jobs)
        _count(excluded, part.bucket, alike.jobs * part.excluded)
        _count(called_off, part.bucket, alike.jobs * part.called_off)
        dropped += alike.jobs * part.dropped
    return Tally(total, counts, metrics, excluded, called_off, dropped=dropped)


class _Part:
    """How one job is counted."""

    __slots__ = ("aggregated", "bucket", "called_off", "dropped", "excluded")

    def __init__(
        self, bucket: Bucket, *, excluded: bool = False, called_off: bool = False, dropped: bool = False
    ) -> None:
        self.bucket = bucket
        self.excluded = excluded
        self.called_off = called_off
        self.dropped = dropped
        self.aggregated = bucket is Bucket.COMPLETED and not excluded


# Made once: a part is looked up for every change of a run.
_COUNTED = {name: _Part(name) for name in Bucket}
_EXCLUDED = {name: _Part(name, excluded=True) for name in Bucket}
_CALLED_OFF = {name: _Part(name, called_off=True) for name in Bucket}
_DROPPED = _Part(Bucket.CANCELLED, dropped=True)
_NEW = _COUNTED[Bucket.PENDING]
# Those of runs without anything unusual, by their states.
_PLAIN: Mapping[RunState, _Part] = {
    state: _COUNTED[_BUCKETS[state]]
    for state in RunState
    if state not in (RunState.FAILED, RunState.CANCELLED, RunState.LOST)
}


def _part(current: Run) -> _Part:
    if current.waiting is None and current.excluded is None:
        plain = _PLAIN.get(current.state)
        if plain is not None:
            return plain
    return _part_of(bucket(current), current.excluded is not None, current.stop_reason, current.drains)


def _part_of(name: Bucket, excluded: bool, stop_reason: StopReason | None, drains: bool) -> _Part:
    if excluded:
        return _EXCLUDED[name]
    if name is Bucket.COMPLETED or name not in ENDED_BUCKETS:
        return _COUNTED[name]
    if run.called_off(stop_reason, drains):
        return _CALLED_OFF[name]
    return _DROPPED if name is Bucket.CANCELLED and stop_reason is StopReason.FAILING_FAST else _COUNTED[name]


def _count(counts: dict[Bucket, int], name: Bucket, step: int) -> None:
    if step:
        counts[name] = counts.get(name, 0) + step


def _add(
    metrics: dict[str, Aggregate], before: Mapping[str, float | None] | None, values: Mapping[str, float | None]
) -> None:
    """Adds a completed job's values; `before` has its values as they were added earlier, None: it is new."""
    for name, aggregate in metrics.items():
        if before is None:
            metrics[name] = aggregate.add(values.get(name))
        elif before.get(name) is None and values.get(name) is not None:
            metrics[name] = aggregate.arrived(values.get(name))
