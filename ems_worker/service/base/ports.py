"""The interfaces of the adapters, as the services need them.

Their methods may be called from several tasks. Each write to the manifest returns once its transaction is on disk;
concurrent writes share a transaction (group commit).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from ems_worker.core.access.quotas import OpenWork
from ems_worker.core.lifecycle.estimate import CompletedRun
from ems_worker.core.lifecycle.experiment import ExperimentState, Tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import (
    ChangeRequest,
    Experiment,
    JobRow,
    NewExperiment,
    ParkedEvent,
    PointRecord,
    PointRow,
    Submission,
)
from ems_worker.core.wire import Message, StreamIdentity
from ems_worker.service.base.orchestrator import Orchestrator

__all__ = ["Broker", "Manifest", "Orchestrator", "RunChange"]

# A changed attempt: the experiment's key, the run before (None for a new row), and the run after.
RunChange = tuple[int, Run | None, Run]


class Manifest(Protocol):
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

    async def move_experiment(
        self, key: int, expected: ExperimentState, to: ExperimentState, *, at_ms: int, reason: str | None = None
    ) -> None:
        """Changes the state, guarded by the expected one; sets started_ms or finished_ms if the new state needs it."""

    async def tally(self, key: int) -> Tally:
        """The counts and aggregates, computed from the rows."""

    # Expansion.
    async def expand(self, key: int, points: Sequence[PointRecord], runs: Sequence[Run], expanded_points: int) -> None:
        """Adds points with their first runs, and sets the count of expanded points, guarded by the old count."""

    # Runs.
    async def due(self, key: int, now_ms: int, limit: int) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs, with all attempts, whose current run is pending and due, in order of (due, point, replicate)."""

    async def due_counts(self, keys: Sequence[int], now_ms: int, limit: int) -> Mapping[int, int]:
        """For each of these experiments, how many runs are pending and due; counting stops at `limit`."""

    async def next_due_ms(self, after_ms: int) -> int | None:
        """The earliest due time after `after_ms` of a pending run of a running experiment; None if there is none."""

    async def last_due_ms(self) -> int | None:
        """The latest due time of a pending run of a running experiment; None if there is none."""

    async def hasten(self, latest_ms: int) -> int:
        """Moves due times of pending runs that are later than this to this; returns how many."""

    async def jobs(self, keys: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int, int], Job]:
        """Jobs with all attempts, by (experiment key, point, replicate); jobs that don't exist are left out."""

    async def open_jobs(self, key: int) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs with an attempt that is submitting, submitted or running."""

    async def points_by_number(self, key: int, numbers: Sequence[int]) -> Mapping[int, PointRecord]: ...
    async def save(self, changes: Sequence[RunChange], ended_seq: Mapping[int, int]) -> None:
        """Writes changed and new attempts, guarded by their states before, in one transaction.

        `ended_seq`: for experiments in which jobs ended, the position of the last end.
        """

    async def awaiting(self, key: int) -> Sequence[Run]:
        """Runs whose jobs wait for metrics."""

    async def to_retry(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        """Jobs after a (point, replicate) that a retry takes (core.lifecycle.job.retried), in order."""

    # Control.
    async def request(self, request_id: str) -> ChangeRequest | None: ...
    async def open_requests(self, key: int) -> Sequence[ChangeRequest]:
        """Requests for changes of the experiment that were recorded and not carried out, oldest first."""

    async def record_request(
        self, request: ChangeRequest, move: tuple[ExperimentState, ExperimentState] | None = None
    ) -> None:
        """Records the request and the experiment's change of state (guarded), in one transaction."""

    async def answer_request(self, request_id: str, answer: str) -> None: ...

    # Reports.
    async def durations(self, base: bytes) -> Sequence[CompletedRun]:
        """Recent completed runs of the latest experiments, newest first; `base` is the base of the plan to compare."""

    async def results(self, key: int, after_seq: int, limit: int) -> Sequence[JobRow]:
        """Ended jobs in the order of their end."""

    async def points(self, key: int, numbers: Sequence[int]) -> Sequence[PointRow]:
        """With counts and aggregates over all their jobs, in order of their numbers; absent points are left out."""

    async def ended_points(self, key: int, numbers: Sequence[int], seq: int) -> Sequence[int]:
        """Those of these points whose jobs had all ended by this position. Faster than `points`."""

    async def points_page(self, key: int, after_point: int, limit: int) -> Sequence[PointRow]: ...
    async def best_point(self, key: int) -> PointRow | None:
        """The point with the best mean of the experiment's goal metric, among points whose jobs have all ended."""

    async def record_status(self, key: int, revision: int, document: bytes) -> None:
        """Records the status that is about to be published, in place of the one before."""

    async def status(self, key: int) -> bytes | None:
        """The last status that was recorded."""

    async def revision_published(self, key: int, revision: int) -> None: ...
    async def results_published(self, key: int, seq: int) -> None: ...

    # Queries.
    async def statuses(
        self,
        *,
        group: str | None = None,
        state: ExperimentState | None = None,
        before_key: int | None = None,
        limit: int = 50,
    ) -> Sequence[tuple[int, str, bytes | None]]:
        """Key, experiment_id and last recorded status (None before the first) of experiments, newest first."""

    async def jobs_page(
        self, key: int, after: tuple[int, int, int], limit: int, *, attempts: bool = False, state: str | None = None
    ) -> Sequence[JobRow]:
        """By (point, replicate, attempt) after `after`; only current runs unless `attempts`.

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


class Broker(Protocol):
    """NATS JetStream. Methods raise errors.BrokerUnavailable if there is no answer in time.

    Fetching returns nothing while there is no connection, and raises errors.BrokerMisconfigured if a stream or consumer
    was deleted. Acknowledging never raises: a message whose acknowledgement got lost is delivered again.
    """

    @property
    def connected(self) -> bool: ...

    @property
    def inbox(self) -> str:
        """The prefix of the worker's own inboxes."""

    @property
    def refused(self) -> str | None:
        """What the server refuses for lack of rights or space; None if nothing."""

    async def streams(self) -> Mapping[str, StreamIdentity]:
        """The present identities of the streams, by name."""

    async def positions(self) -> tuple[int, int]:
        """The sequences up to which plans and events are acknowledged."""

    async def pending(self) -> tuple[int, int]:
        """How many plans and events have not been delivered yet."""

    async def rewind(self, plans: int, events: int) -> None:
        """Redelivers all messages after these sequences."""

    async def published_revision(self, subject: str) -> int | None:
        """The `revision` of the stored message of a status subject; None if there is no message."""

    async def has_decision(self, seq: int) -> bool:
        """Whether a decision about the plan with this sequence is stored."""

    async def plans(self) -> Sequence[Message]:
        """Plan messages, after waiting for a second at most; empty if none arrived."""

    async def events(self, seconds: float = 1.0) -> Sequence[Message]:
        """Up to a batch of run events, after waiting for this long at most; empty if none arrived."""

    async def ack(self, messages: Sequence[Message]) -> None: ...
    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        """Asks for redelivery after the delay."""

    async def working(self, messages: Sequence[Message]) -> None:
        """Tells the server that these messages are in progress, so that they aren't redelivered."""

    async def dead_letter(self, message: Message, reason: str, kind: str) -> None:
        """Stores the message on ems.dlq.{kind}, with headers for the reason and the origin, then acknowledges it."""

    async def publish(self, items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
        """Publishes items of (subject, document, message id); returns once all are acknowledged.

        A document that is too large for the broker is shortened. Raises errors.BrokerMisconfigured if that doesn't
        help; the other items are stored even then.
        """

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        """Replaces the stored message of the subject; False if that one already has this or a higher `revision`."""

    async def reply(self, subject: str, data: bytes) -> None:
        """Publishes to an inbox, without JetStream."""

    async def plan_object(self, name: str, max_bytes: int) -> bytes:
        """The plan with this name in the object store.

        Raises errors.NotFound, or errors.RequestRefused for an object that can't be used.
        """
