"""Messages that may be killing the worker.

Each suspect is processed alone, after it is counted on disk, and becomes a dead letter after the worker died three
times with it. A high delivery count alone proves nothing: healthy messages that dying workers fetched have one too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ems_worker import errors
from ems_worker.core.wire import Message
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest

log = structlog.get_logger()

# A message is suspected from this delivery on.
SUSPECTED_DELIVERIES = 5
# How often the worker may die while it processes a suspect.
MAX_DEATHS = 3


class Guard:
    """Processes messages of one kind ("plan" or "event"): healthy ones together, suspects one by one."""

    def __init__(self, manifest: Manifest, broker: Broker, metrics: Metrics, kind: str) -> None:
        self._manifest = manifest
        self._broker = broker
        self._metrics = metrics
        self._kind = kind

    async def process(self, messages: Sequence[Message], work: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        """Calls `work` with the messages, but for suspects that have killed the worker too often: these aren't read."""
        healthy = [message for message in messages if message.delivered < SUSPECTED_DELIVERIES]
        if healthy:
            await work(healthy)
        for message in messages:
            if message.delivered >= SUSPECTED_DELIVERIES:
                await self._alone(message, work)

    async def _alone(self, message: Message, work: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        mark = f"suspect {message.stream}:{message.stream_created_ns}:{message.seq}"
        deaths = int(await self._manifest.remembered(mark) or 0)
        if deaths >= MAX_DEATHS:
            reason = f"the worker died {deaths} times while it processed this message"
            log.error("message.poison", subject=message.subject, seq=message.seq, deaths=deaths)
            await self._broker.dead_letter(message, reason, self._kind)
            self._metrics.dead_letters.labels(self._kind).inc()
        else:
            await self._manifest.remember(mark, str(deaths + 1))
            try:
                await work([message])
            except (asyncio.CancelledError, errors.BrokerUnavailable, errors.BrokerMisconfigured):
                # Not a death: the worker is stopping, or it continues once the broker is back.
                await self._manifest.remember(mark, str(deaths))
                raise
        await self._manifest.forget(mark)
