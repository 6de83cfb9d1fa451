"""The bus as the kit hears it: what is stored in the stream, and every publish, the repeated ones too."""

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
# JetStream's error codes: the orchestrator made the stream first, or one of another name that holds its subjects.
_SOMEBODY_ELSES = (10058, 10065)
# The broker is away, or too busy; what is looked for is there later.
_AWAY = (nats.errors.Error, nats.js.errors.APIError, OSError, TimeoutError)


class Bus:
    """Run events that name this experiment: each that was stored, and every publish that was heard, repeats too."""

    def __init__(self, client: Client, experiment_id: str) -> None:
        self._client = client
        self._mark = experiment_id.encode()
        self._stream = ""
        self._first = self._next = 1
        self._again = False
        self._open = True
        self._told = asyncio.Event()
        self._told_at = 0.0
        self.stored: list[messages.Event] = []
        self.heard: list[messages.Event] = []

    @property
    def connected(self) -> bool:
        """Whether the broker is there now, as far as this connection knows."""
        return self._client.is_connected

    def of(self, simulation_id: str) -> list[messages.Event]:
        """The stored events of a run."""
        return [one for one in self.stored if one.simulation_id == simulation_id]

    async def until(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Waits until it holds, looking again at every event; whether it does within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() >= deadline:
                return False
            self._told.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._told.wait()
        return True

    async def quiet(self, seconds: float, timeout: float) -> None:
        """Returns once no event came for so long; or after `timeout` seconds."""
        await self.until(lambda: time.monotonic() - self._told_at >= seconds, timeout)

    async def reconnected(self) -> None:
        """Reads the stream again: a broker that crashed may have lost its end, and used the sequences once more."""
        self._again = True

    async def begin(self) -> None:
        """Subscribes to every publish, and remembers where the stream is. Raises what nats-py raises."""
        self._stream, last = await _stream(self._client)
        self._first = self._next = last + 1
        for kind in messages.KINDS:
            for subject in (kind, f"{kind}.>"):
                await self._client.subscribe(subject, cb=self._hear)
        await self._client.flush()

    async def follow(self) -> None:
        """Reads what the stream gets, until `close`."""
        while self._open:
            with contextlib.suppress(*_AWAY):
                await self._read_new()
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Ends `follow`. Cancelling it would not: a request that is answered at that moment swallows that."""
        self._open = False

    async def _hear(self, message: Msg) -> None:
        headers = message.headers or {}
        self._keep(self.heard, messages.Message(message.subject, headers.get(_MESSAGE_ID, ""), message.data))

    async def _read_new(self) -> None:
        if self._again:
            self._again, self._next = False, self._first
        stream = self._client.jetstream(timeout=_ANSWER_SECONDS)
        last = (await stream.stream_info(self._stream)).state.last_seq
        while self._open and self._next <= last:
            with contextlib.suppress(nats.js.errors.NotFoundError):  # deleted, or expired
                self._take(await stream.get_msg(self._stream, self._next))
            self._next += 1

    def _take(self, raw: RawStreamMsg) -> None:
        headers = raw.headers or {}
        message = messages.Message(raw.subject or "", headers.get(_MESSAGE_ID, ""), raw.data or b"")
        if all(one.message != message for one in self.stored):
            self._keep(self.stored, message)

    def _keep(self, to: list[messages.Event], message: messages.Message) -> None:
        # Other systems, and other runs of this kit, share the bus.
        if self._mark in message.data:
            to.append(messages.read(message, time.time()))
            self._told.set()
            self._told_at = time.monotonic()


@contextlib.asynccontextmanager
async def connect(server: str, experiment_id: str, timeout: float) -> AsyncIterator[Bus]:
    """A bus that is listened to. Raises BrokerUnavailable where the server, or its JetStream, doesn't answer."""
    client = Client()
    bus = Bus(client, experiment_id)
    try:
        connecting = client.connect(
            server,
            name="ems-conformance",
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type] # it is only slept: fractions are as good
            connect_timeout=2,
            ping_interval=10,
            error_cb=_no_news,
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
        await client.close()


async def _stream(client: Client) -> tuple[str, int]:
    """The stream that holds the events, made as the worker makes it where there is none; its last sequence."""
    stream = client.jetstream(timeout=_ANSWER_SECONDS)
    try:
        name = await stream.find_stream_name_by_subject(messages.COMPLETED)
    except nats.js.errors.NotFoundError:
        kinds = (*messages.KINDS, subjects.RUN_METRICS)
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
        except nats.js.errors.APIError as refused:
            if refused.err_code not in _SOMEBODY_ELSES:
                raise
            name = await stream.find_stream_name_by_subject(messages.COMPLETED)
    return name, (await stream.stream_info(name)).state.last_seq


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Raises TimeoutError where it takes longer; also where the work swallows a cancellation, as connecting may."""
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        task.result()
        return
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_POLL_SECONDS)
    raise TimeoutError


async def _no_news(error: Exception) -> None:
    """nats-py prints a traceback at every lost connection otherwise; `connected` tells."""
