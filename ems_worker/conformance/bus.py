"""The bus as the kit hears it: what is stored in the stream, and every publish, the repeated ones too."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg, RetentionPolicy, StorageType, StreamConfig

from ems_worker import errors
from ems_worker.conformance import messages

STREAM = "SIM_EVENTS"
_MAX_AGE_SECONDS = 30 * 24 * 3600
_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 2.0
_MESSAGE_ID = "Nats-Msg-Id"
# The broker is away, or too busy; what is looked for is there later.
_AWAY = (nats.errors.Error, nats.js.errors.APIError, OSError, TimeoutError)


class Bus:
    """Run events that name this experiment. `stored` is the stream's order; `heard` has repeated publishes too."""

    def __init__(self, client: Client, stream: str, first: int, experiment_id: str) -> None:
        self._client = client
        self._stream = stream
        self._next = first
        self._mark = experiment_id.encode()
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

    async def follow(self) -> None:
        """Reads what the stream gets, for ever."""
        while True:
            with contextlib.suppress(*_AWAY):
                await self._read_new()
            await asyncio.sleep(_POLL_SECONDS)

    async def listen(self) -> None:
        """Subscribes to every publish."""
        for kind in messages.KINDS:
            for subject in (kind, f"{kind}.>"):
                await self._client.subscribe(subject, cb=self._hear)

    async def _hear(self, message: Msg) -> None:
        headers = message.headers or {}
        self._keep(self.heard, messages.Message(message.subject, headers.get(_MESSAGE_ID, ""), message.data))

    async def _read_new(self) -> None:
        stream = self._client.jetstream(timeout=_ANSWER_SECONDS)
        last = (await stream.stream_info(self._stream)).state.last_seq
        while self._next <= last:
            with contextlib.suppress(nats.js.errors.NotFoundError):  # deleted, or expired
                self._take(await stream.get_msg(self._stream, self._next))
            self._next += 1

    def _take(self, raw: RawStreamMsg) -> None:
        headers = raw.headers or {}
        self._keep(self.stored, messages.Message(raw.subject or "", headers.get(_MESSAGE_ID, ""), raw.data or b""))

    def _keep(self, to: list[messages.Event], message: messages.Message) -> None:
        # Other systems, and other runs of this kit, share the bus.
        if self._mark in message.data:
            to.append(messages.read(message, time.time()))
            self._told.set()
            self._told_at = time.monotonic()


@contextlib.asynccontextmanager
async def connect(server: str, experiment_id: str, timeout: float) -> AsyncIterator[Bus]:
    """A bus that is listened to. Raises BrokerUnavailable where the server, or its JetStream, doesn't answer."""
    unreachable = f"the NATS server {server} can't be reached"
    try:
        async with asyncio.timeout(timeout):
            client = await nats.connect(
                server,
                name="ems-conformance",
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,
                connect_timeout=2,
                ping_interval=10,
                error_cb=_no_news,
            )
    except _AWAY as failed:
        raise errors.BrokerUnavailable(f"{unreachable} within {timeout:g} s") from failed
    try:
        try:
            stream, first = await _stream(client)
            bus = Bus(client, stream, first, experiment_id)
            await bus.listen()
            await client.flush()
        except _AWAY as failed:
            raise errors.BrokerUnavailable(f"JetStream on {server} can't be used: {failed}") from failed
        following = asyncio.create_task(bus.follow())
        try:
            yield bus
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await client.close()


async def _stream(client: Client) -> tuple[str, int]:
    """The stream that holds the events, made as the worker makes it where there is none; its next sequence."""
    stream = client.jetstream(timeout=_ANSWER_SECONDS)
    try:
        name = await stream.find_stream_name_by_subject(messages.COMPLETED)
    except nats.js.errors.NotFoundError:
        kinds = (*messages.KINDS, "sim.run_metrics")
        config = StreamConfig(
            name=STREAM,
            subjects=[*kinds, *(f"{kind}.>" for kind in kinds)],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            max_age=_MAX_AGE_SECONDS,
        )
        name = (await stream.add_stream(config)).config.name or STREAM
    return name, (await stream.stream_info(name)).state.last_seq + 1


async def _no_news(error: Exception) -> None:
    """nats-py prints a traceback at every lost connection otherwise; `connected` tells."""
