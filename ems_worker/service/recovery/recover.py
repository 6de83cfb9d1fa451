"""Recovery: a worker starts from the unfinished experiments and open runs in the manifest."""

from collections.abc import Awaitable, Sequence

import structlog

from ems_worker import errors
from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment
from ems_worker.service.base.ports import Manifest
from ems_worker.service.intake import check, loading
from ems_worker.service.intake.check import Loaded, PlanReader
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.recovery import unrecorded

log = structlog.get_logger()

_MAX_NAMED = 10


async def read(record: Experiment, manifest: Manifest, loaded: Awaitable[Loaded], reader: PlanReader) -> Live:
    """Builds an experiment from its record: with the plan as it was accepted, and the tally counted from the rows.

    Raises errors.PlanNotReadAsAccepted if this worker can't continue with the plan.
    """
    plan, count, template = await loaded
    changes = {change.number: change for change in await manifest.open_changes(record.key)}
    reason = await unrecorded.misfit(record, plan, count, changes=changes.values(), manifest=manifest, reader=reader)
    if reason is not None:
        raise check.not_as_accepted(record.spec, reason)
    tally = await manifest.tally(record.key)
    timeouts = {metric.name: metric.timeout_seconds for metric in plan.metrics if metric.source == "event"}
    return Live(
        record=record,
        plan=plan,
        template=template,
        tally=tally,
        recorded=tally,
        policy=lives.policy(plan),
        recorded_seq=record.ended_seq,
        unreported=0 if record.settled_round == record.round else tally.called_off.get(Bucket.CANCELLED, 0),
        metric_timeouts=timeouts,
        changes=changes,
        best=await manifest.best_point(record.key),
    )


async def recover(ledger: Ledger, manifest: Manifest, reader: PlanReader) -> Sequence[tuple[Live, Run]]:
    """Loads every unfinished experiment; returns the runs whose commands were under way when the last worker ended.

    These commands may not have arrived, so they have to be sent again under the same ids. An experiment whose plan
    can't be read as it was accepted is left alone until a worker starts that can.
    """
    submitting: list[tuple[Live, Run]] = []
    for record in await manifest.unfinished():
        try:
            live = await read(record, manifest, loading.load(record.spec, reader), reader)
        except errors.PlanNotReadAsAccepted as error:
            ledger.mark_unreadable(record.spec.experiment_id, error)
            continue
        jobs = [job for job, _ in await manifest.open_jobs(record.key)]
        ledger.admit(live, jobs, await manifest.awaiting(record.key))
        submitting += [(live, run) for job in jobs for run in job.runs if run.state is RunState.SUBMITTING]
        await ledger.records.conclude(live)
        log.info(
            "experiment.recovered",
            experiment_id=live.experiment_id,
            state=record.state.value,
            jobs=record.spec.jobs,
            ended=live.tally.ended,
            open=sum(run.state in transitions.OPEN for job in jobs for run in job.runs),
        )
    return submitting


def problem(ledger: Ledger) -> str | None:
    """Which experiments are left alone because their plans are unreadable, for people; None if there are none."""
    names = [*ledger.unreadable]
    if not names:
        return None
    shown = ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if names[_MAX_NAMED:] else "")
    return f"left alone, because their plans can't be read as they were accepted: {shown}; the log has the reasons"
