"""The interfaces of the adapters, as the services need them.

Their methods may be called from several tasks. Each write to the manifest returns once its transaction is on disk;
concurrent writes share a transaction (group commit).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from ems_worker.core.access.quotas import OpenWork
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.estimate import CompletedRun
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.records import (
    EVERY,
    Change,
    DueRuns,
    Experiment,
    JobRow,
    ListedExperiment,
    NewExperiment,
    ParkedEvent,
    PointRecord,
    PointRow,
    Submission,
    Which,
)
from ems_worker.service.base.broker import Broker
from ems_worker.service.base.orchestrator import Orchestrator
from ems_worker.service.base.removals_manifest import RemovalsManifest
from ems_worker.service.base.steering_manifest import RunChange, SteeringManifest

__all__ = ["Broker", "Manifest", "Orchestrator", "RunChange"]

# Jobs with due runs, and their points.
DueJobs = Sequence[tuple[Job, PointRecord]]


class Manifest(SteeringManifest, RemovalsManifest, Protocol):
    """The manifest. A guarded write that finds another state raises errors.ManifestConflict and writes nothing."""

    @property
    def write_problem(self) -> str | None:
        """Why writes wait at the moment (the disk is full); None if all is well."""

    @property
    def file_problem(self) -> str | None:
        """Why the next start won't find what is recorded (the file was deleted), with the remedy; None if it will."""

    # Submissions.
    async def submission(self, message: tuple[int, int, int]) -> Submission | None: ...
    async def record_submission(self, submission: Submission, experiment: NewExperiment | None) -> None:
        """Records the decision and, for an accepted plan, its experiment in state accepted, in one transaction."""

    async def accepted(self, digest: bytes) -> bytes | None:
        """The published decision that accepted a plan with the same bytes (`Submission.digest`)."""

    async def open_work(self, publisher: str | None) -> OpenWork:
        """How much open work this publisher has."""

    async def drop_submissions(self, created_ns: int, first_seq: int, before_ms: int) -> int:
        """Drops decisions without an experiment whose messages can't be delivered again; returns how many.

        These are messages before `first_seq` in the stream created at `created_ns`, and messages of other streams that
        were received before `before_ms`.
        """

    async def last_plan(self, stream_created_ns: int) -> int:
        """The highest sequence of this stream that has a decision; 0 if none has."""

    async def unpublished_decisions(self) -> Sequence[Submission]: ...
    async def decisions_published(self, submissions: Sequence[Submission]) -> None: ...

    # Experiments.
    async def experiment(self, experiment_id: str) -> Experiment | None: ...
    async def unfinished(self) -> Sequence[Experiment]:
        """Experiments that have not ended, or have results or a status revision to publish."""

    async def save_experiment(self, before: Experiment, after: Experiment) -> None:
        """Writes how the experiment stands (state, reason, round, times, pauses, cancellation, limits, settling).

        It is guarded by the state and round before. Revisions, positions and the size of the experiment have methods of
        their own.
        """

    async def plan_version(self, key: int, plan_sha: str) -> int | None:
        """The version of the plan with this identity, if it is one that the experiment has or has had."""

    async def plan(self, key: int, version: int) -> bytes | None:
        """A version of the experiment's plan, as it was sent; None if there is none."""

    async def aggregates(self, key: int) -> Mapping[str, Aggregate]:
        """The aggregate of each tracked metric, by its name: those of `tally`."""

    async def tally(self, key: int) -> Tally:
        """The counts and aggregates, computed from the rows."""

    # Expansion.
    async def expand(
        self,
        key: int,
        points: Sequence[PointRecord],
        runs: Sequence[Run],
        expanded_points: int,
        *,
        begun: tuple[Experiment, Experiment] | None = None,
    ) -> None:
        """Adds points with their first runs, and sets the count of expanded points, guarded by the old count.

        `begun`: the experiment before and after it begins with these.
        """

    # Runs.
    async def due(self, key: int, now_ms: int, limit: int) -> DueJobs:
        """Jobs, with all attempts, whose current run is pending and due, in order of (due, point, replicate)."""

    async def due_of(self, keys: Sequence[int], now_ms: int, limit: int) -> Mapping[int, DueJobs]:
        """The same for each of these experiments, at most `limit` of each."""

    async def due_counts(self, keys: Sequence[int], now_ms: int, limit: int) -> Mapping[int, DueRuns]:
        """The due runs of each of these experiments; counting stops at `limit`."""

    async def last_due_ms(self) -> int | None:
        """The latest due time of a pending run of a running experiment; None if there is none."""

    async def hasten(self, latest_ms: int) -> int:
        """Moves due times of pending runs that are later than this to this; returns how many."""

    async def jobs(self, keys: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int, int], Job]:
        """Jobs with all attempts, by (experiment key, point, replicate); jobs that don't exist are left out."""

    async def open_jobs(self, key: int) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs with an attempt that is submitting, submitted or running."""

    async def awaiting_jobs(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        """Jobs after a (point, replicate) that wait for metrics, with all attempts, in order."""

    async def points_by_number(self, key: int, numbers: Sequence[int]) -> Mapping[int, PointRecord]: ...
    async def jobs_after(self, key: int, after: tuple[int, int], limit: int) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs after a (point, replicate), with all attempts, in order."""

    async def save(
        self,
        changes: Sequence[RunChange],
        ended_seq: Mapping[int, int],
        change: Change | None = None,
        reopened: tuple[Experiment, Experiment] | None = None,
    ) -> None:
        """Writes changed and new attempts, guarded by their states before, in one transaction.

        `ended_seq`: for experiments in which jobs ended, the position of the last end. `change`: the requested change
        that does this, with how far it is carried out after it. `reopened`: an experiment that has jobs again, before
        and after, as `save_experiment` takes it.
        """

    async def awaiting(self, key: int) -> Sequence[Run]:
        """Runs whose jobs wait for metrics."""

    async def to_retry(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        """Jobs after a (point, replicate) that a retry takes (core.lifecycle.job.retried), in order."""

    # Reports.
    async def durations(self, base: bytes) -> Sequence[CompletedRun]:
        """Recent completed runs of the latest experiments, newest first; `base` is the base of the plan to compare."""

    async def results(self, key: int, after_seq: int, limit: int) -> Sequence[JobRow]:
        """Ended jobs in the order of their end."""

    async def points(self, key: int, numbers: Sequence[int]) -> Sequence[PointRow]:
        """With counts and aggregates over all their jobs, in order of their numbers; absent points are left out."""

    async def ended_points(self, key: int, numbers: Sequence[int], seq: int) -> Sequence[int]:
        """Those of these points whose jobs had all ended by this position. Faster than `points`."""

    async def called_off_points(self, key: int, after_point: int, limit: int) -> Sequence[int]:
        """Points after a point with a job that was cancelled before it started, and one with a result, in order."""

    async def points_page(self, key: int, after_point: int, limit: int) -> Sequence[PointRow]: ...
    async def best_point(self, key: int) -> PointRow | None:
        """The point with the best mean of the experiment's goal metric, among points whose jobs have all ended."""

    async def record_status(self, key: int, revision: int, document: bytes) -> None:
        """Records the status that is about to be published, in place of the one before."""

    async def status(self, key: int) -> bytes | None:
        """The last status that was recorded."""

    async def revision_published(self, key: int, revision: int) -> None: ...
    async def status_confirmed(self, key: int) -> None: ...
    async def results_published(self, key: int, seq: int) -> None: ...

    # Queries.
    async def statuses(
        self, which: Which = EVERY, *, before_key: int | None = None, limit: int = 50
    ) -> Sequence[ListedExperiment]:
        """Experiments, newest first."""

    async def jobs_page(
        self,
        key: int,
        after: tuple[int, int, int],
        limit: int,
        *,
        last: tuple[int, int] | None = None,
        attempts: bool = False,
        state: str | None = None,
    ) -> Sequence[JobRow]:
        """By (point, replicate, attempt) after `after` and up to the job `last`; only current runs unless `attempts`.

        `state` is a name that a status counts by (core.lifecycle.experiment.Bucket): infeasible jobs aren't failed.
        """

    def export(self, key: int) -> AsyncIterator[JobRow]:
        """Every job, in order of (point, replicate), read in parts."""

    # Events of unknown runs.
    async def park(self, events: Sequence[ParkedEvent], keep: int) -> int:
        """Adds these events, and keeps the newest `keep` of all, within a limit of bytes; returns how many it drops."""

    async def parked(self) -> Sequence[ParkedEvent]:
        """All parked events, oldest first."""

    async def parked_of(self, experiment_ids: Sequence[str]) -> Sequence[ParkedEvent]:
        """Parked events whose simulation ids may belong to these experiments, oldest first."""

    async def any_parked(self) -> bool: ...
    async def unpark(self, events: Sequence[ParkedEvent]) -> None: ...
    async def expire_parked(self, before_ms: int) -> int: ...

    # Facts about the outside that the worker remembers, such as the identities of the streams.
    async def remembered(self, name: str) -> str | None: ...
    async def remember(self, name: str, value: str) -> None: ...
    async def forget(self, name: str) -> None: ...
