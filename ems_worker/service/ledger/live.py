"""An experiment in memory, and the keys of jobs and runs."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ems_worker.core.documents import documents
from ems_worker.core.language import options
from ems_worker.core.language.options import ExperimentLimits
from ems_worker.core.lifecycle import experiment, transitions
from ems_worker.core.lifecycle.conclusion import Situation
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.job import RetryPolicy
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.render import Template
from ems_worker.core.records import Change, Experiment, PointRow

# A job: experiment key, point, replicate.
JobKey = tuple[int, int, int]
# A run: the key of its job and the number of the attempt.
RunKey = tuple[int, int, int, int]
# How many ends of jobs are remembered until they are published. More are read again.
MAX_ENDS = 10_000
# A run that is done, in the unit of `Live.underway`.
WHOLE = 1_000_000


def share(run: Run | None) -> int:
    """How much of its job an open run has done, by what it last reported."""
    if run is None or run.step is None or not run.current or run.state not in transitions.OPEN:
        return 0
    return round(WHOLE * documents.share(run.step, run.total))


def policy(plan: Plan) -> RetryPolicy:
    """How many attempts jobs of this plan get, and what they wait for."""
    kinds = frozenset(ErrorKind(kind) for kind in plan.limits.retry_on)
    awaited = frozenset(metric.name for metric in plan.metrics if metric.source == "event")
    return RetryPolicy(plan.limits.max_attempts, kinds, awaited)


@dataclass(slots=True)
class Live:
    """An experiment in memory. Only the ledger replaces its `record` and its tallies.

    `tally` counts all decisions, `recorded` only those on disk. What is published, and what ends the experiment,
    depends on `recorded`.
    """

    record: Experiment
    plan: Plan
    template: Template
    tally: Tally
    recorded: Tally
    policy: RetryPolicy
    # The position of the last end that `recorded` counts.
    recorded_seq: int = 0
    # What open runs have done, by what they reported, in millionths of a run.
    underway: int = 0
    # Jobs that were cancelled before they started, and whose points may have ended by that and aren't published yet.
    unreported: int = 0
    # Runs in the run window.
    open: int = 0
    # For each metric that arrives in an event of its own, how many seconds a completed run waits for it.
    metric_timeouts: Mapping[str, float] = field(default_factory=dict)
    # Attempts created since the experiment was loaded.
    attempts: int = 0
    # Changes that are recorded and not applied yet, in their order, as in the manifest.
    changes: dict[int, Change] = field(default_factory=dict)
    # How many tasks are changing it: a pinned experiment is not unloaded.
    pins: int = 0
    best: PointRow | None = None
    # The best point has an open job again, so that another is to be chosen.
    reranks: bool = False
    # The manifest file was written with the ends of jobs up to this position.
    exported_seq: int | None = None
    # The reason in the last status that was composed, and the last status that was published.
    reason: str | None = None
    published: Mapping[str, Any] | None = None
    # Ends of jobs that are on disk and not published yet, by (point, replicate), in their order: those at positions
    # after `ends_from` up to `ends_to`.
    ends: dict[tuple[int, int], Run] = field(default_factory=dict)
    ends_from: int = 0
    ends_to: int = 0
    # (monotonic seconds, jobs ended) of the recent past, for the throughput.
    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def key(self) -> int:
        return self.record.key

    @property
    def experiment_id(self) -> str:
        return self.record.spec.experiment_id

    @property
    def expanded(self) -> bool:
        return self.record.expanded_points >= self.record.spec.points

    @property
    def expands(self) -> bool:
        """Whether the expander has work: points to expand, or only to begin the experiment."""
        return not self.ended and (not self.expanded or self.record.state is ExperimentState.ACCEPTED)

    @property
    def ended(self) -> bool:
        return self.record.state in experiment.ENDED

    @property
    def round_is_over(self) -> bool:
        """Whether jobs that are added or retried now begin the next round: this one has ended, or has settled."""
        return self.ended or self.record.settled_round >= self.record.round

    @property
    def limits(self) -> ExperimentLimits:
        """The limits of the plan, with those that `set` put in place of some."""
        overrides = self.record.overrides
        return options.overridden(self.plan.limits, overrides) if overrides else self.plan.limits

    @property
    def judging(self) -> bool:
        """Whether a change still judges jobs, or has left metrics that are to be read again.

        Until that is done the experiment neither ends nor settles nor fails fast.
        """
        return self.tally.stale or any(change.judged is not None for change in self.changes.values())

    @property
    def allowed(self) -> int:
        """How many of its jobs may fail: a percentage is one of the jobs that count."""
        return self.limits.max_failed.allowed(self.tally.counting)

    @property
    def situation(self) -> Situation:
        """What the end of its round depends on besides its jobs."""
        return Situation(self.record.standing, self.limits.max_failed.allowed, judging=self.judging)

    @property
    def failing_fast(self) -> bool:
        """Whether the experiment stops because more jobs failed than its plan allows."""
        return not self.judging and self.limits.fail_fast and self.tally.failures > self.allowed

    @property
    def cancelling(self) -> bool:
        """Whether jobs that haven't started may be about to be cancelled: nothing is claimed or sent meanwhile."""
        if self.record.cancel is not None:
            return True
        return bool(self.changes) and any(
            change.verb == Verb.CANCEL and self.reaches(change) for change in self.changes.values()
        )

    @property
    def starts_runs(self) -> bool:
        """Whether pending runs may be claimed."""
        return self.record.state is ExperimentState.RUNNING and not self.cancelling and not self.failing_fast

    def reaches(self, change: Change) -> bool:
        """Whether jobs that are in the manifest are still to be judged by the change."""
        return change.judged is not None and change.judged[0] < self.record.expanded_points - 1

    @property
    def retries_failures(self) -> bool:
        """Whether a failed job gets another attempt."""
        return not self.ended and self.record.cancel is None and not self.failing_fast

    def __post_init__(self) -> None:
        self.ends_from = self.ends_to = self.record.ended_seq

    def count_recorded(
        self,
        tally: Tally,
        ended_seq: int,
        retaken: Set[tuple[int, int]],
        changes: Iterable[tuple[Run | None, Run]],
    ) -> None:
        """Sets what is on disk now: the last `changes` of attempts, as (before, after), are.

        `retaken`: the experiment and point of jobs that had ended and are open again.
        """
        self.recorded, self.recorded_seq = tally, ended_seq
        self._remember(changes, ended_seq)
        self.reranks |= self.best is not None and (self.key, self.best.point.point) in retaken

    def _remember(self, changes: Iterable[tuple[Run | None, Run]], ended_seq: int) -> None:
        """Remembers the ends of jobs among changes. If the manifest has others meanwhile, none is remembered."""
        found: list[Run] = []
        for before, after in changes:
            if before is not None and before.ended_seq is not None:
                self.ends.pop((after.point, after.replicate), None)
            if after.ended_seq is not None and after.ended_seq > self.ends_to:
                found.append(after)
        if len(found) != ended_seq - self.ends_to:
            self.ends.clear()
            self.ends_from = ended_seq
        else:
            found.sort(key=_position)
            for run in found:
                self.ends[run.point, run.replicate] = run
        self.ends_to = ended_seq
        while len(self.ends) > MAX_ENDS:
            self.ends_from = _position(self.ends.pop(next(iter(self.ends))))

    def ends_after(self, seq: int, limit: int) -> list[Run] | None:
        """The first ends of jobs after this position, which are forgotten up to it; None if they have to be read."""
        if seq < self.ends_from:
            return None
        while self.ends and _position(oldest := next(iter(self.ends.values()))) <= seq:
            del self.ends[oldest.point, oldest.replicate]
        self.ends_from = seq
        return list(islice(self.ends.values(), limit))

    def metrics_timeout(self, completed: Run) -> float:
        """How many seconds a completed run waits for metrics: the shortest time limit of those that are absent."""
        absent = self.policy.awaited - (completed.metrics or {}).keys()
        return min((self.metric_timeouts[name] for name in absent), default=0.0)


def _position(ended: Run) -> int:
    assert ended.ended_seq is not None
    return ended.ended_seq
