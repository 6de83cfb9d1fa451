"""Is the worker well: what its probes tell, and the look-out for what can go wrong around it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from prometheus_client import Gauge

from ems_worker import errors
from ems_worker.core.documents import subjects
from ems_worker.core.wire import StreamIdentity
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest, Orchestrator
from ems_worker.service.dispatch import Dispatcher
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.report import Reporter
from ems_worker.service.submit import Submitter

log = structlog.get_logger()

_UPKEEP_SECONDS = 1.0
_STREAMS_SECONDS = 30.0
# How long decisions are kept on messages of streams that aren't there any more.
_OTHER_STREAMS_MS = 30 * 24 * 3600 * 1000
# /healthz fails when the event loop hasn't turned for so long.
_HEARTBEAT_SECONDS = 15.0
_GONE = "was deleted. Remedy: start the worker again, which creates it and publishes what could not be published since"
_ANEW = "was deleted and created anew: what it held is gone"


@dataclass(slots=True)
class Health:
    """What /healthz and /readyz tell; `troubles` by part of the worker, in words. Asked from another thread, too.

    `watched` are parts that are asked at each probe: what is wrong, or None. `gauge` tells the same, by part.
    """

    clock: Clock
    gauge: Gauge
    watched: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=lambda: {"start": "starting"})
    heartbeat: float = 0.0

    def __post_init__(self) -> None:
        for part in ("loop", *self.troubles):
            self._measure(part)

    def unhealthy(self) -> Mapping[str, str]:
        silent = self.clock.monotonic() - self.heartbeat
        return {"loop": f"nothing moved for {silent:.0f} s"} if silent > _HEARTBEAT_SECONDS else {}

    def beat(self) -> None:
        """The event loop has turned."""
        self.heartbeat = self.clock.monotonic()

    def unready(self) -> Mapping[str, str]:
        watched = {part: words for part, watch in self.watched.items() if (words := watch()) is not None}
        return {**self.troubles, **watched, **self.unhealthy()}

    def watch(self, part: str, ask: Callable[[], str | None]) -> None:
        """From now on this part is asked at each probe."""
        self.watched[part] = ask
        self._measure(part)

    def trouble(self, part: str, words: str | None) -> None:
        """Sets or clears what is wrong with a part; logs where that is news."""
        if words is None:
            if self.troubles.pop(part, None) is not None:
                log.info("worker.trouble_over", part=part)
        elif self.troubles.get(part) != words:
            self.troubles[part] = words
            self._measure(part)
            log.warning("worker.trouble", part=part, reason=words)

    def _measure(self, part: str) -> None:
        # Asked when it is collected: so it never says otherwise than the probe, whatever stands still.
        self.gauge.labels(part).set_function(lambda: part in self.unready())


class Upkeep:
    """Looks after the surroundings: gauges, the orchestrator, reasons that change, the identity of the streams."""

    def __init__(
        self,
        *,
        health: Health,
        metrics: Metrics,
        ledger: Ledger,
        dispatcher: Dispatcher,
        submitter: Submitter,
        broker: Broker,
        manifest: Manifest,
        orchestrator: Orchestrator,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._submitter = submitter
        self._broker = broker
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._reporter = reporter
        self._clock = clock
        # The streams that there were.
        self._streams: set[str] = set()

    async def run(self) -> None:
        looked = self._clock.monotonic()
        while True:
            self._metrics.open_runs.set(self._ledger.open)
            self._metrics.rpc_window.set(self._orchestrator.rpc_window)
            self._metrics.experiments.set(len(self._ledger.experiments()))
            self._metrics.broker_connected.set(self._broker.connected)
            self._health.trouble("manifest", self._manifest.file_problem)
            self._health.trouble("breaker", self._dispatcher.breaker_reason)
            self._health.trouble("orchestrator", self._submitter.reach.trouble)
            self._reporter.look()
            if self._clock.monotonic() - looked >= _STREAMS_SECONDS and self._broker.connected:
                looked = self._clock.monotonic()
                with contextlib.suppress(errors.BrokerUnavailable):
                    streams = await self._broker.streams()
                    await self.check_streams(streams)
                    await self._remember_positions()
                    await self.drop_submissions(streams)
            await asyncio.sleep(_UPKEEP_SECONDS)

    async def _remember_positions(self) -> None:
        """From where the streams are replayed if the manifest is restored from a backup of now."""
        plans, events = await self._broker.positions()
        await self._manifest.remember("position plans", str(plans))
        await self._manifest.remember("position events", str(events))

    async def drop_submissions(self, streams: Mapping[str, StreamIdentity]) -> None:
        """Rejections and duplicates are kept as long as their messages, so that the manifest doesn't grow with them."""
        if (plans := streams.get(subjects.PLANS_STREAM)) is not None:
            before_ms = self._clock.now_ms() - _OTHER_STREAMS_MS
            await self._manifest.drop_submissions(plans.created_ns, plans.first_seq, before_ms)

    async def check_streams(self, streams: Mapping[str, StreamIdentity]) -> None:
        """Alarms where a stream is gone, is another one than before, or has fallen behind what it had."""
        for name in sorted(self._streams - streams.keys()):
            self._health.trouble(f"stream {name}", _GONE)
            # This was the alarm: that the next start makes it anew is none.
            await self._manifest.forget(f"stream {name}")
        self._streams |= streams.keys()
        for name, now in streams.items():
            part = f"stream {name}"
            known = await self._manifest.remembered(part)
            if known is not None:
                created_ns, last_seq = (int(number) for number in known.split(":"))
                if created_ns != now.created_ns:
                    self._health.trouble(part, _ANEW)
                elif now.last_seq < last_seq:
                    words = f"is at sequence {now.last_seq:,} and was at {last_seq:,}: it lost messages"
                    self._health.trouble(part, words)
            elif part in self._health.troubles:
                self._health.trouble(part, _ANEW)
            await self._manifest.remember(part, f"{now.created_ns}:{now.last_seq}")
