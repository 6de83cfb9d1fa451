"""Messages that may be killing the worker: each is tried alone, under a mark on disk, and put aside after three deaths.

A high delivery count alone proves nothing: healthy messages that were fetched by dying workers have one too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ems_worker import errors
from ems_worker.core.wire import Message
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest

log = structlog.get_logger()

# From this delivery on a message is suspected.
SUSPECTED_DELIVERIES = 5
# So often may the worker die with a suspect in its hands.
MOST_DEATHS = 3


class Guard:
    """Processes one kind of message ("plan" or "event"): healthy ones together, suspects one by one."""

    def __init__(self, manifest: Manifest, broker: Broker, metrics: Metrics, kind: str) -> None:
        self._manifest = manifest
        self._broker = broker
        self._metrics = metrics
        self._kind = kind

    async def process(self, messages: Sequence[Message], work: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        """Has `work` do the messages; what outlived the worker three times is dead-lettered without being read."""
        healthy = [message for message in messages if message.delivered < SUSPECTED_DELIVERIES]
        if healthy:
            await work(healthy)
        for message in messages:
            if message.delivered >= SUSPECTED_DELIVERIES:
                await self._alone(message, work)

    async def _alone(self, message: Message, work: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        mark = f"suspect {message.stream}:{message.stream_created_ns}:{message.seq}"
        deaths = int(await self._manifest.remembered(mark) or 0)
        if deaths >= MOST_DEATHS:
            words = f"the worker died {deaths} times while it processed this message"
            log.error("message.poison", subject=message.subject, seq=message.seq, deaths=deaths)
            await self._broker.dead_letter(message, words, self._kind)
            self._metrics.dead_letters.labels(self._kind).inc()
        else:
            await self._manifest.remember(mark, str(deaths + 1))
            try:
                await work([message])
            except (asyncio.CancelledError, errors.BrokerUnavailable, errors.BrokerMisconfigured):
                # Nobody died of it: the worker was told to end, or goes on once the broker is back.
                await self._manifest.remember(mark, str(deaths))
                raise
        await self._manifest.forget(mark)
