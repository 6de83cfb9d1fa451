"""`ems artifacts` and `ems download`: the files that runs have written."""

import contextlib
import fnmatch
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import completion, exits, outputs, shell
from ems_worker.cli.change_options import Where
from ems_worker.cli.results import Run
from ems_worker.core import ids

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.adapters.orchestrator.output import File, Outputs
    from ems_worker.cli.downloading import Downloads

Document = dict[str, Any]


@shell.guarded
def artifacts(
    run: Run,
    *,
    json: shell.Json = False,
    orchestrator: outputs.Orchestrator = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List the files and artifacts of a run.

    The orchestrator is asked for them. If it doesn't offer that, the reported artifacts are listed with their URIs.
    """
    reach = outputs.Reach(orchestrator, server, context)

    async def ask(output: "Outputs") -> exits.Exit:
        name = await reach.run_id(run)
        try:
            files = [file async for file in output.files(name)]
        except errors.NotOffered as missing:
            shell.say(str(missing))
            files = await _reported(reach, name)
        if json:
            for file in files:
                shell.out_json(_document(name, file))
        else:
            _show(name, sorted(files, key=lambda file: file.path or file.uri))
        return exits.Exit.OK

    return reach.run(ask)


@shell.guarded
def download(
    what: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT|RUN",
            help="An experiment: the last attempt of each job; or a run, or a job.",
            autocompletion=completion.experiments,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Only files of this path or artifact name, or pattern such as '*.csv'."),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Put them here, as DIR/RUN/PATH.")
    ] = Path(),
    where: Where = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there and differ. Default: leave them.")
    ] = False,
    json: shell.Json = False,
    orchestrator: outputs.Orchestrator = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Download files that runs have written.

    Files that are there already are not sent again, and a download that was interrupted is continued by the same
    command. With --where, only jobs for which the expression holds.
    """
    reach = outputs.Reach(orchestrator, server, context)

    async def ask(sent: "Outputs") -> exits.Exit:
        from ems_worker.cli.downloading import Downloads

        downloads = Downloads(sent, output, overwrite=overwrite, json=json)
        if ids.parse_simulation_id(what) is not None and where is None:  # the worker isn't needed
            await _download(sent, downloads, what, name)
        else:
            async with reach.client() as ems:
                await _download_named(ems, sent, downloads, what=what, name=name, where=where)
        downloads.report()
        if not downloads.found:
            raise errors.NotFound(f"{what} has no {'files' if name is None else f'file {name!r}'}")
        return exits.Exit.FAILED if downloads.left or downloads.unsafe else exits.Exit.OK

    return reach.run(ask)


async def _download_named(
    ems: "client.EmsClient", sent: "Outputs", downloads: "Downloads", *, what: str, name: str | None, where: str | None
) -> None:
    """Downloads the files of the experiment or run that is meant."""
    from ems_worker.cli import naming

    experiment_id, run = await naming.experiment_or_run(ems, what)
    if run is not None:
        if where is not None:
            raise exits.Misused("--where chooses among the jobs of an experiment: give the experiment's id")
        await _download(sent, downloads, run, name)
        return
    async with contextlib.aclosing(ems.jobs(experiment_id, where=where)) as jobs:
        async for job in jobs:
            if job["submitted_at"] is not None:
                try:
                    await _download(sent, downloads, job["simulation_id"], name)
                except errors.NotFound:
                    downloads.gone += 1


async def _download(sent: "Outputs", downloads: "Downloads", run: str, name: str | None) -> None:
    async with contextlib.aclosing(sent.files(run)) as files:
        async for file in files:
            if name is None or _is_named(file, name):
                await downloads.fetch(run, file)


def _is_named(file: "File", name: str) -> bool:
    names = [each for each in (file.path, file.artifact) if each]
    return name in names or any(fnmatch.fnmatchcase(each, name) for each in (*names, file.path.rpartition("/")[2]))


async def _reported(reach: outputs.Reach, run: str) -> "list[File]":
    """The artifacts of a run as the worker knows them."""
    from ems_worker.adapters.orchestrator.output import File

    parsed = ids.parse_simulation_id(run)
    assert parsed is not None
    async with reach.client() as ems:
        job = await ems.job(parsed.experiment_id, parsed.point, parsed.replicate)
    if job["simulation_id"] != run:
        raise errors.NotFound(f"the worker lists the artifacts of the last attempt only, {job['simulation_id']}")
    return [File("", 0, 0, name, uri) for name, uri in job["artifacts"].items()]


def _show(run: str, files: "list[File]") -> None:
    from ems_worker.cli import tables
    from ems_worker.cli.fitting import Column

    if not files:
        shell.say(f"{run} has no files")
        return
    rows = [
        (
            file.path or file.uri or "-",
            file.size if file.path else "-",
            tables.moment(_moment(file) or "") if file.modified_ns else "-",
            file.artifact or "-",
        )
        for file in files
    ]
    columns = [Column("file"), Column("bytes"), Column("modified", drop=2), Column("artifact", drop=1)]
    tables.show(columns, rows, instead="--json, or a wider window")


def _document(run: str, file: "File") -> Document:
    return {
        "simulation_id": run,
        "path": file.path or None,
        "bytes": file.size if file.path else None,
        "modified_at": _moment(file),
        "artifact": file.artifact or None,
        "uri": file.uri or None,
    }


def _moment(file: "File") -> str | None:
    if not file.modified_ns:
        return None
    try:
        return f"{datetime.fromtimestamp(file.modified_ns / 1e9, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return None
