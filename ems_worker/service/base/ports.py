"""What the services need of the outside, as interfaces: the adapters have these methods, `daemon` joins them.

All are async and safe to call from several tasks. Every write of the manifest returns after its transaction is on
disk; concurrent writes share a transaction (group commit).
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from ems_worker.core.access.quotas import Held
from ems_worker.core.lifecycle.estimate import Past
from ems_worker.core.lifecycle.experiment import ExperimentState, Tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.outcome import Call
from ems_worker.core.lifecycle.run import Run, Signal
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
from ems_worker.core.wire import Capacity, Message, Start, StreamIdentity

__all__ = ["Broker", "Capacity", "Change", "Manifest", "Message", "Orchestrator", "Start"]

# One changed attempt: the experiment's key, the run before (None: a new row) and after.
Change = tuple[int, Run | None, Run]


class Manifest(Protocol):
    """The manifest. Conflicting guarded writes raise errors.ManifestConflict and write nothing."""

    @property
    def write_problem(self) -> str | None:
        """Why writes wait at the moment (the disk is full); None if all is well."""

    @property
    def file_problem(self) -> str | None:
        """Why the next start won't find what is recorded (the file was deleted), with the remedy; None if it will."""

    # Submissions.
    async def submission(self, message: tuple[int, int, int]) -> Submission | None: ...
    async def record_submission(self, submission: Submission, experiment: NewExperiment | None) -> None:
        """The decision and, for an accepted plan, its experiment (state accepted), in one transaction."""

    async def accepted(self, digest: bytes) -> bytes | None:
        """The decision, as published, that accepted a plan of these very bytes (`Submission.digest`)."""

    async def held(self, publisher: str | None) -> Held:
        """What the experiments of this publisher that have not ended come to."""

    async def drop_submissions(self, created_ns: int, first_seq: int, before_ms: int) -> int:
        """Drops some decisions that made no experiment, on messages that can't come again; how many.

        Those are the messages before `first_seq` of the stream created at `created_ns`, and those of other streams that
        were received before `before_ms`.
        """

    async def last_plan(self, stream_created_ns: int) -> int:
        """The highest sequence of this stream that was decided; 0 for none."""

    async def unpublished_decisions(self) -> Sequence[Submission]: ...
    async def decisions_published(self, submissions: Sequence[Submission]) -> None: ...

    # Experiments.
    async def experiment(self, experiment_id: str) -> Experiment | None: ...
    async def unfinished(self) -> Sequence[Experiment]:
        """Not ended, or ended with results, or a status revision, that are not published yet."""

    async def move_experiment(
        self, key: int, expected: ExperimentState, to: ExperimentState, at_ms: int, reason: str | None = None
    ) -> None:
        """Guarded change of state; sets started_ms or finished_ms where the new state calls for it."""

    async def tally(self, key: int) -> Tally:
        """Counts and aggregates from the rows: what a worker starts from."""

    # Expansion.
    async def expand(self, key: int, points: Sequence[PointRecord], runs: Sequence[Run], expanded_points: int) -> None:
        """The next points with their first runs, and the new count of expanded points, guarded by the old one."""

    # Runs.
    async def due(self, key: int, now_ms: int, limit: int) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs whose current run is pending and due, in order of (due, point, replicate), with all attempts."""

    async def due_counts(self, keys: Sequence[int], now_ms: int, limit: int) -> Mapping[int, int]:
        """For each of these experiments, how many runs are pending and due; counting stops at `limit`."""

    async def next_due_ms(self, after_ms: int) -> int | None:
        """The earliest due time later than `after_ms` of a pending run of a running experiment; None: there is none."""

    async def last_due_ms(self) -> int | None:
        """The latest due time of a pending run of a running experiment; None: there is none."""

    async def hasten(self, latest_ms: int) -> int:
        """Has pending runs that would fall due later than then fall due then; how many those were."""

    async def jobs(self, keys: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int, int], Job]:
        """Jobs by (experiment key, point, replicate), with all attempts; absent ones are left out."""

    async def open_jobs(self, key: int) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs with an attempt in submitting, submitted or running: what recovery starts from."""

    async def points_by_number(self, key: int, numbers: Sequence[int]) -> Mapping[int, PointRecord]: ...
    async def save(self, changes: Sequence[Change], ended_seq: Mapping[int, int]) -> None:
        """Changed and new attempts, guarded by the state before, in one transaction.

        `ended_seq`: for experiments in which jobs ended, the last position given out by these changes.
        """

    async def awaiting(self, key: int) -> Sequence[Run]:
        """The runs whose jobs wait for metrics."""

    async def to_retry(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        """Jobs after a (point, replicate) that a retry takes (core.lifecycle.job.retried), in order."""

    # Control.
    async def request(self, request_id: str) -> ChangeRequest | None: ...
    async def open_requests(self, key: int) -> Sequence[ChangeRequest]:
        """Changes of the experiment that were recorded and not carried out, oldest first."""

    async def record_request(
        self, request: ChangeRequest, move: tuple[ExperimentState, ExperimentState] | None = None
    ) -> None:
        """The request, and with it the experiment's change of state (guarded), in one transaction."""

    async def answer_request(self, request_id: str, answer: str) -> None: ...

    # Reports.
    async def durations(self, base: bytes) -> Sequence[Past]:
        """How long the last completed runs of the latest experiments took, newest first; `base` is a plan's own."""

    async def results(self, key: int, after_seq: int, limit: int) -> Sequence[JobRow]:
        """Ended jobs in the order of their end."""

    async def points(self, key: int, numbers: Sequence[int]) -> Sequence[PointRow]:
        """With counts and aggregates over all their jobs, in order of their numbers; absent points are left out."""

    async def ended_points(self, key: int, numbers: Sequence[int], seq: int) -> Sequence[int]:
        """Of these points, those all of whose jobs had ended by this position; quickly told."""

    async def points_page(self, key: int, after_point: int, limit: int) -> Sequence[PointRow]: ...
    async def best_point(self, key: int) -> PointRow | None:
        """Of the points whose jobs have all ended, the one with the best mean of the experiment's goal metric."""

    async def record_status(self, key: int, revision: int, document: bytes) -> None:
        """The status that is about to be published; the last one stays readable."""

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
        """Key, experiment_id and last recorded status of experiments, newest first; no status yet is None."""

    async def jobs_page(
        self, key: int, after: tuple[int, int, int], limit: int, *, attempts: bool = False, state: str | None = None
    ) -> Sequence[JobRow]:
        """By (point, replicate, attempt) after `after`; only current runs unless `attempts`.

        `state` is a name that a status counts by (core.lifecycle.experiment.Bucket): infeasible jobs aren't failed.
        """

    def export(self, key: int) -> AsyncIterator[JobRow]:
        """Every job once, in order of (point, replicate), without holding them all."""

    # Events of unknown runs.
    async def park(self, events: Sequence[ParkedEvent], keep: int) -> int:
        """Keeps them, the newest `keep` of all and no more bytes than is good; how many older ones that dropped."""

    async def parked(self) -> Sequence[ParkedEvent]:
        """All of them, oldest first."""

    async def parked_of(self, experiment_ids: Sequence[str]) -> Sequence[ParkedEvent]:
        """Those whose names may be of runs of these experiments, oldest first."""

    async def any_parked(self) -> bool: ...
    async def unpark(self, events: Sequence[ParkedEvent]) -> None: ...
    async def expire_parked(self, before_ms: int) -> int: ...

    # What the worker remembers about the outside: streams' creation times and last sequences.
    async def remembered(self, name: str) -> str | None: ...
    async def remember(self, name: str, value: str) -> None: ...
    async def forget(self, name: str) -> None: ...


class Broker(Protocol):
    """NATS JetStream. Raises errors.BrokerUnavailable when there is no answer in time.

    Fetching gives nothing while there is no connection, and raises errors.BrokerMisconfigured when a stream or consumer
    was deleted. Acknowledging never raises: what gets lost comes again.
    """

    @property
    def connected(self) -> bool: ...

    @property
    def inbox(self) -> str:
        """The prefix of the worker's own inboxes."""

    @property
    def refused(self) -> str | None:
        """What the server refuses to do for lack of rights or room; None if nothing."""

    async def streams(self) -> Mapping[str, StreamIdentity]:
        """Who the streams are now."""

    async def positions(self) -> tuple[int, int]:
        """The sequences up to which plans and events are acknowledged."""

    async def pending(self) -> tuple[int, int]:
        """How many plans and events were not delivered yet."""

    async def rewind(self, plans: int, events: int) -> None:
        """Has everything delivered once more that came after these sequences."""

    async def published_revision(self, subject: str) -> int | None:
        """The `revision` of the message that a status subject has now; None where there is none."""

    async def has_decision(self, seq: int) -> bool:
        """Whether a decision about the plan of this sequence is stored."""

    async def plans(self) -> Sequence[Message]:
        """Waits for plan messages, a second at most; an empty answer is one."""

    async def events(self, seconds: float = 1.0) -> Sequence[Message]:
        """Waits for run events, so long at most; as many as are there, up to a batch."""

    async def ack(self, messages: Sequence[Message]) -> None: ...
    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        """Asks for redelivery after the delay."""

    async def working(self, messages: Sequence[Message]) -> None:
        """Tells the server that they are being worked on, so that they aren't redelivered."""

    async def dead_letter(self, message: Message, reason: str, kind: str) -> None:
        """Stores it on ems.dlq.{kind} with headers saying why and from where, then acks it."""

    async def publish(self, items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
        """(subject, document, message id) each, pipelined; returns when all are acknowledged.

        What the broker would not take whole goes out shortened. errors.BrokerMisconfigured where that isn't enough; the
        others are stored then.
        """

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        """The one message of its subject; False if another with this or a higher `revision` in its JSON is there."""

    async def reply(self, subject: str, data: bytes) -> None:
        """Plain publish, for those who wait on an inbox."""

    async def plan_object(self, name: str, most_bytes: int) -> bytes:
        """A plan that is in the object store; errors.NotFound, or errors.RequestRefused for what can't be used."""


class Orchestrator(Protocol):
    """The Orchestration Layer. Every call has a deadline; no call raises for what the orchestrator answers."""

    async def start(self, starts: Sequence[Start], tell: Callable[[Call], None]) -> None:
        """Submits them, in batches where the orchestrator takes batches, until each has an answer.

        `tell` hears of each call as soon as it has ended; and before that, with LATE for answers, if it takes long.
        """

    async def stop(self, simulation_id: str) -> str:
        """Sends STOP; the name of the gRPC status code that came back."""

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """What it knows of runs: a signal, or None for one that it doesn't know; runs without an answer are left out.

        None as a whole: it doesn't implement the question.
        """

    def ready(self) -> bool:
        """Whether it can be reached, as far as is known."""

    @property
    def away(self) -> str | None:
        """Why it can't be reached, in words; None while it can."""

    @property
    def crowded(self) -> bool:
        """Whether so many calls have no answer that others wait for them."""

    @property
    def message_limit(self) -> int:
        """The largest start command that it takes, in bytes, as far as is known."""

    @property
    def rpc_window(self) -> int:
        """How many calls may be open at once now."""

    def capacity(self) -> AsyncIterator[Capacity | None]:
        """Changes of capacity, for ever; None where the orchestrator doesn't tell (UNIMPLEMENTED) or is away."""
