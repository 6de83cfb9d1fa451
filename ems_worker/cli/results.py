"""`ems export` and `ems config`: what came out of an experiment, and what a run was given."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import asking, completion, exits, formats, shell
from ems_worker.cli.experiments import Experiment
from ems_worker.cli.formats import ConfigFormat, Format
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run's id, or a job's, whose last attempt it is. The numbers may be short, as in reef-p3-r0, and the "
        "experiment named as elsewhere.",
        autocompletion=completion.runs,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write to this file, in the format of its extension. Default: stdout."
    ),
]
Safe = Annotated[
    bool, typer.Option("--safe-for-spreadsheets", help="Put ' before texts that a spreadsheet would run as formulas.")
]


@shell.guarded
def export(
    experiment_id: Experiment,
    *,
    kind: Annotated[
        Format | None, typer.Option("--format", help="The output format. Default: by the file's extension, else csv.")
    ] = None,
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
    from ems_worker.cli import naming, numbers

    row_format = Format.JSONL if json else formats.of_file(kind, output, Format.CSV)

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        found = await naming.experiment(ems, experiment_id)
        details = await ems.get(found)
        async with contextlib.aclosing(ems.jobs(found, attempts=attempts)) as jobs:
            count = await exports.write(jobs, details, row_format, output, safe=safe_for_spreadsheets)
        if output is not None:
            shell.say(f"{numbers.counted(count, 'attempt' if attempts else 'job')} in {output}")
        return exits.Exit.OK

    return asking.run(server, context, ask)


@shell.guarded
def plan(
    experiment_id: Experiment,
    *,
    version: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="NUMBER", help="1: the plan as accepted; each `ems extend` made another. Default: the last."
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Print the base configuration that was accepted with the plan, as JSON.")
    ] = False,
    output: Output = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Print an experiment's plan as it was sent.

    With --json one document that has it in `content`.
    """
    from ems_worker.cli import export as exports
    from ems_worker.cli import naming

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        found = await naming.experiment(ems, experiment_id)
        text = await ems.plan(found, version=version, part="base" if base else "plan")
        if json:
            shell.out_json({"experiment_id": found, "content": text})
            return exits.Exit.OK
        with exports.target(output) as written:
            written.write(text if text.endswith("\n") else f"{text}\n")
        return exits.Exit.OK

    return asking.run(server, context, ask)


@shell.guarded
def config(
    simulation_id: Run,
    *,
    kind: Annotated[
        ConfigFormat | None,
        typer.Option("--format", help="The output format. Default: by the file's extension, else yaml."),
    ] = None,
    output: Output = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Print the exact configuration of a run.

    YAML, or with --json one document that has it in `content`. The worker renders it from the plan again. If the result
    differs from the digest that was recorded when the run was submitted, the command fails.
    """

    from ems_worker.cli import export as exports
    from ems_worker.cli import naming

    written = formats.of_file(kind, output, ConfigFormat.YAML)

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        rendered = await ems.config(await naming.run(ems, simulation_id))
        run = rendered.simulation_id
        if rendered.config_sha is not None and rendered.config_sha != rendered.computed_sha:
            shell.say(
                f"error: this is not the configuration that {run} got: its recorded digest is {rendered.config_sha}, "
                f"and the plan now gives {rendered.computed_sha}"
            )
            return exits.Exit.FAILED
        if rendered.config_sha is None:
            shell.say(f"{run} has not been submitted yet; this is the configuration that it will get:")
        if json:
            shell.out_json(dataclasses.asdict(rendered))
            return exits.Exit.OK
        content = rendered.content if written is ConfigFormat.YAML else _as_json(rendered.content)
        if output is None:
            streams.out_data(content.encode())
        else:
            exports.text(content, output)
            shell.say(f"the configuration of {run} in {output}")
        return exits.Exit.OK

    return asking.run(server, context, ask)


def _as_json(content: str) -> str:
    """A configuration in YAML as JSON."""
    import json

    from ems_worker.adapters import yaml_reader

    return json.dumps(yaml_reader.read_base(content.encode()).data, ensure_ascii=False, indent=2) + "\n"
