"""Everything joined: what the worker is made of, in the order in which it opens, works and closes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping

import structlog

import ems_worker
from ems_worker import errors
from ems_worker.adapters import event_codec, files, http, yaml_reader
from ems_worker.adapters.jetstream import Broker
from ems_worker.adapters.manifest import Manifest
from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.access.quotas import Quotas
from ems_worker.core.access.rate import Rates
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import Experiment
from ems_worker.core.wire import StreamIdentity
from ems_worker.daemon.clock import SystemClock
from ems_worker.reading import Examiner
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.replies import Replies
from ems_worker.service.base.supervise import supervise
from ems_worker.service.base.versions import Versions
from ems_worker.service.control import Control
from ems_worker.service.dispatch import Dispatcher
from ems_worker.service.expand import Expander
from ems_worker.service.health import Health, Upkeep
from ems_worker.service.intake import check
from ems_worker.service.intake.accept import Intake
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.limits import Limits
from ems_worker.service.queries import Queries
from ems_worker.service.reasons import Reasons
from ems_worker.service.reconcile import Reconciler
from ems_worker.service.recovery import recover
from ems_worker.service.recovery.replay import Replay
from ems_worker.service.report import Reporter
from ems_worker.service.submit import Submitter
from ems_worker.service.track import Tracker
from ems_worker.settings import Settings, shown

log = structlog.get_logger()

_BEAT_SECONDS = 1.0
_PARKED_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
_CALM_SECONDS = 3.0


class Worker:
    """Everything that is joined for the life of the process. Cancelling `run` is the orderly shutdown.

    Raises errors.SettingsError where there is no directory of base files as asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._clock = SystemClock()
        self._health = Health(self._clock, self._metrics.trouble)
        self._health.beat()
        root = settings.base_config_root
        self._read_base = check.refuse_base if root is None else files.BaseFiles(root).read

    async def run(self) -> None:
        """Opens what is needed, in the order in which it is closed again the other way round."""
        settings, health = self._settings, self._health
        log.info("worker.starting", version=ems_worker.__version__, worker_id=settings.worker_id)
        async with contextlib.AsyncExitStack() as stack:
            if settings.http_address is not None:
                server = http.HttpServer(
                    *settings.http_address, self._metrics.registry, health.unhealthy, health.unready
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
            health.trouble("broker", f"connecting to {shown(settings.server)}")
            broker = await stack.enter_async_context(
                Broker.connect(
                    settings.access,
                    name=f"ems-worker {settings.worker_id}",
                    on_disconnected=lambda: health.trouble("broker", "not connected to NATS"),
                    on_reconnected=lambda: health.trouble("broker", None),
                    on_error=lambda error: log.warning("broker.error", reason=str(error)),
                )
            )
            health.trouble("broker", None)
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
            await asyncio.sleep(_BEAT_SECONDS)

    async def _ensure(self, broker: Broker, owner: str) -> Mapping[str, StreamIdentity]:
        """Streams and consumers, as soon as the server answers; a contradiction ends the worker."""
        while True:
            try:
                streams = await broker.ensure(owner, create=self._settings.create_streams)
            except errors.BrokerUnavailable as error:
                self._health.trouble("streams", str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self._health.trouble("streams", None)
                return streams

    async def _serve(
        self, manifest: Manifest, orchestrator: Orchestrator, broker: Broker, streams: Mapping[str, StreamIdentity]
    ) -> None:
        """Builds the services, takes up what an earlier worker left, and works until cancelled."""
        settings, clock, metrics = self._settings, self._clock, self._metrics

        async def load(record: Experiment) -> Live:
            return await recover.load(record, manifest, yaml_reader)

        async def leave_manifest(live: Live) -> None:
            try:
                path = await files.write_manifest(settings.exports, live.experiment_id, manifest.export(live.key))
            except errors.FileUnwritable as error:
                # `ems export` makes it at any time: no reason to keep the end of an experiment from being told.
                log.error("experiment.manifest_not_written", experiment_id=live.experiment_id, reason=str(error))
            else:
                log.info("experiment.manifest_written", experiment_id=live.experiment_id, path=str(path))

        def changed(key: int) -> None:
            reporter.tell(key)
            dispatcher.wake()

        def ended(key: RunKey, one: Run) -> None:
            dispatcher.ended(key, one)

        def relieved() -> None:
            dispatcher.wake()

        async def accepted(record: Experiment) -> None:
            ledger.admit(await load(record))
            changed(record.key)
            expander.wake()

        ledger = Ledger(manifest, clock, load, changed, ended)
        versions = Versions()
        submitter = Submitter(ledger, manifest, orchestrator, clock, metrics, relieved, versions)
        dispatcher = Dispatcher(
            ledger, manifest, orchestrator, submitter, clock, metrics, settings.run_window, versions
        )
        reconciler = Reconciler(ledger, orchestrator, submitter, clock, metrics, settings.rpc_deadline_seconds)
        expander = Expander(ledger, manifest, metrics, on_jobs=dispatcher.wake)
        limits = Limits(
            ledger,
            orchestrator,
            clock,
            metrics,
            settings.run_timeout_seconds,
            settings.stop_confirm_seconds,
            lambda: reconciler.can_ask,
        )
        reasons = Reasons()
        reasons.add(lambda _: None if (refused := broker.refused) is None else f"NATS refuses {refused}")
        reasons.add(lambda _: submitter.reach.trouble)
        reasons.add(lambda _: dispatcher.paused)
        reasons.add(lambda live: versions.waiting(live.plan))
        reasons.add(submitter.reach.waits)
        reporter = Reporter(
            ledger,
            manifest,
            broker,
            clock,
            metrics,
            settings.worker_id,
            settings.status_interval_seconds,
            reasons,
            leave_manifest if settings.manifest_export else None,
        )
        tracker = Tracker(
            ledger,
            manifest,
            broker,
            event_codec.decode,
            clock,
            metrics,
            settings.parked_events,
            on_backlog=dispatcher.caught_up,
        )
        replies = Replies(settings.reply_prefixes, broker.inbox, metrics)
        examiner = Examiner(self._read_base, settings.max_plan_bytes, settings.max_jobs)
        intake = Intake(
            manifest,
            broker,
            examiner,
            clock,
            metrics,
            replies,
            accepted,
            settings.max_plan_bytes,
            Rates(settings.plans_per_minute, settings.plans_per_minute_total),
            Quotas(settings.max_open_experiments, settings.max_open_jobs, settings.max_priority),
            lambda: orchestrator.message_limit,
            versions,
        )
        control = Control(ledger, manifest, clock)
        queries = Queries(
            ledger,
            manifest,
            yaml_reader,
            examiner,
            clock,
            settings.worker_id,
            lambda: orchestrator.message_limit,
            lambda: dispatcher.window,
            versions,
            reasons,
        )

        unsent = await recover.recover(ledger, manifest, yaml_reader)
        self._health.trouble("experiments", recover.trouble(ledger))
        self._health.trouble("start", "catching up with the streams")
        await Replay(ledger, manifest, broker, intake, expander, tracker).run()
        await control.finish()
        for key in list(ledger.experiments):
            reporter.tell(key)
        handlers = {**queries.handlers(), **control.handlers()}
        await broker.serve(handlers, version=ems_worker.__version__, allows=replies.allows)
        upkeep = Upkeep(
            self._health, metrics, ledger, dispatcher, submitter, broker, manifest, orchestrator, reporter, clock
        )
        await upkeep.check_streams(streams)
        self._health.trouble("start", None)
        log.info("worker.ready", experiments=len(ledger.experiments), unsent=len(unsent))
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in (
                    ("events", lambda: self._patiently("events", tracker.run)),
                    ("plans", lambda: self._patiently("plans", intake.run)),
                    ("slow plans", lambda: self._patiently("slow plans", intake.run_slow)),
                    ("expansion", expander.run),
                    ("dispatch", dispatcher.run),
                    ("reconciliation", reconciler.run),
                    ("limits", limits.run),
                    ("reports", reporter.run),
                    ("upkeep", upkeep.run),
                    ("parked events", lambda: self._retry_parked(tracker)),
                    ("commits", ledger.until_broken),
                ):
                    group.create_task(supervise(name, work))
                group.create_task(submitter.resend(unsent))
        finally:
            self._health.trouble("stop", "stopping")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_seconds / 2):
                    await ledger.count_time()
                    await reporter.flush()

    async def _retry_parked(self, tracker: Tracker) -> None:
        while True:
            await tracker.retry_parked(tracker.parked_since_ms(self._settings.parked_seconds))
            await asyncio.sleep(_PARKED_SECONDS)

    async def _patiently(self, part: str, work: Callable[[], Awaitable[None]]) -> None:
        """Goes on with work that needs the broker, whatever becomes of it; not ready while something is wrong."""
        loop = asyncio.get_running_loop()
        over: asyncio.TimerHandle | None = None
        while True:
            try:
                await work()
            except (errors.BrokerUnavailable, errors.BrokerMisconfigured) as error:
                if over is not None:
                    over.cancel()
                self._health.trouble(part, str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
                # It is over when the work has gone on for a while, not when it is tried again.
                over = loop.call_later(_CALM_SECONDS, self._health.trouble, part, None)


@contextlib.contextmanager
def _cancelled_at_end(task: "asyncio.Task[None]") -> Iterator[None]:
    try:
        yield
    finally:
        task.cancel()
