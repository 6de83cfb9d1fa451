"""An experiment: its states, the tally of its jobs, and when and how it ends."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from ems_worker.core.lifecycle.run import ErrorKind, Run, RunState, Waiting


class ExperimentState(StrEnum):
    """Beside each state: who moves it on, and what a crash there means."""

    ACCEPTED = "accepted"  # expansion, when its first jobs are recorded. After a crash expansion goes on where it was.
    RUNNING = "running"  # the end of its last job.
    PAUSED = "paused"  # a person, or the operator.
    COMPLETED = "completed"  # only a new round.
    FAILED = "failed"  # only a new round.
    CANCELLED = "cancelled"  # only a new round.


ENDED = frozenset({ExperimentState.COMPLETED, ExperimentState.FAILED, ExperimentState.CANCELLED})


class ExperimentEvent(StrEnum):
    BEGIN = "begin"  # its first jobs are in the manifest
    HOLD = "hold"  # nothing new of it is to be started
    RESUME = "resume"  # it goes on
    SUCCEED = "succeed"  # every job ended, no more of them failed than may, and none was dropped
    MISS = "miss"  # every job ended, and more of them failed than may, or had when others were dropped for it
    REOPEN = "reopen"  # jobs of it are tried again: a new round


_S, _E = ExperimentState, ExperimentEvent
# None: the event means nothing in that state.
TRANSITIONS: Mapping[tuple[ExperimentState, ExperimentEvent], ExperimentState | None] = MappingProxyType(
    {
        (_S.ACCEPTED, _E.BEGIN): _S.RUNNING,
        # What is held keeps expanding; it starts nothing.
        (_S.ACCEPTED, _E.HOLD): _S.PAUSED,
        (_S.ACCEPTED, _E.RESUME): None,
        (_S.ACCEPTED, _E.REOPEN): None,
        (_S.ACCEPTED, _E.SUCCEED): None,
        (_S.ACCEPTED, _E.MISS): None,
        (_S.RUNNING, _E.BEGIN): None,
        (_S.RUNNING, _E.HOLD): _S.PAUSED,
        (_S.RUNNING, _E.RESUME): None,
        (_S.RUNNING, _E.REOPEN): None,
        (_S.RUNNING, _E.SUCCEED): _S.COMPLETED,
        (_S.RUNNING, _E.MISS): _S.FAILED,
        (_S.PAUSED, _E.BEGIN): None,
        (_S.PAUSED, _E.HOLD): None,
        (_S.PAUSED, _E.RESUME): _S.RUNNING,
        (_S.PAUSED, _E.REOPEN): None,
        (_S.PAUSED, _E.SUCCEED): _S.COMPLETED,
        (_S.PAUSED, _E.MISS): _S.FAILED,
        **{(state, event): _S.RUNNING if event is _E.REOPEN else None for state in ENDED for event in _E},
    }
)


class Bucket(StrEnum):
    """What a status counts jobs by: the job's state, with infeasible ones apart from the failed."""

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


ENDED_BUCKETS = frozenset({Bucket.COMPLETED, Bucket.FAILED, Bucket.INFEASIBLE, Bucket.CANCELLED, Bucket.LOST})


def bucket(run: Run) -> Bucket:
    """Where the job that this run stands for is counted; rules.sql has the same rule for queries."""
    if run.waiting is not None:
        return Bucket.AWAITING_METRICS if run.waiting is Waiting.AWAITING else Bucket.FAILED
    if run.state is RunState.FAILED and run.error_kind is ErrorKind.INFEASIBLE:
        return Bucket.INFEASIBLE
    return Bucket(run.state.value)


def job_state(run: Run) -> str:
    """The state of the job that this run stands for, by the contract's names: infeasible ones failed."""
    name = bucket(run)
    return Bucket.FAILED if name is Bucket.INFEASIBLE else name


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Of one metric over jobs: how many had it, mean, sum of squared deviations, extremes, how many lacked it.

    Updated one value at a time by Welford's method (B. P. Welford, Technometrics 4(3), 1962).
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    missing: int = 0

    def add(self, value: float | None) -> "Aggregate":
        """With one more job's value; None or not finite counts as missing."""
        if value is None or not math.isfinite(value):
            return replace(self, missing=self.missing + 1)
        n = self.n + 1
        delta = value - self.mean
        mean = self.mean + delta / n
        return Aggregate(
            n, mean, self.m2 + delta * (value - mean), min(self.min, value), max(self.max, value), self.missing
        )

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None below two values."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of an experiment's jobs and aggregates of its tracked metrics over completed jobs.

    Jobs that are not expanded yet have no run and count as pending.
    """

    total: int
    counts: Mapping[Bucket, int] = field(default_factory=dict)
    metrics: Mapping[str, Aggregate] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return sum(self.counts.get(name, 0) for name in ENDED_BUCKETS)

    @property
    def failures(self) -> int:
        """Jobs that count against `max_failed`: infeasible and cancelled ones don't."""
        return self.counts.get(Bucket.FAILED, 0) + self.counts.get(Bucket.LOST, 0)

    @property
    def by_bucket(self) -> dict[Bucket, int]:
        """Every bucket's count; they add up to `total`."""
        known: dict[Bucket, int] = {name: self.counts.get(name, 0) for name in Bucket if name is not Bucket.PENDING}
        return {Bucket.PENDING: self.total - sum(known.values()), **known}

    def after(self, changes: Iterable[tuple[Run | None, Run]]) -> "Tally":
        """With jobs moved from one current run to another (None: the job had no run in the manifest before)."""
        counts = dict(self.counts)
        metrics = dict(self.metrics)
        for old, new in changes:
            was = Bucket.PENDING if old is None else bucket(old)
            now = bucket(new)
            if was is not now:
                counts[was] = counts.get(was, 0) - 1
                counts[now] = counts.get(now, 0) + 1
            if now is not Bucket.COMPLETED:
                continue
            before = None if old is None or was is not Bucket.COMPLETED else old.metrics or {}
            values = new.metrics or {}
            for name, aggregate in metrics.items():
                if before is None:
                    metrics[name] = aggregate.add(values.get(name))
                elif before.get(name) is None and values.get(name) is not None:
                    # Known after all: it was counted as missing when the job ended.
                    metrics[name] = replace(aggregate, missing=aggregate.missing - 1).add(values.get(name))
        return Tally(self.total, counts, metrics)


def conclusion(tally: Tally, allowed: int) -> ExperimentEvent | None:
    """How the experiment ends, of whose jobs `allowed` may fail; None while a job is open.

    Jobs are cancelled only where too many others had failed and the plan says not to go on then. That was its
    judgement, though a run that was lost may turn out to have completed later: what was not done is no success.
    """
    if tally.ended < tally.total:
        return None
    return ExperimentEvent.SUCCEED if reason(tally, allowed) is None else ExperimentEvent.MISS


def reason(tally: Tally, allowed: int) -> str | None:
    """Why an experiment whose jobs have all ended has failed; None: it hasn't."""
    if tally.failures > allowed:
        return "too many jobs failed"
    dropped = tally.counts.get(Bucket.CANCELLED, 0)
    return f"too many jobs had failed, and {dropped} were cancelled then" if dropped else None
