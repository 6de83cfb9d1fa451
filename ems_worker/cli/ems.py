"""`ems`: looks at experiments, brings their results out, checks plans, starts a platform on this machine."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import exits, follow, shell
from ems_worker.cli.export import Format
from ems_worker.core.experiment import ExperimentState

if TYPE_CHECKING:
    from ems_worker import client

app = shell.app("Experiments: what runs, how it goes, what came out.", no_args_is_help=True)

Experiment = Annotated[str, typer.Argument(metavar="ID", help="The experiment's id.")]
Timeout = Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="Give up after this long.")]


@app.callback()
def ems(version: shell.Version = False) -> None:
    """Experiments: what runs, how it goes, what came out."""


@app.command("ls")
@shell.guarded
def list_(
    group: Annotated[str | None, typer.Option(help="Only experiments of this group.")] = None,
    state: Annotated[ExperimentState | None, typer.Option(help="Only experiments in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 50,
    json: shell.Json = False,
    server: shell.Server = None,
) -> exits.Exit:
    """Lists experiments, the newest first."""
    from ems_worker.cli import views

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        rows = []
        async with contextlib.aclosing(ems.experiments(group=group, state=state)) as found:
            async for one in found:
                if json:
                    shell.out_json(one)
                rows.append(one)
                if len(rows) == limit:
                    break
        if not json:
            views.experiments(rows)
        return exits.Exit.OK

    return _asked(server, ask)


@app.command()
@shell.guarded
def show(experiment_id: Experiment, json: shell.Json = False, server: shell.Server = None) -> exits.Exit:
    """Shows an experiment and its points.

    The best points come first where a tracked metric has a goal.
    """
    from ems_worker.cli import views

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        details = await ems.get(experiment_id)
        if json:
            shell.out_json(details)
            return exits.Exit.OK
        views.details_of(details)
        await views.points_of(ems, details)
        return exits.Exit.OK

    return _asked(server, ask)


@app.command()
@shell.guarded
def watch(
    experiment_id: Experiment, json: shell.Json = False, server: shell.Server = None, timeout: Timeout = None
) -> exits.Exit:
    """Follows an experiment to its end.

    The exit code is 0 if it completed and 1 if not. With --json each status is printed, one a line.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        return await follow.to_the_end(ems, experiment_id, json=json, each=True, timeout=timeout)

    return _asked(server, ask)


@app.command()
@shell.guarded
def export(
    experiment_id: Experiment,
    kind: Annotated[Format, typer.Option("--format", help="How rows are written.")] = Format.CSV,
    attempts: Annotated[bool, typer.Option("--attempts", help="Every attempt, not only the one that counts.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to. Default: stdout.")
    ] = None,
    server: shell.Server = None,
) -> exits.Exit:
    """Writes the jobs as CSV or JSON lines.

    One line a job: ids, seed, state, param.*, metric.*, label.*, error, times, artifacts.
    """
    from ems_worker.cli import export as exports

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        details = await ems.get(experiment_id)
        async with contextlib.aclosing(ems.jobs(experiment_id, attempts=attempts)) as jobs:
            count = await exports.write(jobs, details, kind, output)
        if output is not None:
            shell.say(f"{count:,} {'attempts' if attempts else 'jobs'} in {output}")
        return exits.Exit.OK

    return _asked(server, ask)


@app.command()
@shell.guarded
def validate(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The plan, YAML or JSON; - for standard input.")],
    json: shell.Json = False,
) -> exits.Exit:
    """Checks a plan, without any server.

    The rules are the worker's own. With --json the decision document is printed.
    """
    from ems_worker.cli import dry_run, plans, validation

    file = plans.read(plan)
    checked = validation.validated(file, json=json)
    if checked is None:
        return exits.Exit.INVALID_PLAN
    if json:
        shell.out_json(validation.decision(checked))
    else:
        shell.out(f"{file.name} is valid: {dry_run.size(checked.count, checked.plan.replicates)}")
    return exits.Exit.OK


@app.command()
@shell.guarded
def config(
    simulation_id: Annotated[str, typer.Argument(metavar="SIMULATION_ID", help="The run's id.")],
    server: shell.Server = None,
) -> exits.Exit:
    """Prints the exact configuration of a run.

    It is checked against the digest that was recorded when the run was submitted.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        found = await ems.config(simulation_id)
        if found.config_sha is not None and found.config_sha != found.computed_sha:
            shell.say(
                f"error: this is not what {simulation_id} got: its configuration had the digest {found.config_sha}, "
                f"made from the plan now it has {found.computed_sha}"
            )
            return exits.Exit.FAILED
        if found.config_sha is None:
            shell.say(f"{simulation_id} has not been submitted yet; it will get:")
        sys.stdout.buffer.write(found.content.encode())
        return exits.Exit.OK

    return _asked(server, ask)


def _asked(server: str | None, ask: "Callable[[client.EmsClient], Awaitable[exits.Exit]]") -> exits.Exit:
    """Connects, asks, and closes the connection."""
    from ems_worker import client

    servers = shell.servers(server)

    async def connected() -> exits.Exit:
        async with client.EmsClient(servers, notice=shell.say) as ems:
            return await ask(ems)

    return asyncio.run(connected())


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
