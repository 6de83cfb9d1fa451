"""`ems export` and `ems config`: what came out of an experiment, and what a run was given."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import asking, completion, exits, shell
from ems_worker.cli.experiments import Experiment
from ems_worker.cli.formats import Format
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client

Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file. Default: stdout.")
]
Safe = Annotated[
    bool, typer.Option("--safe-for-spreadsheets", help="Put ' before texts that a spreadsheet would run as formulas.")
]


@shell.guarded
def export(
    experiment_id: Experiment,
    *,
    kind: Annotated[Format, typer.Option("--format", help="The output format.")] = Format.CSV,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Write every attempt, not only the one that counts for its job.")
    ] = False,
    output: Output = None,
    safe_for_spreadsheets: Safe = False,
    json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Write an experiment's jobs as CSV or JSON lines.

    Each line is a job: ids, seed, state, param.*, metric.*, label.*, error, times, artifacts.

    Texts are written unchanged. Add --safe-for-spreadsheets if a spreadsheet opens the CSV and its texts come from
    people you don't trust.
    """
    from ems_worker.cli import export as exports

    kind = Format.JSONL if json else kind

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        details = await ems.get(experiment_id)
        async with contextlib.aclosing(ems.jobs(experiment_id, attempts=attempts)) as jobs:
            count = await exports.write(jobs, details, kind, output, safe=safe_for_spreadsheets)
        if output is not None:
            shell.say(f"{count:,} {'attempts' if attempts else 'jobs'} in {output}")
        return exits.Exit.OK

    return asking.run(server, context, ask)


@shell.guarded
def config(
    simulation_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", autocompletion=completion.runs)],
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Print the exact configuration of a run.

    YAML, or with --json one document that has it in `content`. The worker renders it from the plan again. If the result
    differs from the digest that was recorded when the run was submitted, the command fails.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        rendered = await ems.config(simulation_id)
        if rendered.config_sha is not None and rendered.config_sha != rendered.computed_sha:
            shell.say(
                f"error: this is not the configuration that {simulation_id} got: its recorded digest is "
                f"{rendered.config_sha}, and the plan now gives {rendered.computed_sha}"
            )
            return exits.Exit.FAILED
        if rendered.config_sha is None:
            shell.say(f"{simulation_id} has not been submitted yet; this is the configuration that it will get:")
        if json:
            shell.out_json(dataclasses.asdict(rendered))
            return exits.Exit.OK
        streams.out_data(rendered.content.encode())
        return exits.Exit.OK

    return asking.run(server, context, ask)
