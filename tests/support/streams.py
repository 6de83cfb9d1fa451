"""A broker in memory that keeps its streams, and delivers plans and events once more after a restore."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message, PublishedChange, PublishedRound, StreamIdentity
from tests.support.played import CREATED_NS, Broker, Clock


@dataclass
class Streams(Broker):
    """`plan_log` and `event_log` are the streams of plans and events, which the world fills."""

    clock: Clock = field(default_factory=Clock)
    plan_log: list[Message] = field(default_factory=list)
    event_log: list[Message] = field(default_factory=list)
    # When each published document was stored, and how many messages of the logs were delivered since the last rewind.
    _times: list[int] = field(default_factory=list)
    _plans_at: int = 0
    _events_at: int = 0

    async def streams(self) -> Mapping[str, StreamIdentity]:
        lengths = {subjects.PLANS_STREAM: len(self.plan_log), subjects.RESULTS_STREAM: len(self.published)}
        return {name: StreamIdentity(name, CREATED_NS, 1, length) for name, length in lengths.items()}

    async def pending(self) -> tuple[int, int]:
        return len(self.plan_log) - self._plans_at, len(self.event_log) - self._events_at

    async def rewind(self, plans: int, events: int) -> None:
        """Everything is delivered again: what was before the position changes nothing."""
        self._plans_at = self._events_at = 0

    async def plans(self) -> Sequence[Message]:
        messages = self.plan_log[self._plans_at :]
        self._plans_at = len(self.plan_log)
        return messages

    async def events(self, seconds: float = 1.0) -> Sequence[Message]:
        """A few at a time, so that changes fall between them."""
        messages = self.event_log[self._events_at :][:3]
        self._events_at += len(messages)
        return messages

    async def publish(self, items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
        before = len(self.published)
        try:
            await super().publish(items, traceparent)
        finally:
            # No two messages have the same time.
            for _ in self.published[before:]:
                self.clock.seconds += 0.001
                self._times.append(self.clock.now_ms())

    async def changes(self, after_seq: int) -> Sequence[PublishedChange]:
        found: dict[str, PublishedChange] = {}
        for seq, (subject, document, name) in enumerate(self.published, 1):
            if seq > after_seq and subject.startswith(f"{subjects.CHANGE}."):
                found.setdefault(name, PublishedChange(seq, self._times[seq - 1], document["experiment_id"], document))
        return list(found.values())

    async def rounds(self, after_seq: int) -> Sequence[PublishedRound]:
        return [
            PublishedRound(seq, self._times[seq - 1], document["experiment_id"], document["round"])
            for seq, (subject, document, _) in enumerate(self.published, 1)
            if seq > after_seq and subject.startswith(f"{subjects.SETTLED}.")
        ]

    def once(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """The published documents of a kind, each message once, oldest first."""
        named = {name: document for subject, document, name in self.published if f".{kind}." in subject}
        return list(named.values())

    async def published_revision(self, subject: str) -> int | None:
        experiment_id = subject.rpartition(".")[2]
        revisions = [status["revision"] for status in self.statuses if status["experiment_id"] == experiment_id]
        return max(revisions, default=None)
