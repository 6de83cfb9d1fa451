"""`ems jobs` and `ems runs`: the jobs of an experiment, or every attempt at them, with what each was given and gave."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker.cli import asking, change_options, exits, shell
from ems_worker.cli.experiments import Experiment

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

_SHOWN = 50


class JobState(StrEnum):
    """The states by which jobs are counted. The core's own are not imported for the help: that takes too long."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    RUNNING = "running"
    AWAITING_METRICS = "awaiting_metrics"
    COMPLETED = "completed"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    CANCELLED = "cancelled"
    LOST = "lost"


State = Annotated[
    JobState | None, typer.Option(metavar="STATE", help=f"Only those in this state: {', '.join(JobState)}.")
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=0, metavar="NUMBER", help=f"At most so many; 0: all. Default: {_SHOWN}; with --json, all."
    ),
]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is listed: jobs, or all attempts at them, that are in a state and match a condition."""

    experiment_id: str
    attempts: bool
    state: JobState | None
    where: str | None
    limit: int | None
    json: bool


@shell.guarded
def jobs(
    experiment_id: Experiment,
    *,
    state: State = None,
    where: change_options.Where = None,
    limit: Limit = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List the jobs of an experiment.

    Each job is shown by the run that counts for it: its id, state, parameters, metrics, duration, and why it did not
    complete.
    """
    return _list(server, context, _Wanted(experiment_id, False, state, where, limit, json))


@shell.guarded
def runs(
    experiment_id: Experiment,
    *,
    state: State = None,
    where: change_options.Where = None,
    limit: Limit = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List every attempt at the jobs of an experiment.

    A job has more than one run if it was retried.
    """
    return _list(server, context, _Wanted(experiment_id, True, state, where, limit, json))


def _list(server: str | None, context: str | None, wanted: _Wanted) -> exits.Exit:
    from ems_worker.cli import naming

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        experiment_id = await naming.experiment(ems, wanted.experiment_id)
        table = None if wanted.json else _Table(await ems.get(experiment_id))
        limit = wanted.limit if wanted.limit is not None else 0 if wanted.json else _SHOWN
        number, more = 0, False
        found = ems.jobs(
            experiment_id,
            state=None if wanted.state is None else wanted.state.value,
            where=wanted.where,
            attempts=wanted.attempts,
        )
        async with contextlib.aclosing(found) as jobs:
            async for job in jobs:
                if limit and number == limit:
                    more = True
                    break
                number += 1
                shell.out_json(job) if table is None else table.add(job)
        if table is not None and number:
            table.flush()
        noun = "runs" if wanted.attempts else "jobs"
        if more:
            shell.say(f"... and more {noun}: `ems {noun} {experiment_id} -n 0` lists all")
        elif not number:
            shell.say(f"no {noun}{' match' if wanted.state or wanted.where else ''}")
        return exits.Exit.OK

    return asking.run(server, context, ask)


# Columns of the terminal that a text keeps.
_MIN_TEXT = 8


class _Table:
    """The table of an experiment's jobs. A column in which nothing stands is left out."""

    def __init__(self, details: Document) -> None:
        from ems_worker.cli import tables
        from ems_worker.cli.fitting import Column
        from ems_worker.core.documents import headings

        self._parameters, self._metrics = list(details["parameters"]), list(details["metrics"])
        texts = details.get("headings", {})
        titles = headings.titles(self._parameters, texts.get("parameters", {}), tables.short(self._parameters))
        metrics = headings.titles(self._metrics, texts.get("metrics", {}))
        # Where there is no room, texts are cut first; parameters and then metrics go last, each from the last one on.
        drops = [*range(len(metrics) + 1, len(metrics) + len(titles) + 1), *range(1, len(metrics) + 1)]
        named = list(zip([*titles, *metrics], drops, strict=True))
        self._table = tables.Growing(
            [
                Column("run"),
                Column("state"),
                *(Column(title, drop=drop) for title, drop in named),
                Column("took", drop=len(named) + 2),
                Column("host", drop=len(named) + 3, cut=_MIN_TEXT),
                Column("excluded", drop=len(named) + 4, cut=_MIN_TEXT),
                Column("why", drop=len(named) + 1, cut=_MIN_TEXT),
            ],
            instead="--json, or a wider window",
        )
        self._cell = tables.cell

    def add(self, job: Document) -> None:
        params, metrics = job["params"], job["metrics"] or {}
        self._table.add(
            [
                job["simulation_id"],
                _state(job),
                *(self._cell(params[name]) if name in params else "-" for name in self._parameters),
                *("-" if metrics.get(name) is None else metrics[name] for name in self._metrics),
                took(job),
                job.get("host") or "",
                job.get("excluded") or "",
                why(job),
            ]
        )

    def flush(self) -> None:
        self._table.flush()


def _state(job: Document) -> str:
    part = progress(job)
    return f"{job['state']} {part:.0%}" if part is not None and job["state"] == JobState.RUNNING else str(job["state"])


def progress(job: Document) -> float | None:
    """How far a running run has said that it is, from 0 to 1; None if it hasn't."""
    step, total = job.get("step"), job.get("total")
    return min(1.0, max(0.0, step / total)) if step is not None and total else None


def took(job: Document, now: datetime | None = None) -> str:
    """How long a run took, or has taken until now; empty if that is unknown."""
    from ems_worker.cli import statuses

    began, ended = job["started_at"], job["finished_at"]
    try:
        end = now if ended is None else datetime.fromisoformat(ended)
        return (
            ""
            if began is None or end is None
            else statuses.duration(max(0.0, (end - datetime.fromisoformat(began)).total_seconds()))
        )
    except (ValueError, TypeError):
        return ""


def why(job: Document) -> str:
    """Why a run did not complete: the last line of its error, which is the most telling line of a traceback."""
    error = job["error"] or {}
    lines = [line.strip() for line in (error.get("message") or "").splitlines() if line.strip()]
    if not lines:
        return str(error.get("kind") or "")
    return lines[-1] if len(lines[-1]) <= 80 else f"{lines[-1][:77]}..."
