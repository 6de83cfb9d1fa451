"""`ems`: looks at experiments, changes them, brings their results out, checks plans, starts a platform here."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import asking, dlq, exits, follow, shell
from ems_worker.cli.export import Format
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client

app = shell.app("Experiments: what runs, how it goes, what came out.", no_args_is_help=True)

app.add_typer(dlq.app, name="dlq")

Experiment = Annotated[str, typer.Argument(metavar="ID", help="The experiment's id.")]
_FREE = "Default: the usual one where it is free."
_Port = Annotated[int | None, typer.Option(min=1, max=65535, metavar="PORT", help=_FREE)]
_INSTALL_LOCAL = "pip install 'ems-worker[local]'"


@app.callback()
def ems(version: shell.Version = False) -> None:
    """Experiments: what runs, how it goes, what came out."""


@app.command("ls")
@shell.guarded
def list_(
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Only experiments of this group.")] = None,
    state: Annotated[ExperimentState | None, typer.Option(help="Only experiments in this state.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="How many, the newest first.")
    ] = 50,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
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

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def show(
    experiment_id: Experiment, json: shell.Json = False, server: shell.Server = None, context: shell.Context = None
) -> exits.Exit:
    """Shows an experiment and its points.

    The best points come first where a tracked metric has a goal.
    """
    from ems_worker.cli import failures, views

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        details = await ems.get(experiment_id)
        if json:
            shell.out_json(details)
            return exits.Exit.OK
        views.details_of(details)
        await failures.tell(ems, details)
        await views.points_of(ems, details)
        return exits.Exit.OK

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def watch(
    experiment_id: Experiment,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="Give up after this long.")] = None,
) -> exits.Exit:
    """Follows an experiment to its end.

    The exit code is 0 if it completed and 1 if not. With --json each status is printed, one a line.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        return await follow.to_the_end(ems, experiment_id, json=json, each=True, timeout=timeout)

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def export(
    experiment_id: Experiment,
    kind: Annotated[Format, typer.Option("--format", help="How rows are written.")] = Format.CSV,
    attempts: Annotated[bool, typer.Option("--attempts", help="Every attempt, not only the one that counts.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to. Default: stdout.")
    ] = None,
    safe_for_spreadsheets: Annotated[
        bool,
        typer.Option("--safe-for-spreadsheets", help="Put ' before texts that a spreadsheet takes for formulas."),
    ] = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Writes the jobs as CSV or JSON lines.

    One line a job: ids, seed, state, param.*, metric.*, label.*, error, times, artifacts. Texts are as they are: give
    --safe-for-spreadsheets where not all of them are yours and a spreadsheet opens the CSV.
    """
    from ems_worker.cli import export as exports

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        details = await ems.get(experiment_id)
        async with contextlib.aclosing(ems.jobs(experiment_id, attempts=attempts)) as jobs:
            count = await exports.write(jobs, details, kind, output, safe=safe_for_spreadsheets)
        if output is not None:
            shell.say(f"{count:,} {'attempts' if attempts else 'jobs'} in {output}")
        return exits.Exit.OK

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def validate(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The plan, YAML or JSON; - for standard input.")],
    json: shell.Json = False,
    allow_files_from: shell.AllowFilesFrom = None,
) -> exits.Exit:
    """Checks a plan, without any server.

    The rules are the worker's own. With --json the decision document is printed. Files are read as ems-publish does.
    """
    from ems_worker.cli import dry_run, plans, validation

    file = plans.read(plan, allow_files_from)
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
    context: shell.Context = None,
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
        streams.out_data(found.content.encode())
        return exits.Exit.OK

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def retry(
    experiment_id: Experiment,
    request_id: asking.RequestId = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Tries failed and lost jobs once more, and those that were cancelled since too many had failed.

    An experiment that has ended opens again, as a new round. Jobs that lack only metrics wait for these again, without
    a new run; infeasible jobs stay as they are.
    """
    return asking.changed("retry", experiment_id, request_id, json, server, context)


@app.command()
@shell.guarded
def resume(
    experiment_id: Experiment,
    request_id: asking.RequestId = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Goes on with an experiment that is paused."""
    return asking.changed("resume", experiment_id, request_id, json, server, context)


@app.command()
@shell.guarded
def schema(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="plan, decision, status, ...; without it: all names.")
    ] = None,
) -> exits.Exit:
    """Prints the JSON Schema (2020-12) of plans, or of a document that the worker sends.

    A document's whole name, like ems.status.v1, is taken too.
    """
    from ems_worker.core.documents import schemas

    if name is None:
        shell.out("\n".join(schemas.names()))
        return exits.Exit.OK
    found = schemas.find(name)
    if found is None:
        raise exits.Misused(f"there is no schema {name!r}; there are {', '.join(schemas.names())}")
    shell.out(schemas.text(found))
    return exits.Exit.OK


@app.command()
@shell.guarded
def up(
    data_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Where everything is kept: the broker's store, the manifest, the logs.")
    ] = "ems-data",
    json: Annotated[
        bool, typer.Option("--json", help="Print the addresses as one line of JSON, once all is ready.")
    ] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Simulations at once. Default: the cores.")
    ] = None,
    simulator: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Your simulator; docs/orchestrator.md. Default: small fish.")
    ] = None,
    nats_port: _Port = None,
    orchestrator_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="TCP, with a token. Default: a Unix socket."),
    ] = None,
    http_port: _Port = None,
    base_config_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Base files that plans may name without sending them.")
    ] = None,
    secured: Annotated[
        bool, typer.Option("--secured", help="NATS with TLS, nkeys, and a user for each role; docs/security.md.")
    ] = False,
) -> exits.Exit | int:
    """Runs a whole platform on this machine.

    A nats-server, an orchestrator with a small fish simulator, and the worker, until Ctrl-C. What they keep is found
    again by the next start in the same directory.
    """
    if not data_dir:
        raise exits.Misused("--data-dir should not be empty")
    try:
        from ems_worker.local import up as platform
    except ModuleNotFoundError as missing:
        raise exits.Misused(f"the local platform is not installed ({missing.name}): {_INSTALL_LOCAL}") from missing
    return platform.run(
        data_dir=Path(data_dir),
        json_output=json,
        slots=slots,
        simulator=simulator,
        nats_port=nats_port,
        orchestrator_port=orchestrator_port,
        http_port=http_port,
        base_config_root=base_config_root,
        secured=secured,
    )


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
