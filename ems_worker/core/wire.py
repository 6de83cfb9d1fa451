"""What crosses the wire, as the values that services and adapters exchange."""

import enum
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Message(Struct, frozen=True, gc=False):
    """A stored message as delivered to a durable consumer. It is settled (ack, later, dead letter) by its `token`."""

    stream: str
    stream_created_ns: int
    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    delivered: int
    published_ms: int
    token: Any

    @property
    def identity(self) -> tuple[int, int, int]:
        """The same at every delivery, and unique.

        The time is part of it because a stream that lost its last messages in a power failure reuses their sequences.
        """
        return self.stream_created_ns, self.seq, self.published_ms


class StreamIdentity(Struct, frozen=True, gc=False):
    """Distinguishes a stream from another of the same name, and shows whether it lost its last messages."""

    name: str
    created_ns: int
    first_seq: int
    last_seq: int


class Start(Struct, frozen=True, gc=False):
    """One start command. `traceparent` is the trace context of the call.

    `alone`: send it without a batch, because its last batch had no answer and this command may be the reason.
    """

    simulation_id: str
    config: bytes
    config_sha: str
    seed: int
    experiment_id: str
    labels: Mapping[str, str]
    traceparent: str | None = None
    alone: bool = False


class Capacity(Struct, frozen=True, gc=False):
    """How much the orchestrator can run. `max_message_bytes` is 0 if it doesn't report the limit."""

    slots: int
    max_message_bytes: int
    model_version: str


class Control(enum.StrEnum):
    """What the worker asks the orchestrator to do with a run."""

    PAUSE = "PAUSE"
    RESUME = "RESUME"
    STOP = "STOP"


class Controlled(Struct, frozen=True, gc=False):
    """The answer to a control command: its gRPC status code by name, and whether the run is paused after it.

    A PAUSE is confirmed exactly if `paused`: OK alone may mean that the run is queued, or has ended.
    """

    code: str
    paused: bool = False


class PublishedChange(Struct, frozen=True, gc=False):
    """A document of a change as the broker has it: at which position of its stream, and when it was stored.

    `documents`: how many documents of the change the broker has.
    """

    seq: int
    stored_ms: int
    experiment_id: str
    document: Mapping[str, Any]
    documents: int = 1


class PublishedRound(Struct, frozen=True, gc=False):
    """A round of an experiment that settled, as the broker has it: at which position, and when it was stored."""

    seq: int
    stored_ms: int
    experiment_id: str
    number: int


class PublishedResult(Struct, frozen=True, gc=False):
    """What the broker has of an end of a job: the run that represents the job, and the number of the end.

    `excluded`: the reason, None if the job counts.
    """

    simulation_id: str
    job_revision: int
    state: str
    excluded: str | None
