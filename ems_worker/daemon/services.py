"""The wiring: every service is built here, and every callback between two services is tied here."""

from collections.abc import Awaitable
from dataclasses import dataclass

from ems_worker.adapters import event_codec, yaml_reader
from ems_worker.core.access.quotas import Quotas
from ems_worker.core.access.rate import Rates
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import Experiment
from ems_worker.daemon.exports import Exports
from ems_worker.reading import Examiner
from ems_worker.service import reasons as reason
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest, Orchestrator
from ems_worker.service.base.replies import Replies
from ems_worker.service.base.versions import Versions
from ems_worker.service.dispatch import Dispatcher
from ems_worker.service.expand import Expander
from ems_worker.service.health import Health, Upkeep
from ems_worker.service.intake import loading
from ems_worker.service.intake.accept import Intake
from ems_worker.service.intake.check import Loaded, Platform, ReadBase
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.limits import RunLimits
from ems_worker.service.queries import Queries
from ems_worker.service.reasons import Reasons
from ems_worker.service.reconcile import Reconciler
from ems_worker.service.recovery import recover
from ems_worker.service.recovery.changes import ChangeReplay
from ems_worker.service.recovery.replay import Replay
from ems_worker.service.report import Reporter
from ems_worker.service.settle import Settling
from ems_worker.service.steering.control import Control
from ems_worker.service.steering.executor import Executor
from ems_worker.service.steering.extend import Extender
from ems_worker.service.steering.next_plan import Plans
from ems_worker.service.steering.remove import Remover, Retention
from ems_worker.service.submit import Submitter
from ems_worker.service.suspend import Suspension
from ems_worker.service.track import Tracker
from ems_worker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services of one worker, joined."""

    ledger: Ledger
    versions: Versions
    submitter: Submitter
    dispatcher: Dispatcher
    reconciler: Reconciler
    expander: Expander
    limits: RunLimits
    suspension: Suspension
    reasons: Reasons
    reporter: Reporter
    settling: Settling
    tracker: Tracker
    replies: Replies
    examiner: Examiner
    intake: Intake
    executor: Executor
    control: Control
    remover: Remover
    queries: Queries
    replay: Replay
    upkeep: Upkeep


def build(
    *,
    settings: Settings,
    manifest: Manifest,
    broker: Broker,
    orchestrator: Orchestrator,
    clock: Clock,
    metrics: Metrics,
    health: Health,
    read_base: ReadBase,
) -> Services:
    """Builds the services on an open manifest and two connections. Nothing runs yet.

    `read_base` reads the base files that plans name.
    """

    async def read(record: Experiment) -> Live:
        return await recover.read(record, manifest, loading.load(record.spec, yaml_reader), yaml_reader)

    def on_change(key: int) -> None:
        reporter.notify(key)
        dispatcher.changed(key)
        executor.wake(key)

    def on_examined() -> None:
        executor.wake()

    def on_end(key: RunKey, run: Run) -> None:
        dispatcher.ended(key, run)

    def on_relief() -> None:
        dispatcher.wake()

    def on_settling(key: int) -> None:
        reporter.notify(key)

    async def on_accept(record: Experiment, loaded: Awaitable[Loaded]) -> None:
        ledger.admit(await recover.read(record, manifest, loaded, yaml_reader))
        on_change(record.key)
        expander.wake()

    versions, files = Versions(), Exports(settings.exports, manifest)
    ledger = Ledger(manifest=manifest, clock=clock, read=read, on_change=on_change, on_end=on_end)
    submitter = Submitter(
        ledger=ledger,
        manifest=manifest,
        orchestrator=orchestrator,
        clock=clock,
        metrics=metrics,
        versions=versions,
        on_relief=on_relief,
        hold=settings.hold,
    )
    dispatcher = Dispatcher(
        ledger=ledger,
        manifest=manifest,
        orchestrator=orchestrator,
        submitter=submitter,
        clock=clock,
        metrics=metrics,
        versions=versions,
        window=settings.run_window,
    )
    reconciler = Reconciler(
        ledger=ledger,
        orchestrator=orchestrator,
        submitter=submitter,
        clock=clock,
        metrics=metrics,
        deadline_seconds=settings.rpc_deadline_seconds,
    )
    expander = Expander(ledger=ledger, metrics=metrics)
    limits = RunLimits(
        ledger=ledger,
        orchestrator=orchestrator,
        clock=clock,
        metrics=metrics,
        run_timeout_seconds=settings.run_timeout_seconds,
        stop_confirm_seconds=settings.stop_confirm_seconds,
        can_ask=lambda: reconciler.can_ask,
        is_sending=submitter.is_sending,
    )
    suspension = Suspension(
        ledger=ledger, manifest=manifest, orchestrator=orchestrator, clock=clock, on_refused=on_change
    )
    reasons = Reasons(
        (
            lambda live: reason.paused(live, suspension.reason(live)),
            reason.cancelling,
            reason.kept_open,
            lambda _: None if (refused := broker.refused) is None else f"NATS refuses {refused}",
            lambda _: dispatcher.hold_reason,
            lambda _: submitter.reach.problem,
            lambda _: dispatcher.breaker_reason,
            lambda live: versions.waiting(live.plan),
            submitter.reach.waits,
        )
    )
    settling = Settling(
        ledger=ledger,
        manifest=manifest,
        broker=broker,
        clock=clock,
        notify=on_settling,
        on_change=lambda: executor.recorded(),  # noqa: PLW0108 - it is built below
    )
    reporter = Reporter(
        ledger=ledger,
        manifest=manifest,
        broker=broker,
        clock=clock,
        metrics=metrics,
        reasons=reasons,
        settling=settling,
        worker_id=settings.worker_id,
        interval_seconds=settings.status_interval_seconds,
        write_manifest=files.write if settings.manifest_export else None,
        on_published=files.published if settings.manifest_export else None,
    )
    tracker = Tracker(
        ledger=ledger,
        manifest=manifest,
        broker=broker,
        decode=event_codec.decode,
        clock=clock,
        metrics=metrics,
        max_parked=settings.parked_events,
        on_backlog=dispatcher.set_behind,
    )
    replies = Replies(settings.reply_prefixes, broker.inbox, metrics)
    examiner = Examiner(read_base, settings.max_plan_bytes, settings.max_jobs)
    quotas = Quotas(settings.max_open_experiments, settings.max_open_jobs, settings.max_priority)
    intake = Intake(
        manifest=manifest,
        broker=broker,
        examiner=examiner,
        clock=clock,
        metrics=metrics,
        replies=replies,
        versions=versions,
        max_bytes=settings.max_plan_bytes,
        rates=Rates(settings.plans_per_minute, settings.plans_per_minute_total),
        quotas=quotas,
        message_limit=lambda: orchestrator.message_limit,
        load=lambda spec: loading.load(spec, yaml_reader),
        on_accept=on_accept,
    )
    plans = Plans(
        examiner,
        yaml_reader,
        lambda: Platform(model_version=versions.reported, message_limit=orchestrator.message_limit),
        quotas,
    )
    extender = Extender(
        ledger=ledger, manifest=manifest, plans=plans, max_jobs=settings.max_jobs, on_examined=on_examined
    )
    executor = Executor(ledger=ledger, manifest=manifest, broker=broker, extender=extender, paused=suspension.is_done)
    control = Control(
        ledger=ledger,
        manifest=manifest,
        executor=executor,
        extender=extender,
        clock=clock,
        max_priority=settings.max_priority,
        held=lambda: submitter.held,
        release=dispatcher.release,
    )
    retention = Retention(settings.retention_seconds, files.keep)
    remover = Remover(ledger=ledger, manifest=manifest, publisher=executor.publisher, clock=clock, retention=retention)
    queries = Queries(
        ledger=ledger,
        manifest=manifest,
        reader=yaml_reader,
        examiner=examiner,
        clock=clock,
        versions=versions,
        reasons=reasons,
        worker_id=settings.worker_id,
        message_limit=lambda: orchestrator.message_limit,
        slots=lambda: dispatcher.window,
    )
    replay = Replay(
        ledger=ledger,
        manifest=manifest,
        broker=broker,
        intake=intake,
        expander=expander,
        tracker=tracker,
        changes=ChangeReplay(ledger=ledger, control=control, executor=executor, remover=remover),
    )
    upkeep = Upkeep(
        health=health,
        metrics=metrics,
        ledger=ledger,
        dispatcher=dispatcher,
        submitter=submitter,
        broker=broker,
        manifest=manifest,
        orchestrator=orchestrator,
        reporter=reporter,
        clock=clock,
    )
    return Services(
        ledger=ledger,
        versions=versions,
        submitter=submitter,
        dispatcher=dispatcher,
        reconciler=reconciler,
        expander=expander,
        limits=limits,
        suspension=suspension,
        reasons=reasons,
        reporter=reporter,
        settling=settling,
        tracker=tracker,
        replies=replies,
        examiner=examiner,
        intake=intake,
        executor=executor,
        control=control,
        remover=remover,
        queries=queries,
        replay=replay,
        upkeep=upkeep,
    )
