"""What the manifest holds, as values. Times are in milliseconds since the Unix epoch; their names end in `_ms`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentState, PauseOwner, Standing
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.tally import Bucket


class PlanDecision(StrEnum):
    """The decision about a submission."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


class Submission(Struct, frozen=True, gc=False):
    """One plan message and the decision about it. `identity` is that of the message (`wire.Message.identity`).

    `document` is the decision as published, in JSON; it is also sent to `reply_to`. `digest`: SHA-256 of an accepted
    plan's bytes as sent, if the same bytes are a duplicate of it without being parsed.
    """

    stream: str
    stream_created_ns: int
    seq: int
    stored_ms: int
    subject: str
    received_ms: int
    decision: PlanDecision
    document: bytes
    experiment_id: str | None = None
    plan_sha: str | None = None
    publisher: str | None = None
    reply_to: str | None = None
    digest: bytes | None = None

    @property
    def identity(self) -> tuple[int, int, int]:
        return self.stream_created_ns, self.seq, self.stored_ms


# Labels and units of parameters and metrics: {"parameters": {name: {"label", "unit"}}, "metrics": ...}.
Headings = Mapping[str, Mapping[str, Mapping[str, str]]]


class NewExperiment(Struct, frozen=True, gc=False):
    """An accepted plan that is about to be recorded.

    `plan` has the plan's bytes as sent, after decompression. `base` is the content of the base configuration in JSON,
    in the order of the base file. `parameters` maps the names under which points store their values to dotted paths.
    """

    experiment_id: str
    name: str
    plan: bytes
    base: bytes
    plan_sha: str
    points: int
    jobs: int
    replicates: int
    created_ms: int
    group: str | None = None
    tags: tuple[str, ...] = ()
    description: str | None = None
    parameters: Mapping[str, str] | None = None
    metrics: tuple[str, ...] = ()
    # The metric that ranks points, and which of its values are better; None: points aren't ranked.
    goal_metric: str | None = None
    goal: str | None = None
    # Trace context of the plan message.
    traceparent: str | None = None
    # The version of the plan language that the plan was accepted under.
    language: int = 1
    # Whether it starts on hold, and whether it stays open until `close`.
    hold: bool = False
    keep_open: bool = False
    headings: Headings = {}


class Experiment(Struct, frozen=True, gc=False):
    """A recorded experiment. `key` is its row id, by which runs and points refer to it.

    `expanded_points`: points below this number are in the manifest. `revision` is that of the last status that was
    composed, `published_revision` that of the last status that the broker acknowledged. `ended_seq` is the position of
    the last end of a job; ends up to `published_seq` are published.
    """

    key: int
    spec: NewExperiment
    state: ExperimentState
    round: int = 1
    revision: int = 0
    published_revision: int = 0
    ended_seq: int = 0
    published_seq: int = 0
    expanded_points: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    reason: str | None = None
    pauses: frozenset[PauseOwner] = frozenset()
    pause_now: bool = False
    cancel: CancelMode | None = None
    kept_open: bool = False
    # Limits that `set` put in place of the plan's, by their keys in a plan.
    overrides: Mapping[str, Any] = {}
    # How many versions the plan has had: 1, and one more with each `extend`.
    plan_version: int = 1
    # The last round that settled. `settling_ms`: since its quorum, how long this round has waited for stragglers.
    # `earlier_jobs`: how many jobs it has besides those of this round.
    settled_round: int = 0
    settling_ms: int | None = None
    earlier_jobs: int = 0

    @property
    def standing(self) -> Standing:
        return Standing(self.state, self.round, self.pauses, self.pause_now, self.cancel, self.kept_open)


class PointRecord(Struct, frozen=True, gc=False):
    """A point's parameters, stored once for all its replicates. `params` maps names to plain JSON values."""

    point: int
    params: Mapping[str, Any]
    run_id_suffix: str | None = None
    labels: Mapping[str, str] | None = None


