"""The implementation of `service.ports.Broker` on NATS JetStream."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import orjson

from ems_worker import errors
from ems_worker.adapters.jetstream import connection, consumers, history, objects, service, streams
from ems_worker.adapters.jetstream.item import Item
from ems_worker.adapters.jetstream.latest import LatestPublisher
from ems_worker.adapters.jetstream.publish import TTL, Publisher
from ems_worker.adapters.jetstream.pull import Pull
from ems_worker.core import trace
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message, PublishedChange, PublishedResult, PublishedRound, StreamIdentity
from ems_worker.settings import Access

# A plan may have megabytes, and takes long to process.
_PLAN_BATCH = 8
_EVENT_BATCH = 500
# Messages end a wait at once; this is how long it lasts without any.
_WAIT_SECONDS = 5.0
_MIN_DELAY_SECONDS = 0.05
_MAX_REASON_CHARACTERS = 2000
# What the headers and the protocol add to a document.
_HEADERS_BYTES = 2048
DECISION_TTL = f"{30 * 24}h"
_ACK, _WORKING, _NAK = b"", b"+WPI", b"-NAK "


def _lifetime(subject: str) -> dict[str, str]:
    """Decisions are kept as long as plans; statuses, in the same stream, never expire."""
    return {TTL: DECISION_TTL} if subject.startswith(f"{subjects.DECISION}.") else {}


def _nothing(*_: object) -> None:
    pass


class Broker:
    """NATS JetStream for the worker. Call `ensure()` before the first fetch."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._plans = Pull(link, consumers.PLANS, streams.PLAN_SUBJECTS, _PLAN_BATCH)
        self._events = Pull(link, consumers.EVENTS, streams.EVENT_SUBJECTS, _EVENT_BATCH, with_headers=False)
        self._publisher = Publisher(link)
        self._latest = LatestPublisher(link, self._publisher)
        self._identities: Mapping[str, StreamIdentity] = {}
        self._owner = ""
        self._service: service.Service | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        servers: Access | Sequence[str],
        *,
        name: str,
        timeout: float | None = None,
        on_disconnected: Callable[[], None] = _nothing,
        on_reconnected: Callable[[], None] = _nothing,
        on_error: Callable[[Exception], None] = _nothing,
    ) -> AsyncIterator["Broker"]:
        """A connected broker for the duration of the `async with`.

        Without a timeout (seconds) it waits for the server indefinitely; at a timeout it raises BrokerUnavailable. Once
        connected it reconnects by itself, and reports that to the callbacks.
        """
        link = connection.Connection(
            servers, name=name, on_disconnected=on_disconnected, on_reconnected=on_reconnected, on_error=on_error
        )
        broker = cls(link)
        try:
            await link.open(timeout)
            for listener in (broker._plans, broker._events, broker._publisher):
                await link.listen(listener)
            yield broker
        finally:
            await broker._plans.release()
            await broker._events.release()
            if broker._service is not None:
                await broker._service.close()
            await link.close()

    @property
    def connected(self) -> bool:
        """Whether the broker is connected now."""
        return self._link.connected

    @property
    def inbox(self) -> str:
        """The prefix of the subjects on which this broker receives; the same for all its connections."""
        return self._link.inbox

    @property
    def max_document_bytes(self) -> int:
        """The size of the largest message that the server takes, less what headers may add."""
        return self._link.max_payload - _HEADERS_BYTES

    @property
    def refused(self) -> str | None:
        """What the broker refuses although it is connected, by subject with its reason; None if nothing is refused."""
        return self._link.refusals.summary

    async def ensure(self, owner: str, *, create: bool = True) -> Mapping[str, StreamIdentity]:
        """Creates missing streams (unless `create` forbids it) and consumers, and returns the streams' identities.

        The keys are the names in the contract, also if the run events are in a stream of another name. `owner` is the
        identity of the manifest that the consumers feed. Raises BrokerMisconfigured with all contradictions and the
        remedy, also if the consumers feed another manifest.
        """
        self._owner = owner
        identities = await streams.ensure(self._link, create=create)
        for pull, spec, stream in (
            (self._plans, consumers.PLANS_SPEC, identities[streams.PLANS]),
            (self._events, consumers.EVENTS_SPEC, identities[streams.EVENTS]),
        ):
            await consumers.ensure(self._link, stream.name, spec, owner)
            pull.bind(stream.name, stream.created_ns)
        await objects.ensure(self._link, create=create)
        self._identities = identities
        return identities

    async def streams(self) -> Mapping[str, StreamIdentity]:
        """The current identities of the streams that `ensure` returned; deleted streams are left out."""
        identities = {}
        for key, known in self._identities.items():
            if (current := await streams.look(self._link, known.name)) is not None:
                identities[key] = current
        return identities

    async def positions(self) -> tuple[int, int]:
        """The sequences up to which plans and events are acknowledged."""
        return await self._for_both(consumers.position)

    async def pending(self) -> tuple[int, int]:
        """How many plans and events are not delivered yet."""
        return await self._for_both(consumers.pending)

    async def _for_both(self, query: Callable[[connection.Connection, str, str], Awaitable[int]]) -> tuple[int, int]:
        plans, events = (self._identities[key].name for key in (streams.PLANS, streams.EVENTS))
        return await query(self._link, plans, consumers.PLANS), await query(self._link, events, consumers.EVENTS)

    async def rewind(self, plans: int, events: int) -> None:
        """Makes the consumers deliver everything after these sequences again."""
        for pull, spec, key, seq in (
            (self._plans, consumers.PLANS_SPEC, streams.PLANS, plans),
            (self._events, consumers.EVENTS_SPEC, streams.EVENTS, events),
        ):
            identity = self._identities[key]
            await consumers.rewind(self._link, identity.name, spec, self._owner, after_seq=seq)
            pull.bind(identity.name, identity.created_ns)

    async def published_revision(self, subject: str) -> int | None:
        """The `revision` of the latest message on a status subject; None without one."""
        return await self._latest.stored_revision(subject)

    async def has_decision(self, seq: int) -> bool:
        """Whether the decision on the plan with this sequence is stored."""
        return await self._latest.has_decision(seq)

    async def settled_round(self, experiment_id: str, since_ms: int) -> int | None:
        """The round of this experiment that settled last by what is stored; None if there is none since this time."""
        return await history.settled_round(self._link, experiment_id, since_ms)

    async def changes(self, after_seq: int) -> Sequence[PublishedChange]:
        """The documents of changes that are stored after this sequence of the stream of results, oldest first."""
        return await history.changes(self._link, after_seq)

    async def rounds(self, after_seq: int) -> Sequence[PublishedRound]:
        """The rounds that settled after this sequence of the stream of results, oldest first."""
        return await history.rounds(self._link, after_seq)

    def results(self, after_seq: int) -> AsyncIterator[PublishedResult]:
        """The ends of jobs that are stored after this sequence of the stream of results, oldest first."""
        return history.results(self._link, after_seq)

    async def plans(self) -> Sequence[Message]:
        """A few plan messages; none after some seconds without any, or without a connection."""
        return await self._plans.fetch(_WAIT_SECONDS)

    async def events(self, seconds: float = _WAIT_SECONDS) -> Sequence[Message]:
        """Up to 500 run events; none after `seconds` without any, or without a connection."""
        return await self._events.fetch(seconds)

    async def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledges the messages. Never raises: if an acknowledgement gets lost, the message is redelivered."""
        await self._settle(messages, _ACK)

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        """Has the messages redelivered after a delay. Without one, they would come thousands of times a second."""
        delay_ns = round(max(delay_seconds, _MIN_DELAY_SECONDS) * 1e9)
        await self._settle(messages, _NAK + orjson.dumps({"delay": delay_ns}))

    async def working(self, messages: Sequence[Message]) -> None:
        """Restarts the time until the messages are redelivered."""
        await self._settle(messages, _WORKING)

    async def dead_letter(self, message: Message, reason: str, kind: str) -> None:
        """Stores a message on ems.dlq.{kind} (plan or event) with its origin and the reason in headers, then acks it.

        Raises BrokerUnavailable or BrokerMisconfigured if it can't be stored; it isn't acknowledged then.
        """
        headers = {
            "Nats-Msg-Id": f"{message.stream}-{message.stream_created_ns}-{message.seq}",
            subjects.REASON_HEADER: reason[:_MAX_REASON_CHARACTERS],
            subjects.STREAM_HEADER: message.stream,
            subjects.SEQUENCE_HEADER: str(message.seq),
            subjects.SUBJECT_HEADER: message.subject,
            subjects.DELIVERED_HEADER: str(message.delivered),
            subjects.SHA256_HEADER: hashlib.sha256(message.data).hexdigest(),
            subjects.BYTES_HEADER: str(len(message.data)),
        }
        subject = f"{subjects.DEAD_LETTERS}.{kind}"
        # The original stays in its stream. The headers say where, and identify it by its digest.
        reference = Item(subject, b"", {**headers, subjects.BY_REFERENCE_HEADER: "true"})
        await self._publisher.store([Item(subject, message.data, headers, instead=reference)])
        await self.ack([message])

    async def publish(self, items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
        """Stores (subject, document, message id) items, pipelined; returns when all are acknowledged.

        Documents that are too large for the server are shortened. `traceparent` is their trace context. Raises
        BrokerUnavailable after about 20 s without progress, and BrokerMisconfigured if the server can't take one of
        them.
        """
        context = {} if traceparent is None else {trace.HEADER: traceparent}
        common = {subject: {**context, **_lifetime(subject)} for subject in {subject for subject, _, _ in items}}
        await self._publisher.store(
            [
                Item(subject, data, {"Nats-Msg-Id": id_, **common[subject]}, document=True)
                for subject, data, id_ in items
            ]
        )

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        """Makes `data` the latest message of its subject; False if another has this or a higher `revision`.

        A document that is too large for the server is shortened.
        """
        return await self._latest.store(subject, data, revision)

    async def reply(self, subject: str, data: bytes) -> None:
        """Publishes a document to an inbox that `service.replies` allows, unstored; it is lost without a connection."""
        with contextlib.suppress(errors.BrokerUnavailable, *connection.FOREIGN):
            client = self._link.client
            if (item := Item(subject, data, {}, document=True).within(client.max_payload)) is not None:
                await client.publish(subject, item.data)

    async def plan_object(self, name: str, max_bytes: int) -> bytes:
        """A plan from the object store.

        Raises NotFound, RequestRefused for an object that can't be used, and BrokerUnavailable.
        """
        return await objects.read(self._link, name, max_bytes)

    async def serve(self, endpoints: Mapping[str, service.Answering], *, version: str, allows: service.Allows) -> None:
        """Serves `ems.api.{verb}` until the broker closes; returns as soon as requests reach it.

        A handler maps the bytes of a request to those of its reply. Our errors become the error code and the error
        message of the reply. If `allows` refuses its reply subject, a request is neither carried out nor answered.
        """
        self._service = service.Service(self._link, endpoints, version, allows)
        await self._link.listen(self._service)

    async def _settle(self, messages: Sequence[Message], acknowledgement: bytes) -> None:
        with contextlib.suppress(errors.BrokerUnavailable, *connection.FOREIGN):
            tokens = [(message.token, b"", b"", acknowledgement) for message in messages]
            await self._link.client.publish_raw(tokens)
