"""The life of the worker: it opens its connections, runs its services, and closes in the reverse order."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping

import structlog

import ems_worker
from ems_worker import errors, ticks
from ems_worker.adapters import files, http, yaml_reader
from ems_worker.adapters.jetstream import Broker
from ems_worker.adapters.manifest import Manifest
from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.wire import StreamIdentity
from ems_worker.daemon import services as wiring
from ems_worker.daemon.backups import Backups
from ems_worker.daemon.clock import SystemClock
from ems_worker.service.base import supervise
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.health import Health
from ems_worker.service.intake import check
from ems_worker.service.recovery import recover
from ems_worker.service.track import Tracker
from ems_worker.settings import Settings, masking

log = structlog.get_logger()

_BEAT_SECONDS = 1.0
_PARKED_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
_CALM_SECONDS = 3.0


class Worker:
    """One worker, from start to shutdown. Cancelling `run` shuts it down in order.

    Raises errors.SettingsError if the configured directory of base files doesn't exist.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._clock = SystemClock()
        self._health = Health(self._clock, self._metrics.problem)
        self._health.beat()
        root = settings.base_config_root
        self._read_base = check.refuse_base if root is None else files.BaseFiles(root).read

    async def run(self) -> None:
        """Opens the manifest and the connections, and serves until cancelled. Everything is closed in reverse order."""
        settings, health = self._settings, self._health
        log.info("worker.starting", version=ems_worker.__version__, worker_id=settings.worker_id)
        async with contextlib.AsyncExitStack() as stack:
            if settings.http_address is not None:
                server = http.HttpServer(
                    *settings.http_address, self._metrics.registry, unhealthy=health.unhealthy, unready=health.unready
                )
                log.info("worker.http", address=stack.enter_context(server).address)
            stack.enter_context(_cancelled_at_end(asyncio.create_task(self._beat())))
            manifest = await stack.enter_async_context(Manifest.open(settings.manifest))
            health.watch("manifest", lambda: manifest.write_problem)
            manifest.counters.on_commit = self._committed
            orchestrator = await stack.enter_async_context(
                Orchestrator.connect(
                    settings.channel, deadline_seconds=settings.rpc_deadline_seconds, window=settings.rpc_window
                )
            )
            health.set_problem("broker", f"connecting to {masking.urls(settings.server)}")
            broker = await stack.enter_async_context(
                Broker.connect(
                    settings.access,
                    name=f"ems-worker {settings.worker_id}",
                    on_disconnected=lambda: health.set_problem("broker", "not connected to NATS"),
                    on_reconnected=lambda: health.set_problem("broker", None),
                    on_error=lambda error: log.warning("broker.error", reason=str(error)),
                )
            )
            health.set_problem("broker", None)
            health.watch("jetstream", lambda: broker.refused)
            streams = await self._ensure(broker, await manifest.identity())
            await self._serve(manifest, orchestrator, broker, streams)

    def _committed(self, seconds: float, requests: int, rows: int) -> None:
        self._metrics.commits.inc()
        self._metrics.commit_seconds.observe(seconds)
        self._metrics.written.inc(rows)

    async def _beat(self) -> None:
        while True:
            self._health.beat()
            await ticks.wait(_BEAT_SECONDS)

    async def _ensure(self, broker: Broker, owner: str) -> Mapping[str, StreamIdentity]:
        """Creates or checks the streams and consumers, as soon as the server answers.

        Raises errors.BrokerMisconfigured if one contradicts what the worker needs.
        """
        while True:
            try:
                streams = await broker.ensure(owner, create=self._settings.create_streams)
            except errors.BrokerUnavailable as error:
                self._health.set_problem("streams", str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self._health.set_problem("streams", None)
                return streams

    async def _serve(
        self, manifest: Manifest, orchestrator: Orchestrator, broker: Broker, streams: Mapping[str, StreamIdentity]
    ) -> None:
        """Builds the services, loads what an earlier worker left, and works until cancelled."""
        settings, health = self._settings, self._health
        services = wiring.build(
            settings=settings,
            manifest=manifest,
            broker=broker,
            orchestrator=orchestrator,
            clock=self._clock,
            metrics=self._metrics,
            health=health,
            read_base=self._read_base,
        )
        ledger, reporter, tracker, intake = services.ledger, services.reporter, services.tracker, services.intake
        unsent = await recover.recover(ledger, manifest, yaml_reader)
        health.set_problem("experiments", recover.problem(ledger))
        health.set_problem("start", "catching up with the streams")
        await services.replay.run()
        # After a restore the published changes tell what was paused and resumed.
        await services.suspension.recover()
        for live in ledger.experiments():
            reporter.notify(live.key)
        handlers = {
            **services.queries.handlers(),
            **services.control.handlers(),
            **services.remover.handlers(),
        }
        await broker.serve(handlers, version=ems_worker.__version__, allows=services.replies.allows)
        await services.upkeep.check_streams(streams)
        health.set_problem("start", None)
        log.info("worker.ready", experiments=len(ledger.experiments()), unsent=len(unsent))
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in (
                    ("events", lambda: self._patiently("events", tracker.run)),
                    ("plans", lambda: self._patiently("plans", intake.run)),
                    ("slow plans", lambda: self._patiently("slow plans", intake.run_slow)),
                    ("expansion", services.expander.run),
                    ("dispatch", services.dispatcher.run),
                    ("reconciliation", services.reconciler.run),
                    ("limits", services.limits.run),
                    ("suspension", services.suspension.run),
                    ("changes", services.executor.run),
                    ("removals", services.remover.run),
                    ("settling", services.settling.run),
                    ("reports", reporter.run),
                    ("upkeep", services.upkeep.run),
                    ("parked events", lambda: self._retry_parked(tracker)),
                    ("commits", ledger.until_broken),
                    ("the check of the manifest", manifest.until_damaged),
                ):
                    group.create_task(supervise.supervise(name, work))
                group.create_task(services.submitter.resend(unsent))
                if settings.backup_seconds is not None:
                    copier = Backups(manifest, settings.data_dir / "backups", settings.backup_seconds)
                    group.create_task(supervise.supervise("backups", copier.run))
        finally:
            health.set_problem("stop", "stopping")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_seconds / 2):
                    await ledger.count_time()
                    await services.settling.record()
                    await reporter.flush()
                    await services.executor.publisher.publish()

    async def _retry_parked(self, tracker: Tracker) -> None:
        while True:
            await tracker.retry_parked(tracker.parked_since_ms(self._settings.parked_seconds))
            await ticks.wait(_PARKED_SECONDS)

    async def _patiently(self, part: str, work: Callable[[], Awaitable[None]]) -> None:
        """Repeats work that needs the broker, and reports its errors as a problem of this part."""
        loop = asyncio.get_running_loop()
        clear: asyncio.TimerHandle | None = None
        while True:
            try:
                await work()
            except (errors.BrokerUnavailable, errors.BrokerMisconfigured) as error:
                if clear is not None:
                    clear.cancel()
                self._health.set_problem(part, str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
                # The problem is over when the work has run for a while without an error, not when it is tried again.
                clear = loop.call_later(_CALM_SECONDS, self._health.set_problem, part, None)


@contextlib.contextmanager
def _cancelled_at_end(task: "asyncio.Task[None]") -> Iterator[None]:
    try:
        yield
    finally:
        task.cancel()