class DueRuns(Struct, frozen=True, gc=False):
    """How many runs of an experiment are due, and when the first pending one is; None if none is pending."""

    runs: int
    next_ms: int | None


class JobRow(Struct, frozen=True, gc=False):
    """A job as readers see it: its point and its current run, or any attempt if all are asked for."""

    point: PointRecord
    run: Run


class PointRow(Struct, frozen=True, gc=False):
    """A point with counts over all its jobs and aggregates of the tracked metrics over its completed jobs.

    `ended_seq` is the position of the last end of a job of this point; None while a job is open, 0 if all were
    cancelled before they started. `excluded_jobs` of the jobs don't count in `metrics`; `excluded` is the reason if
    none does.
    """

    point: PointRecord
    counts: Mapping[Bucket, int]
    metrics: Mapping[str, Aggregate]
    ended_seq: int | None = None
    excluded: str | None = None
    excluded_jobs: int = 0


class Change(Struct, frozen=True, gc=False):
    """A change of one experiment that somebody requested, and how far it is carried out.

    `request` is the whole request in JSON. `number` orders the changes of a manifest; 0 until it is recorded.
    `changed`, `state`, `round` and `revision` are what the reply says. Each job is judged once: those up to `judged`
    (point, replicate) are, None: all. `counts` says how many jobs went from one state to another. `added`, `withdrawn`
    and `unchanged` are points of an `extend`. `applied_ms`: when nothing of it was in flight any more. `published`:
    how many of its two documents are published.
    """

    request_id: str
    experiment: int
    verb: str
    request: str
    received_ms: int
    state: ExperimentState
    round: int
    revision: int
    number: int = 0
    changed: bool = True
    judged: tuple[int, int] | None = (-1, -1)
    counts: Mapping[str, Mapping[str, int]] = {}
    added: int | None = None
    withdrawn: int | None = None
    unchanged: int | None = None
    applied_ms: int | None = None
    published: int = 0
    # Why it couldn't be carried out, if that was found only after it was recorded.
    refused: str | None = None
    # The version of the plan language that its condition is in.
    language: int = 1


class PointIdentity(Struct, frozen=True, gc=False):
    """By which a point is found again when its plan is extended: `core.points.identity.digest`."""

    point: int
    digest: bytes


class MatchedPoint(Struct, frozen=True, gc=False):
    """A point that was found by its identity, and how many replicates it has. `excluded`: the reason if no job counts.

    It may have fewer replicates than its plan, if versions of the plan in between didn't have it.
    """

    point: int
    replicates: int
    excluded: str | None = None


class Additions(Struct, frozen=True, gc=False):
    """What one part of an extension adds to an experiment.

    `points` are new, with their `identities`; `runs` are first runs of new jobs, of these and of other points.
    `matched` are points of earlier versions of the plan that the present version has too.
    """

    points: Sequence[PointRecord] = ()
    runs: Sequence[Run] = ()
    identities: Sequence[PointIdentity] = ()
    matched: Sequence[int] = ()


class ParkedEvent(Struct, frozen=True, gc=False):
    """An event of a run that this worker doesn't know, or not yet, as it was received."""

    simulation_id: str
    subject: str
    seq: int
    received_ms: int
    data: bytes


class Which(Struct, frozen=True, gc=False):
    """Which experiments to list: those for which everything holds that is given.

    `name`: a part of the name, in any case. `like`: the beginning of an id, or a whole name.
    """

    group: str | None = None
    state: ExperimentState | None = None
    tag: str | None = None
    name: str | None = None
    like: str | None = None
    since_ms: int | None = None


EVERY = Which()


class ListedExperiment(Struct, frozen=True, gc=False):
    """An experiment in a list, with its last recorded status (None before the first) and who published it."""

    key: int
    experiment_id: str
    status: bytes | None
    publisher: str | None = None
