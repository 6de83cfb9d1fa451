"""An experiment: its states, the tally of its jobs, and when and how it ends."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.transitions import RunState


class ExperimentState(StrEnum):
    """Beside each state: what moves an experiment on from it, and what a crash means there."""

    ACCEPTED = "accepted"  # Its first recorded jobs. After a crash expansion continues where it stopped.
    RUNNING = "running"  # The end of its last job.
    PAUSED = "paused"  # A person, or the operator.
    COMPLETED = "completed"  # Only a new round.
    FAILED = "failed"  # Only a new round.
    CANCELLED = "cancelled"  # Only a new round.


ENDED = frozenset({ExperimentState.COMPLETED, ExperimentState.FAILED, ExperimentState.CANCELLED})


class PauseOwner(StrEnum):
    """Who pauses an experiment. Its jobs start only while nobody does."""

    PERSON = "person"  # `pause`
    HOLD = "hold"  # the plan says `hold: true`
    CANARY = "canary"  # the first jobs are to be looked at
    BUDGET = "budget"  # what the plan allows is used up; `set` raises it
    RESTORED = "restored"  # its manifest was restored, and changes of it may be missing


class CancelMode(StrEnum):
    """What happens to the open runs of an experiment that is cancelled."""

    STOP = "stop"  # they are stopped
    DRAIN = "drain"  # they may end


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about an experiment's changes, and what they change.

    `pause_now`: its open runs are paused too, where the orchestrator can do that. `cancel`: the whole experiment was
    cancelled in this round. `kept_open`: it doesn't end before `close`.
    """

    state: ExperimentState
    round: int = 1
    pauses: frozenset[PauseOwner] = frozenset()
    pause_now: bool = False
    cancel: CancelMode | None = None
    kept_open: bool = False


class ExperimentEvent(StrEnum):
    BEGIN = "begin"  # its first jobs are in the manifest
    PAUSE = "pause"  # no more of its runs are to be started
    RESUME = "resume"  # its runs may be started again
    SUCCEED = "succeed"  # every job ended, and no more of them failed than allowed
    MISS = "miss"  # every job ended, and more of them failed than allowed, or some were dropped because of that
    REOPEN = "reopen"  # some of its jobs are retried: a new round


_S, _E = ExperimentState, ExperimentEvent
# None: the event has no effect in that state.
TRANSITIONS: Mapping[tuple[ExperimentState, ExperimentEvent], ExperimentState | None] = MappingProxyType(
    {
        (_S.ACCEPTED, _E.BEGIN): _S.RUNNING,
        # A paused experiment continues to expand, and starts no runs.
        (_S.ACCEPTED, _E.PAUSE): _S.PAUSED,
        (_S.ACCEPTED, _E.RESUME): None,
        (_S.ACCEPTED, _E.REOPEN): None,
        (_S.ACCEPTED, _E.SUCCEED): None,
        (_S.ACCEPTED, _E.MISS): None,
        (_S.RUNNING, _E.BEGIN): None,
        (_S.RUNNING, _E.PAUSE): _S.PAUSED,
        (_S.RUNNING, _E.RESUME): None,
        (_S.RUNNING, _E.REOPEN): None,
        (_S.RUNNING, _E.SUCCEED): _S.COMPLETED,
        (_S.RUNNING, _E.MISS): _S.FAILED,
        (_S.PAUSED, _E.BEGIN): None,
        (_S.PAUSED, _E.PAUSE): None,
        (_S.PAUSED, _E.RESUME): _S.RUNNING,
        (_S.PAUSED, _E.REOPEN): None,
        (_S.PAUSED, _E.SUCCEED): _S.COMPLETED,
        (_S.PAUSED, _E.MISS): _S.FAILED,
        **{(state, event): _S.RUNNING if event is _E.REOPEN else None for state in ENDED for event in _E},
    }
)


class Bucket(StrEnum):
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


ENDED_BUCKETS = frozenset({Bucket.COMPLETED, Bucket.FAILED, Bucket.INFEASIBLE, Bucket.CANCELLED, Bucket.LOST})


def bucket(run: Run) -> Bucket:
    """The count to which a job belongs, by the run that represents it; rules.sql has the same rule for queries."""
    if run.waiting is not None:
        return Bucket.AWAITING_METRICS if run.waiting is Waiting.AWAITING else Bucket.FAILED
    if run.state is RunState.FAILED and run.error_kind is ErrorKind.INFEASIBLE:
        return Bucket.INFEASIBLE
    return Bucket(run.state.value)


def job_state(run: Run) -> str:
    """The state of a job, by the run that represents it: an infeasible job has failed."""
    name = bucket(run)
    return Bucket.FAILED if name is Bucket.INFEASIBLE else name


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One metric over jobs: how many had it, mean, sum of squared deviations, extremes, and how many lacked it.

    Updated one value at a time by Welford's method (B. P. Welford, Technometrics 4(3), 1962).
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    missing: int = 0

    def add(self, value: float | None) -> "Aggregate":
        """The aggregate with one more value; None or a value that isn't finite counts as missing."""
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
        """Sample standard deviation (n - 1); None for fewer than two values."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of an experiment's jobs, and aggregates of its tracked metrics over completed jobs.

    Jobs that are not expanded yet count as pending.
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
        """The tally after changes of jobs' current runs, as (old, new); `old` is None for a new job."""
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
                    # It arrived late, and was counted as missing when the job ended.
                    metrics[name] = replace(aggregate, missing=aggregate.missing - 1).add(values.get(name))
        return Tally(self.total, counts, metrics)


def conclusion(tally: Tally, allowed: int) -> ExperimentEvent | None:
    """How the experiment ends if `allowed` of its jobs may fail; None while a job is open.

    Jobs are cancelled only when too many others failed and the plan says to stop then. Such an experiment has failed,
    even if a lost run turns out to have completed later: the cancelled jobs were never done.
    """
    if tally.ended < tally.total:
        return None
    return ExperimentEvent.SUCCEED if reason(tally, allowed) is None else ExperimentEvent.MISS


def reason(tally: Tally, allowed: int) -> str | None:
    """Why an experiment whose jobs have all ended has failed; None if it hasn't."""
    if tally.failures > allowed:
        return "too many jobs failed"
    dropped = tally.counts.get(Bucket.CANCELLED, 0)
    if not dropped:
        return None
    return f"{dropped:,} {'job was' if dropped == 1 else 'jobs were'} cancelled because too many failed"
