"""Fetching from a durable pull consumer: idle cheaply, take batches under load, recover after every kind of loss.

nats-py's own fetch makes a task and a timer per message, and can stall. Here one inbox subscription gets everything.
A standing request for a single message waits at the server while there is nothing to do; its answer says how many
more are there, and these are asked for at once. So nothing is delivered that wasn't asked for by `fetch`, but for the
one message of the standing request: what waits in a client for long would be redelivered.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ems_worker import errors
from ems_worker.adapters.jetstream import connection, consumers, metadata, streams
from ems_worker.adapters.jetstream.metadata import Metadata
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message

_NS = 1_000_000_000
# A standing request lives that long at the server, which says every few seconds that it still has it.
_STANDING_SECONDS = 60
_HEARTBEAT_SECONDS = 5
_SILENCE_SECONDS = 2.0 * _HEARTBEAT_SECONDS + 2.0
_REST_SECONDS = 2.0
_PAUSE_SECONDS = 0.1
_HEARTBEAT = "100"
_SAID_CHARACTERS = 100
_EXPIRED = frozenset({"404", "408"})
_NAK = b"-NAK"


class Pull:
    """One consumer's messages. `bind` names the stream before the first fetch."""

    def __init__(self, link: connection.Connection, consumer: str, subjects: Sequence[str], batch: int) -> None:
        """`subjects`: what messages of the consumer may have as theirs, with wildcards."""
        self._link = link
        self._consumer = consumer
        self._subjects = tuple(subjects)
        self._batch = batch
        self._stream = ""
        self._created_ns = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._requests = 0
        self._buffer: deque[tuple[Msg, Metadata]] = deque()
        self._forgery_said = False
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        # Until when the standing request may be silent; None: there is none.
        self._standing_until: float | None = None
        # What the server had for us beyond the last message that it sent.
        self._pending = 0
        # How many messages the request for the rest has still to bring.
        self._owed = 0
        self._doubtful = True

    @property
    def _next(self) -> str:
        """The subject on which JetStream is asked for the next messages."""
        return f"{subjects.JETSTREAM_API}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"

    def bind(self, stream: str, created_ns: int) -> None:
        """Which stream the consumer reads, and when that was created: another one of its name won't do."""
        self._stream, self._created_ns = stream, created_ns
        self._doubtful = False

    async def connected(self, client: Client) -> None:
        """Part of `connection.Listener`."""
        inbox = client.new_inbox()
        self._subscription = await client.subscribe(f"{inbox}.*", cb=self._receive)
        self._inbox = inbox

    def lost(self) -> None:
        """Part of `connection.Listener`. Messages in the buffer stay: they can be acknowledged on any connection."""
        self._standing_until = None
        self._pending = self._owed = 0
        self._doubtful = True
        self._news.set()

    async def fetch(self, seconds: float) -> list[Message]:
        """Waits for messages, `seconds` at most, and gives what is there, up to the batch.

        Empty while there is no connection. Raises BrokerMisconfigured when stream or consumer were deleted, or the
        stream was created anew.
        """
        async with self._one_at_a_time:
            deadline = _now() + seconds
            if not self._buffer and self._pending == 0:
                await self._first(deadline)
            if self._pending > 0 and len(self._buffer) < self._batch:
                await self._rest()
            taken = [self._buffer.popleft() for _ in range(min(len(self._buffer), self._batch))]
            return [self._message(*one) for one in taken]

    async def release(self) -> None:
        """Gives back what was delivered and not fetched, so that it needn't wait for its redelivery."""
        with contextlib.suppress(errors.BrokerUnavailable, *connection.FOREIGN):
            if self._subscription is not None:
                # Ends the standing request too, which would get at once what is given back.
                await self._subscription.unsubscribe()
            while self._buffer:
                await self._link.client.publish(self._buffer.popleft()[0].reply, _NAK)

    async def _first(self, deadline: float) -> None:
        refusals = 0
        while not self._buffer and _now() < deadline:
            if not await self._link.until_connected(deadline - _now()):
                return
            self._news.clear()
            if self._standing_until is not None and _now() > self._standing_until:
                self._standing_until = None
                self._doubtful = True
                self._link.refusals.note_silence(self._next, f"no answer within {_SILENCE_SECONDS:g} s")
            if self._doubtful and not await self._certain():
                await asyncio.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - _now())))
                continue
            if self._standing_until is None:
                if refusals > 0:
                    # Where every request is refused, asking again at once would spin.
                    await asyncio.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - _now())))
                refusals += 1
                self._standing_until = _now() + _SILENCE_SECONDS
                await self._ask("s", {"batch": 1, "expires": _STANDING_SECONDS * _NS}, heartbeat=True)
            await self._wait(deadline)

    async def _rest(self) -> None:
        """Asks for what the server said it has beyond the first message, and waits for that."""
        deadline = _now() + _REST_SECONDS
        self._owed = min(self._pending, self._batch - len(self._buffer))
        await self._ask("r", {"batch": self._owed, "no_wait": True}, heartbeat=False)
        while self._owed > 0 and _now() < deadline:
            self._news.clear()
            await self._wait(deadline)
        if self._owed > 0:
            self._pending = self._owed = 0
            self._doubtful = True

    async def _ask(self, kind: str, request: dict[str, object], *, heartbeat: bool) -> None:
        self._requests += 1
        if heartbeat:
            request["idle_heartbeat"] = _HEARTBEAT_SECONDS * _NS
        try:
            reply = f"{self._inbox}.{kind}{self._requests}"
            await self._link.client.publish(self._next, orjson.dumps(request), reply=reply)
        except (errors.BrokerUnavailable, *connection.FOREIGN):
            self.lost()

    async def _wait(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._news.wait()

    async def _receive(self, msg: Msg) -> None:
        if msg.reply:
            found = metadata.read(msg.reply)
            if found is None or not self._is_ours(msg.subject, found):
                self._refuse(msg)
                return
            self._buffer.append((msg, found))
            self._link.refusals.over(self._next)
            self._pending = found.pending
            if self._owed > 0:
                self._owed -= 1
            else:
                self._standing_until = None
            if self._owed == 0:
                self._news.set()
            return
        headers = msg.headers or {}
        status = headers.get("Status", "")
        standing = msg.subject.rpartition(".")[2] == f"s{self._requests}"
        if status == _HEARTBEAT:
            self._link.refusals.over(self._next)
            if standing and self._standing_until is not None:
                self._standing_until = _now() + _SILENCE_SECONDS
            return
        if msg.subject.rpartition(".")[2][1:] != str(self._requests):
            return  # about a request that was given up
        if status not in _EXPIRED:
            # Consumer deleted, no responders, leadership changed, too many requests: worth a look before the next.
            self._doubtful = True
            self._link.refusals.note(self._next, f"{headers.get('Description', '')} ({status})")
        self._standing_until = None
        self._pending = self._owed = 0
        self._news.set()

    def _is_ours(self, subject: str, found: Metadata) -> bool:
        """Whether the server delivered this from our stream by our consumer.

        Anyone who may publish to our inbox can put a message there, and its reply subject would be published to as its
        acknowledgement. But its subject is that of the inbox then.
        """
        return (
            found.stream == self._stream
            and found.consumer == self._consumer
            and any(streams.covers(pattern, subject) for pattern in self._subjects)
        )

    def _refuse(self, msg: Msg) -> None:
        if not self._forgery_said:
            self._forgery_said = True
            self._link.on_error(
                errors.Unreadable(
                    f"a message on {msg.subject[:_SAID_CHARACTERS]} didn't come from consumer {self._consumer} and was "
                    "ignored, as others will be: somebody publishes to the worker's inbox. Remedy: give the worker an "
                    "inbox prefix of its own (EMS_NATS_INBOX_PREFIX) that nobody else may use"
                )
            )

    async def _certain(self) -> bool:
        """Whether stream and consumer are still those that we bound to: False where nobody answers.

        Raises BrokerMisconfigured where they aren't.
        """
        try:
            stream = await streams.look(self._link, self._stream)
            if stream is None:
                raise errors.BrokerMisconfigured(
                    f"stream {self._stream} was deleted. Remedy: restore it, or start the worker again: it creates it"
                )
            if stream.created_ns != self._created_ns:
                raise errors.BrokerMisconfigured(
                    f"stream {self._stream} was deleted and created anew: messages may be missing. Remedy: restore the "
                    "old one, or start the worker again, which goes on with the new one"
                )
            if not await consumers.exists(self._link, self._stream, self._consumer):
                raise errors.BrokerMisconfigured(
                    f"consumer {self._consumer} of stream {self._stream} was deleted. Remedy: start the worker again, "
                    "which creates it"
                )
        except errors.BrokerUnavailable:
            return False
        self._doubtful = False
        return True

    def _message(self, msg: Msg, found: Metadata) -> Message:
        return Message(
            stream=self._stream,
            stream_created_ns=self._created_ns,
            seq=found.seq,
            subject=msg.subject,
            data=msg.data,
            headers=msg.headers or {},
            delivered=found.delivered,
            published_ms=found.published_ns // 1_000_000,
            token=msg.reply,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
