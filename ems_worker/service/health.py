"""The worker's health: what its probes report, and regular checks of its surroundings."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from prometheus_client import Gauge

from ems_worker import errors, ticks
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
# How long decisions are kept whose messages were in streams that no longer exist.
_OTHER_STREAMS_MS = 30 * 24 * 3600 * 1000
# /healthz fails if the event loop hasn't responded for this long.
_HEARTBEAT_SECONDS = 15.0
_GONE = "was deleted. Remedy: start the worker again, which creates it and publishes what could not be published since"
_RECREATED = "was deleted and recreated: the messages in it are gone"


@dataclass(slots=True)
class Health:
    """The problems that /healthz and /readyz report, by part of the worker. Probes call it from another thread.

    `watched`: functions that return the problem of a part, or None, and are called at each probe. `gauge`: a metric,
    labelled by part, which is 1 while /readyz reports a problem.
    """

    clock: Clock
    gauge: Gauge
    watched: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=lambda: {"start": "starting"})
    heartbeat: float = 0.0

    def __post_init__(self) -> None:
        for part in ("loop", *self.problems):
            self._measure(part)

    def unhealthy(self) -> Mapping[str, str]:
        """The problems that only a restart solves."""
        silent = self.clock.monotonic() - self.heartbeat
        if silent <= _HEARTBEAT_SECONDS:
            return {}
        return {"loop": f"the event loop has not responded for {silent:.0f} s"}

    def beat(self) -> None:
        """Shows that the event loop responds."""
        self.heartbeat = self.clock.monotonic()

    def unready(self) -> Mapping[str, str]:
        """All problems."""
        watched = {part: problem for part, probe in self.watched.items() if (problem := probe()) is not None}
        return {**self.problems, **watched, **self.unhealthy()}

    def watch(self, part: str, probe: Callable[[], str | None]) -> None:
        """Calls `probe` for the problem of this part from now on."""
        self.watched[part] = probe
        self._measure(part)

    def set_problem(self, part: str, message: str | None) -> None:
        """Sets the problem of a part, or clears it with None; logs each change."""
        if message is None:
            if self.problems.pop(part, None) is not None:
                log.info("worker.trouble_over", part=part)
        elif self.problems.get(part) != message:
            self.problems[part] = message
            self._measure(part)
            log.warning("worker.trouble", part=part, reason=message)

    def _measure(self, part: str) -> None:
        # Computed when the metric is collected, so that it always agrees with the probe, even if the loop hangs.
        self.gauge.labels(part).set_function(lambda: part in self.unready())


class Upkeep:
    """Regular work: gauges, problems of other parts, changed reasons of statuses, and the identities of the streams."""

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
        # Names of the streams that existed at some time since the start.
        self._streams: set[str] = set()

    async def run(self) -> None:
        """Repeats all checks, without end."""
        checked = self._clock.monotonic()
        while True:
            self._metrics.open_runs.set(self._ledger.open)
            self._metrics.rpc_window.set(self._orchestrator.rpc_window)
            self._metrics.experiments.set(len(self._ledger.experiments()))
            self._metrics.broker_connected.set(self._broker.connected)
            self._health.set_problem("manifest", self._manifest.file_problem)
            self._health.set_problem("breaker", self._dispatcher.breaker_reason)
            self._health.set_problem("orchestrator", self._submitter.reach.problem)
            self._reporter.look()
            if self._clock.monotonic() - checked >= _STREAMS_SECONDS and self._broker.connected:
                checked = self._clock.monotonic()
                with contextlib.suppress(errors.BrokerUnavailable):
                    streams = await self._broker.streams()
                    await self.check_streams(streams)
                    await self._remember_positions()
                    await self.drop_submissions(streams)
            await ticks.wait(_UPKEEP_SECONDS)

    async def _remember_positions(self) -> None:
        """Records from where to replay the streams if a backup made now is restored."""
        plans, events = await self._broker.positions()
        await self._manifest.remember("position plans", str(plans))
        await self._manifest.remember("position events", str(events))

    async def drop_submissions(self, streams: Mapping[str, StreamIdentity]) -> None:
        """Drops rejections and duplicates whose messages are gone, so that the manifest doesn't grow with them."""
        if (plans := streams.get(subjects.PLANS_STREAM)) is not None:
            before_ms = self._clock.now_ms() - _OTHER_STREAMS_MS
            await self._manifest.drop_submissions(plans.created_ns, plans.first_seq, before_ms)

    async def check_streams(self, streams: Mapping[str, StreamIdentity]) -> None:
        """Reports streams that were deleted, were recreated, or have lost messages."""
        for name in sorted(self._streams - streams.keys()):
            self._health.set_problem(f"stream {name}", _GONE)
            # Reported now, so that it isn't reported once more when the next start recreates the stream.
            await self._manifest.forget(f"stream {name}")
        self._streams |= streams.keys()
        for name, now in streams.items():
            part = f"stream {name}"
            known = await self._manifest.remembered(part)
            if known is not None:
                created_ns, last_seq = (int(number) for number in known.split(":"))
                if created_ns != now.created_ns:
                    self._health.set_problem(part, _RECREATED)
                elif now.last_seq < last_seq:
                    message = f"is at sequence {now.last_seq:,} and was at {last_seq:,}: it lost messages"
                    self._health.set_problem(part, message)
            elif part in self._health.problems:
                self._health.set_problem(part, _RECREATED)
            await self._manifest.remember(part, f"{now.created_ns}:{now.last_seq}")
