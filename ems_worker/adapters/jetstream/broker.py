"""The broker as the services know it (`service.ports.Broker`)."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import orjson

from ems_worker import errors
from ems_worker.adapters.jetstream import connection, consumers, objects, service, streams
from ems_worker.adapters.jetstream.item import Item
from ems_worker.adapters.jetstream.publish import TTL, Publisher
from ems_worker.adapters.jetstream.pull import Pull
from ems_worker.core import trace
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message, StreamIdentity
from ems_worker.settings import Access

# Plans may have megabytes, and each is a long piece of work.
_PLAN_BATCH = 8
_EVENT_BATCH = 500
_WAIT_SECONDS = 1.0
_SHORTEST_DELAY_SECONDS = 0.05
_REASON_CHARACTERS = 2000
_DECISION_TTL = f"{30 * 24}h"
_ACK, _WORKING, _NAK = b"", b"+WPI", b"-NAK "


def _lifetime(subject: str) -> dict[str, str]:
    """Decisions are kept as long as plans; statuses, in the same stream, for ever."""
    return {TTL: _DECISION_TTL} if subject.startswith(f"{subjects.DECISION}.") else {}


def _nothing(*_: object) -> None:
    pass


class Broker:
    """NATS JetStream for the worker. `ensure()` comes before the first fetch."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._plans = Pull(link, consumers.PLANS, streams.PLAN_SUBJECTS, _PLAN_BATCH)
        self._events = Pull(link, consumers.EVENTS, streams.EVENT_SUBJECTS, _EVENT_BATCH)
        self._publisher = Publisher(link)
        self._identities: Mapping[str, StreamIdentity] = {}
        self._owner = ""

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
        """A connected broker for the time of the `async with`.

        Without a timeout (seconds) it waits for the server for ever; with one it raises BrokerUnavailable. Once
        connected it always comes back by itself; the callbacks tell of that.
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
            await link.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link.connected

    @property
    def inbox(self) -> str:
        """The subject below which this broker receives messages and answers; the same for all its connections."""
        return self._link.inbox

    @property
    def refused(self) -> str | None:
        """What the broker refuses now though there is a connection, with subjects and its words; None for nothing."""
        return self._link.refusals.words

    async def ensure(self, owner: str, *, create: bool = True) -> Mapping[str, StreamIdentity]:
        """Makes missing streams (unless `create` forbids it) and consumers, and gives the streams' identities.

        Keyed by the names of the contract, also where the run events are in a stream of another name. `owner` is the
        identity of the manifest that the consumers feed. Raises BrokerMisconfigured, with all that contradicts and the
        remedy; also where they feed another manifest.
        """
        self._owner = owner
        found = await streams.ensure(self._link, create=create)
        for pull, spec, stream in (
            (self._plans, consumers.PLANS_SPEC, found[streams.PLANS]),
            (self._events, consumers.EVENTS_SPEC, found[streams.EVENTS]),
        ):
            await consumers.ensure(self._link, stream.name, spec, owner)
            pull.bind(stream.name, stream.created_ns)
        await objects.ensure(self._link, create=create)
        self._identities = found
        return found

    async def streams(self) -> Mapping[str, StreamIdentity]:
        """Who the streams are now, keyed as by `ensure`; one that is gone is left out."""
        found = {}
        for key, known in self._identities.items():
            if (now := await streams.look(self._link, known.name)) is not None:
                found[key] = now
        return found

    async def positions(self) -> tuple[int, int]:
        """The sequences up to which plans and events are acknowledged."""
        return await self._of_both(consumers.position)

    async def pending(self) -> tuple[int, int]:
        """How many plans and events were not delivered yet."""
        return await self._of_both(consumers.pending)

    async def _of_both(self, ask: Callable[[connection.Connection, str, str], Awaitable[int]]) -> tuple[int, int]:
        plans, events = (self._identities[key].name for key in (streams.PLANS, streams.EVENTS))
        return await ask(self._link, plans, consumers.PLANS), await ask(self._link, events, consumers.EVENTS)

    async def rewind(self, plans: int, events: int) -> None:
        """Has everything delivered once more that came after these sequences."""
        for pull, spec, key, seq in (
            (self._plans, consumers.PLANS_SPEC, streams.PLANS, plans),
            (self._events, consumers.EVENTS_SPEC, streams.EVENTS, events),
        ):
            identity = self._identities[key]
            await consumers.rewind(self._link, identity.name, spec, self._owner, seq)
            pull.bind(identity.name, identity.created_ns)

    async def published_revision(self, subject: str) -> int | None:
        """The `revision` of the message that a status subject has now."""
        return await self._publisher.stored_revision(subject)

    async def has_decision(self, seq: int) -> bool:
        """Whether a decision about the plan of this sequence is stored."""
        return await self._publisher.has_decision(seq)

    async def plans(self) -> Sequence[Message]:
        """Plan messages: a few, or none after a second, or while there is no connection."""
        return await self._plans.fetch(_WAIT_SECONDS)

    async def events(self, seconds: float = _WAIT_SECONDS) -> Sequence[Message]:
        """Run events: up to 500, or none after so many seconds, or while there is no connection."""
        return await self._events.fetch(seconds)

    async def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledges. Never raises: what gets lost on the way is redelivered."""
        await self._settle(messages, _ACK)

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        """Asks for redelivery after the delay; at once would be thousands of times a second."""
        delay_ns = round(max(delay_seconds, _SHORTEST_DELAY_SECONDS) * 1e9)
        await self._settle(messages, _NAK + orjson.dumps({"delay": delay_ns}))

    async def working(self, messages: Sequence[Message]) -> None:
        """Starts the time until their redelivery anew."""
        await self._settle(messages, _WORKING)

    async def dead_letter(self, message: Message, reason: str, kind: str) -> None:
        """Stores it on ems.dlq.{kind} ("plan" or "event") with headers saying why and from where, then acks it.

        Raises BrokerUnavailable or BrokerMisconfigured when it can't be stored; it isn't acknowledged then.
        """
        headers = {
            "Nats-Msg-Id": f"{message.stream}-{message.stream_created_ns}-{message.seq}",
            subjects.REASON_HEADER: reason[:_REASON_CHARACTERS],
            subjects.STREAM_HEADER: message.stream,
            subjects.SEQUENCE_HEADER: str(message.seq),
            subjects.SUBJECT_HEADER: message.subject,
            subjects.DELIVERED_HEADER: str(message.delivered),
            subjects.SHA256_HEADER: hashlib.sha256(message.data).hexdigest(),
            subjects.BYTES_HEADER: str(len(message.data)),
        }
        subject = f"{subjects.DEAD_LETTERS}.{kind}"
        # Its original stays in its stream; the headers say where, and how it is recognised.
        reference = Item(subject, b"", {**headers, subjects.BY_REFERENCE_HEADER: "true"})
        await self._publisher.store([Item(subject, message.data, headers, instead=reference)])
        await self.ack([message])

    async def publish(self, items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
        """Stores (subject, document, message id) each, pipelined; returns when all are acknowledged.

        A document that the server would not take whole goes out shortened (core.fitting). `traceparent` is their trace
        context. Raises BrokerUnavailable after about 20 s without progress,
        BrokerMisconfigured where the server can't take one.
        """
        more = {} if traceparent is None else {trace.HEADER: traceparent}
        await self._publisher.store(
            [
                Item(subject, data, {"Nats-Msg-Id": id_, **more, **_lifetime(subject)}, document=True)
                for subject, data, id_ in items
            ]
        )

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        """The one message of its subject; False if another with this or a higher `revision` in its JSON is there.

        Shortened as by `publish`.
        """
        return await self._publisher.store_latest(subject, data, revision)

    async def reply(self, subject: str, data: bytes) -> None:
        """Plain publish of a document to an inbox that `service.replies` allows; lost where there is no connection."""
        with contextlib.suppress(errors.BrokerUnavailable, *connection.FOREIGN):
            client = self._link.client
            if (letter := Item(subject, data, {}, document=True).within(client.max_payload)) is not None:
                await client.publish(subject, letter.data)

    async def plan_object(self, name: str, most_bytes: int) -> bytes:
        """A plan that is in the object store.

        Raises NotFound, RequestRefused for what can't be used, BrokerUnavailable.
        """
        return await objects.read(self._link, name, most_bytes)

    async def serve(self, endpoints: Mapping[str, service.Answering], *, version: str, allows: service.Allows) -> None:
        """Serves `ems.api.{verb}` from now until the end; returns when requests reach it.

        A handler gets the request's bytes and gives the reply's; our errors become the reply's error code and words.
        A request whose reply subject `allows` refuses is neither carried out nor answered.
        """
        await self._link.listen(service.Service(self._link, endpoints, version, allows))

    async def _settle(self, messages: Sequence[Message], word: bytes) -> None:
        with contextlib.suppress(errors.BrokerUnavailable, *connection.FOREIGN):
            client = self._link.client
            for message in messages:
                await client.publish(message.token, word)
