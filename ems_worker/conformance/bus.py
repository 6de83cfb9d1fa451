"""The event bus as the kit sees it: what the stream stores, and every publish, repeated ones included."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg, RetentionPolicy, StorageType, StreamConfig

from ems_worker import errors
from ems_worker.conformance import messages, subjects

STREAM = subjects.EVENTS_STREAM
_MAX_AGE_SECONDS = 30 * 24 * 3600
_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 2.0
_MESSAGE_ID = "Nats-Msg-Id"
# JetStream's error codes: the orchestrator created the stream first, or a stream of another name has its subjects.
_STREAM_EXISTS = (10058, 10065)
# The broker is away or too busy: a later request may succeed.
_AWAY = (nats.errors.Error, nats.js.errors.APIError, OSError, TimeoutError)


class Bus:
    """The run events that name this experiment: every stored event, and every publish, repeated ones included."""

    def __init__(self, client: Client, experiment_id: str) -> None:
        self._client = client
        self._mark = experiment_id.encode()
        self._stream = ""
        self._first = self._next = 1
        self._reread = False
        self._open = True
        self._arrived = asyncio.Event()
        self._arrived_at = 0.0
        # How often the connection to the broker was lost.
        self.losses = 0
        self.stored: list[messages.Event] = []
        self.published: list[messages.Event] = []

    @property
    def connected(self) -> bool:
        """Whether the broker is connected, as far as the client knows."""
        return self._client.is_connected

    def events_of(self, simulation_id: str) -> list[messages.Event]:
        """The stored events of a run."""
        return [event for event in self.stored if event.simulation_id == simulation_id]

    async def until(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Waits until the condition holds, checking it at every event; whether it holds within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() >= deadline:
                return False
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._arrived.wait()
        return True

    async def quiet(self, seconds: float, timeout: float) -> None:
        """Returns once no event has come for `seconds`, or after `timeout` seconds."""
        await self.until(lambda: time.monotonic() - self._arrived_at >= seconds, timeout)

    async def disconnected(self) -> None:
        """The connection is lost, perhaps only for a moment."""
        self.losses += 1
        self._arrived.set()

    async def reconnected(self) -> None:
        """Reads the stream again: a broker that crashed may have lost its end, and reused the sequences."""
        self._reread = True

    async def begin(self) -> None:
        """Subscribes to every publish, and remembers the end of the stream. Raises what nats-py raises."""
        self._stream, last = await _stream(self._client)
        self._first = self._next = last + 1
        for kind in messages.KINDS:
            for subject in (kind, f"{kind}.>"):
                await self._client.subscribe(subject, cb=self._receive)
        # nats-py writes the ping of a flush at once, ahead of what is in its buffer: only the second surely follows.
        await self._client.flush()
        await self._client.flush()

    async def follow(self) -> None:
        """Reads new messages of the stream until `close`."""
        while self._open:
            with contextlib.suppress(*_AWAY):
                await self._read_new()
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Ends `follow`. Cancelling it isn't reliable: a request that is answered at that moment swallows it."""
        self._open = False

    async def _receive(self, message: Msg) -> None:
        headers = message.headers or {}
        self._keep(self.published, messages.Message(message.subject, headers.get(_MESSAGE_ID, ""), message.data))

    async def _read_new(self) -> None:
        if self._reread:
            self._reread, self._next = False, self._first
        stream = self._client.jetstream(timeout=_ANSWER_SECONDS)
        last = (await stream.stream_info(self._stream)).state.last_seq
        while self._open and self._next <= last:
            with contextlib.suppress(nats.js.errors.NotFoundError):  # deleted, or expired
                self._take(await stream.get_msg(self._stream, self._next))
            self._next += 1

    def _take(self, raw: RawStreamMsg) -> None:
        headers = raw.headers or {}
        message = messages.Message(raw.subject or "", headers.get(_MESSAGE_ID, ""), raw.data or b"")
        if all(event.message != message for event in self.stored):
            self._keep(self.stored, message)

    def _keep(self, events: list[messages.Event], message: messages.Message) -> None:
        # Other systems, and other sessions of this kit, share the bus.
        if self._mark in message.data:
            events.append(messages.read(message, time.time()))
            self._arrived.set()
            self._arrived_at = time.monotonic()


@contextlib.asynccontextmanager
async def connect(server: str, experiment_id: str, timeout: float) -> AsyncIterator[Bus]:
    """A bus that is followed. Raises BrokerUnavailable if the server, or its JetStream, doesn't answer."""
    client = Client()
    bus = Bus(client, experiment_id)
    try:
        connecting = client.connect(
            server,
            name="ems-conformance",
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type] # nats-py only sleeps for it, so a fraction works
            connect_timeout=2,
            ping_interval=10,
            error_cb=_ignore_error,
            disconnected_cb=bus.disconnected,
            reconnected_cb=bus.reconnected,
        )
        await _within(timeout, connecting)
    except _AWAY as failed:
        raise errors.BrokerUnavailable(f"the NATS server {server} can't be reached within {timeout:g} s") from failed
    try:
        try:
            await bus.begin()
        except _AWAY as failed:
            raise errors.BrokerUnavailable(f"JetStream on {server} can't be used: {failed}") from failed
        following = asyncio.create_task(bus.follow())
        try:
            yield bus
        finally:
            bus.close()
            await following
    finally:
        # nats-py waits without end for a TLS connection whose end isn't confirmed.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await client.close()


async def _stream(client: Client) -> tuple[str, int]:
    """The stream that holds the events, and its last sequence. A missing stream is created as the worker creates it."""
    stream = client.jetstream(timeout=_ANSWER_SECONDS)
    try:
        name = await stream.find_stream_name_by_subject(messages.COMPLETED)
    except nats.js.errors.NotFoundError:
        kinds = messages.KINDS
        config = StreamConfig(
            name=STREAM,
            subjects=[*kinds, *(f"{kind}.>" for kind in kinds)],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            max_age=_MAX_AGE_SECONDS,
        )
        try:
            await stream.add_stream(config)
            name = STREAM
        except nats.js.errors.APIError as error:
            if error.err_code not in _STREAM_EXISTS:
                raise
            name = await stream.find_stream_name_by_subject(messages.COMPLETED)
    return name, (await stream.stream_info(name)).state.last_seq


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Raises TimeoutError if the work takes longer, even if it swallows a cancellation, as connecting may do."""
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        task.result()
        return
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_POLL_SECONDS)
    raise TimeoutError


async def _ignore_error(error: Exception) -> None:
    """Without this callback, nats-py prints a traceback for every lost connection; `connected` reports those."""
