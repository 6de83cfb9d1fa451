"""Carries out `ems run`: finds or starts a platform, sends the plan, follows it, and shows and writes its results."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ems_worker import client, errors
from ems_worker.cli import exits, export, failures, follow, numbers, places, publish, shell, statuses, views
from ems_worker.cli.formats import Format
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.local import registry, stopping

if TYPE_CHECKING:
    from ems_worker.cli import plans

_DECISION_SECONDS: Final = 30.0
# How many names are worth a line.
_MAX_NAMES: Final = 12


@dataclass(frozen=True, slots=True)
class Job:
    """What to run. `reported` are the warnings that have been printed already."""

    file: "plans.PlanFile"
    message: "plans.Message"
    reported: Sequence[errors.Problem]
    simulator: registry.Simulator | None
    output: Path | None
    json: bool


def carry_out(job: Job, wanted: places.Wanted) -> exits.Exit:
    """Runs the job to its end, or until a signal, after which it has said what goes on."""
    code = stopping.run_until_signal(lambda: _run(job, wanted))
    return exits.Exit.INTERRUPTED if code is None else exits.Exit(code)


async def _run(job: Job, wanted: places.Wanted) -> int:
    stage = "nothing was sent"
    try:
        async with places.find(wanted, is_command=job.simulator is not None) as place:
            _register(job, place)
            async with client.EmsClient(place.access, notice=shell.say) as ems:
                stage = ""
                if place.own:
                    await _say_what_goes_on(ems, place.server)
                return await _send(ems, job, place)
    except asyncio.CancelledError:
        if stage:
            shell.say(f"interrupted; {stage}")
        raise


def _register(job: Job, place: places.Place) -> None:
    """Gives the orchestrator the command line. Raises exits.Misused if it isn't one of this machine."""
    if job.simulator is None:
        return
    if place.data_dir is None:
        raise exits.Misused(
            "the command can't get there: the server is no platform of `ems up` on this machine. Its orchestrator runs "
            "the simulators that it knows; a plan can name one (simulator: NAME)"
        )
    registry.add(place.data_dir / "orchestrator", job.simulator)


async def _say_what_goes_on(ems: client.EmsClient, server: str) -> None:
    """Names the experiments that a new platform continues. `server` is what other commands need to find it."""
    async with contextlib.aclosing(ems.experiments(state=ExperimentState.RUNNING)) as listed:
        async for status in listed:
            experiment_id = status["experiment_id"]
            ended = f"{statuses.ended(status):,} of {status['total']:,} jobs ended"
            shell.say(f"also goes on: {experiment_id}, {ended}; to end it: ems cancel{server} {experiment_id}")


async def _send(ems: client.EmsClient, job: Job, place: places.Place) -> int:
    ack = await ems.publish(job.message.data, content_type=job.message.content_type)
    try:
        decision = await ems.decision(ack.seq, _DECISION_SECONDS)
    except (errors.NoAnswer, asyncio.CancelledError) as cause:
        again = f"the next `ems up{place.flags}` runs it" if place.own else "it will run when a worker starts"
        shell.say(f"the plan is stored ({ack.stream} {ack.seq}), but no worker has answered; {again}")
        if isinstance(cause, asyncio.CancelledError):
            raise
        return exits.Exit.TIMED_OUT
    if job.json:
        shell.out_json(decision)
    if decision["decision"] == "rejected" or not job.json:
        publish.show_decision(decision, job.file, job.message, job.reported)
    if decision["decision"] == "rejected":
        return exits.Exit.INVALID_PLAN
    experiment_id = decision["experiment_id"]
    status = await follow.followed(ems, experiment_id, functools.partial(_goes_on, experiment_id, place))
    try:
        await _show(ems, status, job, place)
    except asyncio.CancelledError:
        shell.say(f"{experiment_id} has ended; its results: {_later(experiment_id, place)}")
        raise
    return exits.Exit.OK if status["state"] == "completed" else exits.Exit.FAILED


def _goes_on(experiment_id: str, place: places.Place, status: dict[str, Any]) -> str:
    """What goes on after a signal, and what ends it."""
    ended = f", {statuses.ended(status):,} of {status['total']:,} jobs ended" if status else ""
    if place.own:
        how = f"it goes on with the next `ems up{place.flags}`; `ems cancel {experiment_id}` then ends it"
    else:
        how = (
            f"it goes on; follow it with: ems watch{place.flags} {experiment_id}; "
            f"end it with: ems cancel{place.flags} {experiment_id}"
        )
    return f"{experiment_id}{ended}: {how}"


async def _show(ems: client.EmsClient, status: dict[str, Any], job: Job, place: places.Place) -> None:
    """Prints the outcome and the table, and writes the file of results."""
    experiment_id = status["experiment_id"]
    details = await ems.get(experiment_id)
    if job.json:
        shell.out_json(status)
    else:
        statuses.show_summary(status)
        await failures.show(ems, status)
        views.points(await views.points_of(ems, details), details)
        shell.out("")
    file = job.output or Path(f"{experiment_id}.csv")
    kind = Format.JSONL if file.suffix == ".jsonl" else Format.CSV
    reported = _Reported(set(), set())
    async with contextlib.aclosing(ems.jobs(experiment_id)) as jobs:
        count = await export.write(reported.of(jobs), details, kind, file)
    shell.say(f"results   {file} ({numbers.counted(count, 'job')})")
    if job.simulator is not None and place.data_dir is not None:
        entry = place.data_dir / "orchestrator" / registry.DIRECTORY / job.simulator.name
        shell.say(f"version   {job.simulator.model_version}{_git(job.simulator)}")
        shell.say(f"program   {_near(entry)}")
    for note in reported.notes(details):
        shell.say(note)
    shell.say(f"later     {_later(experiment_id, place)}")


def _later(experiment_id: str, place: places.Place) -> str:
    """How to see the results again."""
    if place.own:
        return f"`ems up{place.flags}`, then ems show {experiment_id}"
    return f"ems show{place.flags} {experiment_id}"


@dataclass(frozen=True, slots=True)
class _Reported:
    """The names of the metrics that jobs report, and the versions of the program that computed them."""

    metrics: set[str]
    versions: set[str]

    async def of(self, jobs: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """The same jobs, whose names and versions are collected."""
        async for job in jobs:
            if len(self.metrics) < _MAX_NAMES:
                self.metrics.update(job["metrics"] or ())
            if job["model_version"] and len(self.versions) < _MAX_NAMES:
                self.versions.add(job["model_version"])
            yield job

    def notes(self, details: dict[str, Any]) -> list[str]:
        """What is worth a look."""
        notes = []
        if self.metrics and not details["metrics"]:
            names = ", ".join(sorted(self.metrics)[:_MAX_NAMES])
            notes.append(f"metrics   {names}; --metric NAME shows means")
        if len(self.versions) > 1:
            notes.append("warning: the program changed while it ran; the column model_version tells the runs apart")
        return notes


def _git(simulator: registry.Simulator) -> str:
    git = simulator.origin.git
    if git is None:
        return ""
    return f" (git {git.commit[:7]}{'' if git.dirty is None else ' and changes'})"


def _near(path: Path) -> Path:
    """The path from the working directory, if it is below it."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
