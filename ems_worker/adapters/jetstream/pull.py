"""Fetching from a durable pull consumer: cheap while idle, in batches under load, and able to recover from any loss.

nats-py's own fetch creates a task and a timer for each message, and can stall. Here a single inbox subscription
receives everything. While there is nothing to do, a standing request for one message waits at the server. Its answer
says how many more messages there are, and `fetch` requests those at once. So the buffer holds at most the one message
of the standing request between two fetches: messages that wait in a client for long would be redelivered.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from nats.aio.subscription import Subscription

from ems_worker import errors, nats_access
from ems_worker.adapters.jetstream import connection, consumers, metadata, streams
from ems_worker.adapters.jetstream.metadata import Metadata
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message

_NS = 1_000_000_000
# How long a standing request lives at the server, which confirms it with a heartbeat every few seconds.
_STANDING_SECONDS = 60
_HEARTBEAT_SECONDS = 5
_SILENCE_SECONDS = 2.0 * _HEARTBEAT_SECONDS + 2.0
_REST_SECONDS = 2.0
_PAUSE_SECONDS = 0.1
_HEARTBEAT = "100"
_MAX_SUBJECT_CHARACTERS = 100
_KNOWN_SUBJECTS = 100
_EXPIRED = frozenset({"404", "408"})
_NAK = b"-NAK"


class _Received(NamedTuple):
    """A message as it was received, and what its reply subject says."""

    subject: str
    reply: bytes
    data: bytes
    headers: bytes
    delivery: Metadata


class Pull:
    """The messages of one consumer. Call `bind` before the first fetch."""

    def __init__(
        self,
        link: connection.Connection,
        consumer: str,
        subjects: Sequence[str],
        batch: int,
        *,
        with_headers: bool = True,
    ) -> None:
        """`subjects` are those that the consumer's messages may have, with wildcards.

        `with_headers`: the headers of messages are read, which takes as long as all the rest.
        """
        self._with_headers = with_headers
        self._link = link
        self._consumer = consumer
        self._consumer_token = consumer.encode()
        self._subjects = tuple(subjects)
        self._batch = batch
        self._stream = ""
        self._stream_token = b""
        self._created_ns = 0
        # Subjects that messages of the consumer have had.
        self._known: dict[bytes, str] = {}
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._requests = 0
        self._buffer: deque[_Received] = deque()
        self._forgery_reported = False
        self._wakeup = asyncio.Event()
        self._fetch_lock = asyncio.Lock()
        # How long the standing request may stay silent; None without a standing request.
        self._standing_until: float | None = None
        # How many messages the server had for us beyond the last one that it sent.
        self._pending = 0
        # How many messages of the request for the rest are still to come.
        self._expected = 0
        # Whether the stream or the consumer may have been deleted meanwhile.
        self._unverified = True

    @property
    def _next(self) -> str:
        """The subject for requests to JetStream for the next messages."""
        return f"{subjects.JETSTREAM_API}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"

    def bind(self, stream: str, created_ns: int) -> None:
        """Sets the stream that the consumer reads. Its creation time tells it from a later stream of the same name."""
        self._stream, self._created_ns = stream, created_ns
        self._stream_token = stream.encode()
        self._unverified = False

    async def connected(self, client: nats_access.Client) -> None:
        """Part of `connection.Listener`."""
        inbox = client.new_inbox()
        self._subscription = await client.subscribe_raw(f"{inbox}.*", self._receive)
        self._inbox = inbox

    def lost(self) -> None:
        """Part of `connection.Listener`. The buffer stays: its messages can be acknowledged on any connection."""
        self._standing_until = None
        self._pending = self._expected = 0
        self._unverified = True
        self._wakeup.set()

    async def fetch(self, seconds: float) -> list[Message]:
        """Waits up to `seconds` for messages, and returns those that have come, up to the batch size.

        Returns no messages while there is no connection. Raises BrokerMisconfigured if the stream or the consumer was
        deleted, or the stream was recreated.
        """
        async with self._fetch_lock:
            deadline = _now() + seconds
            if not self._buffer and self._pending == 0:
                await self._wait_for_first(deadline)
            if self._pending > 0 and len(self._buffer) < self._batch:
                await self._fetch_rest()
            taken = [self._buffer.popleft() for _ in range(min(len(self._buffer), self._batch))]
            return [self._message(received) for received in taken]

    async def release(self) -> None:
        """Returns the messages that were delivered and not fetched, so that the server redelivers them at once."""
        with contextlib.suppress(errors.BrokerUnavailable, *connection.FOREIGN):
            if self._subscription is not None:
                # This also ends the standing request, which would get the returned messages.
                await self._subscription.unsubscribe()
            returned = [(received.reply, b"", b"", _NAK) for received in self._buffer]
            self._buffer.clear()
            await self._link.client.publish_raw(returned)

    async def _wait_for_first(self, deadline: float) -> None:
        requests = 0
        while not self._buffer and _now() < deadline:
            if not await self._link.until_connected(deadline - _now()):
                return
            self._wakeup.clear()
            if self._standing_until is not None and _now() > self._standing_until:
                self._standing_until = None
                self._unverified = True
                self._link.refusals.record_silence(self._next, f"no answer within {_SILENCE_SECONDS:g} s")
            if self._unverified and not await self._verify():
                await asyncio.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - _now())))
                continue
            if self._standing_until is None:
                if requests > 0:
                    # If the server refuses every request, repeating them without a pause would spin.
                    await asyncio.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - _now())))
                requests += 1
                self._standing_until = _now() + _SILENCE_SECONDS
                await self._request("s", {"batch": 1, "expires": _STANDING_SECONDS * _NS}, heartbeat=True)
            await self._wait(min(deadline, self._standing_until or deadline))

    async def _fetch_rest(self) -> None:
        """Requests the messages that the server reported beyond the first one, and waits for them."""
        deadline = _now() + _REST_SECONDS
        self._expected = min(self._pending, self._batch - len(self._buffer))
        await self._request("r", {"batch": self._expected, "no_wait": True}, heartbeat=False)
        while self._expected > 0 and _now() < deadline:
            self._wakeup.clear()
            await self._wait(deadline)
        if self._expected > 0:
            self._pending = self._expected = 0
            self._unverified = True

    async def _request(self, kind: str, request: dict[str, object], *, heartbeat: bool) -> None:
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
                await self._wakeup.wait()

    def _receive(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if reply:
            delivery = metadata.read(reply)
            known = self._known.get(subject) or self._subject(subject)
            if delivery is None or known is None or not self._is_ours(delivery):
                self._report_forgery(nats_access.readable(subject))
                return
            self._buffer.append(_Received(known, reply, data, headers, delivery))
            self._link.refusals.resolve(self._next)
            self._pending = delivery.pending
            if self._expected > 0:
                self._expected -= 1
            else:
                self._standing_until = None
            if self._expected == 0:
                self._wakeup.set()
            return
        subject_text = nats_access.readable(subject)
        status, description = nats_access.status(headers)
        standing = subject_text.rpartition(".")[2] == f"s{self._requests}"
        if status == _HEARTBEAT:
            self._link.refusals.resolve(self._next)
            if standing and self._standing_until is not None:
                self._standing_until = _now() + _SILENCE_SECONDS
            return
        if subject_text.rpartition(".")[2][1:] != str(self._requests):
            return  # the answer to a request that we gave up
        if status not in _EXPIRED:
            # Consumer deleted, no responders, leadership changed, too many requests: verify before the next request.
            self._unverified = True
            self._link.refusals.record(self._next, f"{description} ({status})")
        self._standing_until = None
        self._pending = self._expected = 0
        self._wakeup.set()

    def _is_ours(self, delivery: Metadata) -> bool:
        """Whether our consumer delivered this message from our stream.

        A client that may publish to our inbox can forge the reply subject, to which we would publish as an
        acknowledgement. It can't forge the message's subject, which is then the inbox: see `_subject`.
        """
        return delivery.stream == self._stream_token and delivery.consumer == self._consumer_token

    def _subject(self, subject: bytes) -> str | None:
        """The subject as text; None if no message of our stream has it."""
        text = nats_access.readable(subject)
        if not any(streams.covers(pattern, text) for pattern in self._subjects):
            return None
        if len(self._known) < _KNOWN_SUBJECTS:
            self._known[subject] = text
        return text

    def _report_forgery(self, subject: str) -> None:
        if not self._forgery_reported:
            self._forgery_reported = True
            self._link.on_error(
                errors.Unreadable(
                    f"ignored a message on {subject[:_MAX_SUBJECT_CHARACTERS]} that didn't come from consumer "
                    f"{self._consumer}, as any more like it: another client publishes to the worker's inbox. Remedy: "
                    "give the worker an inbox prefix of its own (EMS_NATS_INBOX_PREFIX) that no other client may use"
                )
            )

    async def _verify(self) -> bool:
        """Whether the stream and the consumer are still the ones that we bound to; False if no answer comes.

        Raises BrokerMisconfigured if one of them was deleted or recreated.
        """
        try:
            stream = await streams.look(self._link, self._stream)
            if stream is None:
                raise errors.BrokerMisconfigured(
                    f"stream {self._stream} was deleted. Remedy: restore it, or start the worker again: it creates it"
                )
            if stream.created_ns != self._created_ns:
                raise errors.BrokerMisconfigured(
                    f"stream {self._stream} was deleted and recreated: messages may be missing. Remedy: restore the "
                    "old one, or start the worker again, which continues with the new one"
                )
            if not await consumers.exists(self._link, self._stream, self._consumer):
                raise errors.BrokerMisconfigured(
                    f"consumer {self._consumer} of stream {self._stream} was deleted. Remedy: start the worker again, "
                    "which creates it"
                )
        except errors.BrokerUnavailable:
            return False
        self._unverified = False
        return True

    def _message(self, received: _Received) -> Message:
        delivery = received.delivery
        return Message(
            stream=self._stream,
            stream_created_ns=self._created_ns,
            seq=delivery.seq,
            subject=received.subject,
            data=received.data,
            headers=nats_access.headers(received.headers) if self._with_headers else {},
            delivered=delivery.delivered,
            published_ms=delivery.published_ns // 1_000_000,
            token=received.reply,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
