"""What the manifest holds, as values. Times are milliseconds since the Unix epoch and end in `_ms`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ems_worker.core.lifecycle.experiment import Aggregate, Bucket, ExperimentState
from ems_worker.core.lifecycle.run import Run


class PlanDecision(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Submission:
    """One plan message and its decision. `identity` is the message's (`wire.Message.identity`).

    `document` is the decision as published, JSON; `reply_to` also gets it. `digest`: SHA-256 of an accepted
    plan's bytes as sent, where the same bytes are a duplicate of it, without being read.
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


@dataclass(frozen=True, slots=True)
class NewExperiment:
    """An accepted plan, about to be recorded.

    `plan` is the plan's bytes as sent (after decompression); `base` the base configuration's content, JSON in the
    base file's order. `parameters` maps the names under which points store their values to dotted paths.
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
    # The metric that ranks points, and whether less is better; None: points aren't ranked.
    goal_metric: str | None = None
    goal: str | None = None
    # Trace context of the plan's message.
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """A recorded experiment. `key` is its row id; runs and points refer to it by it.

    `expanded_points`: points below this number are in the manifest. `revision`: of the last status that was composed;
    `published_revision`: of the last that the broker acknowledged. `published_seq`: ends of jobs up to this position
    were published; `ended_seq`: the last position given out.
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


@dataclass(frozen=True, slots=True)
class PointRecord:
    """A point's parameters, stored once for all its replicates; `params` maps names to plain JSON values."""

    point: int
    params: Mapping[str, Any]
    run_id_suffix: str | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as readers see it: its point and the run that stands for it (or any attempt, where all are asked for)."""

    point: PointRecord
    run: Run


@dataclass(frozen=True, slots=True)
class PointRow:
    """A point with the jobs of all its replicates: counts, aggregates of the tracked metrics over completed ones.

    `ended_seq`: position of the last end of a job of this point; None while one is open.
    """

    point: PointRecord
    counts: Mapping[Bucket, int]
    metrics: Mapping[str, Aggregate]
    ended_seq: int | None = None


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A change that somebody asked for, recorded before it is carried out; `answer` once it is. Both are JSON."""

    request_id: str
    experiment: int
    verb: str
    body: str
    received_ms: int
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event of a run that this worker doesn't know (yet), as it came."""

    simulation_id: str
    subject: str
    seq: int
    received_ms: int
    data: bytes
