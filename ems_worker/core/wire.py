"""What crosses the wire, as values: what the services and the adapters hand each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message as delivered to a durable consumer. `token` is what settles it (ack, later, dead letter)."""

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
        """The same at every delivery, and no other message's.

        With the time: a broker that lost its end (a power failure) gives its sequences to other messages.
        """
        return self.stream_created_ns, self.seq, self.published_ms


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """What tells a stream from another one of the same name, and a whole one from one that lost its end."""

    name: str
    created_ns: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Start:
    """One start command. `traceparent` goes beside it, as the trace context of the call.

    `alone`: not in a batch, since the last one that it was in had no answer: it may be what keeps it from having one.
    """

    simulation_id: str
    config: bytes
    config_sha: str
    seed: int
    experiment_id: str
    labels: Mapping[str, str]
    traceparent: str | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much the orchestrator can run; `max_message_bytes` is 0 where it doesn't tell."""

    slots: int
    max_message_bytes: int
    model_version: str
