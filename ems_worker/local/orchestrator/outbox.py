"""Publishes the stored events to JetStream and deletes each of them once the broker has acknowledged it."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterable

import nats.aio.client
import nats.errors
import nats.js.api
import nats.js.errors
import structlog

from ems_worker import nats_access, settings
from ems_worker.core.documents import subjects
from ems_worker.local.orchestrator import model
from ems_worker.local.orchestrator.store import Store

STREAM = subjects.EVENTS_STREAM
_SUBJECTS = subjects.RUN_EVENTS
_MAX_AGE_SECONDS = 30 * 24 * 3600
_BATCH = 512
_MAX_IN_FLIGHT = 64
_ACK_SECONDS = 2.0
_RETRY_SECONDS = 0.5
_CONNECT_SECONDS = 2
# Error codes of JetStream: another client created the stream first, or a stream with another name has its subjects.
_ALREADY_EXISTS = (10058, 10065)
# ValueError: the reply came from a plain subscriber instead of JetStream.
_UNANSWERED = (nats.errors.Error, OSError, TimeoutError, ValueError)

log = structlog.get_logger()


def stream_config() -> nats.js.api.StreamConfig:
    """SIM_EVENTS as the contract prescribes it. A worker that starts first creates the same stream."""
    return nats.js.api.StreamConfig(
        name=STREAM,
        subjects=[*_SUBJECTS, *(f"{subject}.>" for subject in _SUBJECTS)],
        storage=nats.js.api.StorageType.FILE,
        retention=nats.js.api.RetentionPolicy.LIMITS,
        max_age=_MAX_AGE_SECONDS,
    )


class Outbox:
    """Publishes stored events, in order for each run, until the broker has acknowledged all of them."""

    def __init__(self, store: Store, access: settings.Access) -> None:
        self._store = store
        self._access = access
        self._reachable = True
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._client: nats.aio.client.Client | None = None

    async def publish_once(self, event: model.Event) -> None:
        """Publishes an event that may get lost, unless the broker is away."""
        if self._client is not None and self._client.is_connected:
            headers = {nats.js.api.Header.MSG_ID.value: event.message_id}
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(event.subject, event.body, headers=headers)

    def wake(self) -> None:
        """Reports that there may be events to publish."""
        self._empty.clear()
        self._news.set()

    async def emptied(self) -> None:
        """Waits until all stored events are published."""
        await self._empty.wait()

    async def run(self) -> None:
        """Publishes until cancelled. While the broker is unreachable it waits."""
        client = nats_access.client(self._access)
        await client.connect(
            **nats_access.options(self._access),
            name="ems-local-orchestrator",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; declared int, used as float
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=10,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_connect,
        )
        try:
            stream = client.jetstream(timeout=_ACK_SECONDS)
            await self._on_connect()
            await self._ensure_stream(stream)
            self._client = client
            self._news.set()
            while True:
                await self._news.wait()
                self._news.clear()
                await self._publish_all(stream)
        finally:
            self._client = None
            self._reachable = False  # so that the disconnection is not logged
            await client.close()

    async def _on_error(self, error: Exception) -> None:
        if self._reachable:
            log.warning("broker.unreachable", server=self._access.where, error=repr(error))
        self._reachable = False

    async def _on_disconnect(self) -> None:
        await self._on_error(ConnectionError("the connection ended"))

    async def _on_connect(self) -> None:
        log.info("broker.connected", server=self._access.where)
        self._reachable = True

    async def _publish_all(self, stream: nats.js.JetStreamContext) -> None:
        while events := await self._store.unpublished(_BATCH):
            window = asyncio.Semaphore(_MAX_IN_FLIGHT)
            by_run = itertools.groupby(
                sorted(events, key=_run_and_number), key=lambda stored: stored.event.simulation_id
            )
            sent = await asyncio.gather(*(self._publish_run(stream, window, list(group)) for _, group in by_run))
            numbers = [number for numbers in sent for number in numbers]
            await self._store.published(numbers)
            if len(numbers) < len(events):
                await self._ensure_stream(stream)
                await asyncio.sleep(_RETRY_SECONDS)
        self._empty.set()

    async def _publish_run(
        self, stream: nats.js.JetStreamContext, window: asyncio.Semaphore, events: Iterable[model.StoredEvent]
    ) -> list[int]:
        """Publishes the events of a run in order, up to the first that isn't acknowledged; returns their numbers."""
        acknowledged: list[int] = []
        async with window:
            for stored in events:
                headers = {nats.js.api.Header.MSG_ID.value: stored.event.message_id}
                try:
                    await stream.publish(stored.event.subject, stored.event.body, timeout=_ACK_SECONDS, headers=headers)
                except _UNANSWERED as failed:
                    log.info("event.unacknowledged", message_id=stored.event.message_id, error=repr(failed))
                    break
                acknowledged.append(stored.number)
        return acknowledged

    async def _ensure_stream(self, stream: nats.js.JetStreamContext) -> None:
        """Creates the stream if no stream has its subjects: at the first start, or after the broker lost its data."""
        try:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await stream.find_stream_name_by_subject(_SUBJECTS[0])
                return
            await stream.add_stream(stream_config())
            log.info("stream.created", stream=STREAM)
        except nats.js.errors.APIError as refused:
            if refused.err_code not in _ALREADY_EXISTS:
                log.warning("stream.refused", stream=STREAM, error=str(refused))
        except _UNANSWERED as failed:
            log.debug("stream.unanswered", stream=STREAM, error=repr(failed))


def _run_and_number(stored: model.StoredEvent) -> tuple[str, int]:
    return stored.event.simulation_id, stored.number
