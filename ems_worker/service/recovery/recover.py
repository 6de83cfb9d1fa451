"""What a worker starts from: unfinished experiments and their open runs, as the manifest has them."""

import asyncio
from collections.abc import Sequence

import structlog

from ems_worker import errors
from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.job import RetryPolicy
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment
from ems_worker.service.base.ports import Manifest
from ems_worker.service.intake import check
from ems_worker.service.intake.check import PlanReader
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()

_MOST_NAMED = 10


async def read(record: Experiment, manifest: Manifest, reader: PlanReader) -> Live:
    """An experiment made live from its record: its plan as it was accepted, its tally counted from the rows.

    Raises errors.PlanNotReadAsAccepted where this worker can't go on with that plan.
    """
    # In a thread: a plan may take a second to read.
    plan, count, template = await asyncio.to_thread(check.loaded, record.spec, reader)
    if record.expanded_points < record.spec.points and count.exact and count.points != record.spec.points:
        # Its other points would be others than those that were counted, and that are there already.
        reason = f"it has {count.points:,} points by now, and had {record.spec.points:,}"
        raise check.not_as_accepted(record.spec, reason)
    tally = await manifest.tally(record.key)
    timeouts = {metric.name: metric.timeout_seconds for metric in plan.metrics if metric.source == "event"}
    return Live(
        record=record,
        plan=plan,
        template=template,
        tally=tally,
        recorded=tally,
        policy=RetryPolicy(
            plan.limits.max_attempts,
            frozenset(ErrorKind(kind) for kind in plan.limits.retry_on),
            frozenset(timeouts),
        ),
        metric_timeouts=timeouts,
        allowed=plan.limits.max_failed.allowed(record.spec.jobs),
        requests={request.request_id for request in await manifest.open_requests(record.key)},
        best=await manifest.best_point(record.key),
    )


async def recover(ledger: Ledger, manifest: Manifest, reader: PlanReader) -> Sequence[tuple[Live, Run]]:
    """Takes up every unfinished experiment; the runs that were on their way to the orchestrator when the worker ended.

    Those may or may not have arrived: they are to be sent again under the same ids. An experiment whose plan can't be
    read as it was accepted is left out, for a start that can.
    """
    submitting: list[tuple[Live, Run]] = []
    for record in await manifest.unfinished():
        try:
            live = await read(record, manifest, reader)
        except errors.PlanNotReadAsAccepted as error:
            ledger.mark_unreadable(record.spec.experiment_id, error)
            continue
        jobs = [job for job, _ in await manifest.open_jobs(record.key)]
        ledger.admit(live, jobs, await manifest.awaiting(record.key))
        submitting += [(live, one) for job in jobs for one in job.runs if one.state is RunState.SUBMITTING]
        await ledger.records.conclude(live)
        log.info(
            "experiment.recovered",
            experiment_id=live.experiment_id,
            state=record.state.value,
            jobs=record.spec.jobs,
            ended=live.tally.ended,
            open=sum(one.state in transitions.OPEN for job in jobs for one in job.runs),
        )
    return submitting


def trouble(ledger: Ledger) -> str | None:
    """What is wrong where experiments were left out, in words."""
    names = [*ledger.unreadable]
    if not names:
        return None
    shown = ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else "")
    return f"left as they are, for their plans aren't read as they were accepted: {shown}; the log says why"
