"""An experiment in memory, and the keys of jobs and runs."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from ems_worker.core.documents import documents
from ems_worker.core.language import options
from ems_worker.core.language.options import ExperimentLimits
from ems_worker.core.lifecycle import experiment, transitions
from ems_worker.core.lifecycle.conclusion import Situation
from ems_worker.core.lifecycle.experiment import ExperimentState, Tally
from ems_worker.core.lifecycle.job import RetryPolicy
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.render import Template
from ems_worker.core.records import Change, Experiment, PointRow

# A job: experiment key, point, replicate.
JobKey = tuple[int, int, int]
# A run: the key of its job and the number of the attempt.
RunKey = tuple[int, int, int, int]
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
        return self.record.cancel is not None or any(
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

    def count_recorded(self, tally: Tally, ended_seq: int, retaken: Set[tuple[int, int]]) -> None:
        """Sets what is on disk now. `retaken`: the experiment and point of jobs that had ended and are open again."""
        self.recorded, self.recorded_seq = tally, ended_seq
        self.reranks |= self.best is not None and (self.key, self.best.point.point) in retaken

    def metrics_timeout(self, completed: Run) -> float:
        """How many seconds a completed run waits for metrics: the shortest time limit of those that are absent."""
        absent = self.policy.awaited - (completed.metrics or {}).keys()
        return min((self.metric_timeouts[name] for name in absent), default=0.0)
