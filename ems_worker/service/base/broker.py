"""The interface of the broker, as the services need it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from ems_worker.core.wire import Message, PublishedChange, PublishedResult, PublishedRound, StreamIdentity


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
    def max_document_bytes(self) -> int:
        """How many bytes a document may have that isn't to be shortened."""

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

    async def settled_round(self, experiment_id: str, since_ms: int) -> int | None:
        """The round of this experiment that settled last by what is stored; None if there is none since this time."""

    async def changes(self, after_seq: int) -> Sequence[PublishedChange]:
        """The documents of changes that are stored after this sequence of the stream of results, oldest first."""

    async def rounds(self, after_seq: int) -> Sequence[PublishedRound]:
        """The rounds that settled after this sequence of the stream of results, oldest first."""

    def results(self, after_seq: int) -> AsyncIterator[PublishedResult]:
        """The ends of jobs that are stored after this sequence of the stream of results, oldest first."""

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
