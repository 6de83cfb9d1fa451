"""`ems archive` and `ems rm`: an experiment as one file, and removing it."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import asking, completion, exits, numbers, outputs, shell
from ems_worker.cli.experiments import Experiment
from ems_worker.terminal import streams, text

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]


@shell.guarded
def rm(
    experiment_ids: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...", help="Ids, beginnings of ids, or names.", autocompletion=completion.experiments
        ),
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; recorded and published with the change.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would happen.")] = False,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Remove experiments that have ended, for ever.

    Their runs, results and plans are deleted from the worker; their ids stay taken, so that neither an id nor a plan
    that is sent again brings them back. `ems archive ID` keeps them in a file. Files that their runs have written stay
    with the orchestrator. Asks first; without a terminal, --yes is needed.
    """
    from ems_worker.cli import changed, naming

    if not (yes or dry_run or _can_ask()):
        raise exits.Misused("this removes experiments for ever and there is no terminal to ask at: give --yes")

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        code = exits.Exit.OK
        for name in experiment_ids:
            try:
                experiment_id = await naming.experiment(ems, name)
                # Refused before anybody is asked.
                await ems.remove(experiment_id, dry_run=True)
                if not (yes or dry_run) and not _agreed(await ems.get(experiment_id)):
                    shell.say(f"{experiment_id} was not removed")
                    code = exits.Exit.FAILED
                    continue
                changed.show(await ems.remove(experiment_id, reason=reason, dry_run=dry_run), json=json)
            except (errors.NotFound, errors.RequestRefused) as refused:
                shell.say(f"error: {refused}")
                code = exits.Exit.FAILED
        return code

    return asking.run(server, context, ask)


@shell.guarded
def archive(
    experiment_id: Experiment,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to create. Default: ID.tar.gz."),
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Also the files that the runs have written, from the orchestrator.")
    ] = False,
    json: shell.Json = False,
    orchestrator: outputs.Orchestrator = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Write all about an experiment into a file.

    A .tar.gz with its plan as it was sent, status, points, every attempt, and changes, as YAML or JSON and JSON lines.
    It is complete or not there at all, and never overwrites another file.
    """
    from ems_worker.cli import archiving, naming

    reach = outputs.Reach(orchestrator, server, context)

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        async with contextlib.AsyncExitStack() as stack:
            sent = await stack.enter_async_context(reach.connected()) if files else None
            found = await naming.experiment(ems, experiment_id)
            target = output or Path(f"{found}.tar.gz")
            written = await archiving.write(ems, found, target, sent)
        if json:
            shell.out_json(
                {
                    "experiment_id": found,
                    "file": str(target),
                    "attempts": written.jobs,
                    "files": written.files,
                    "bytes": target.stat().st_size,
                }
            )
            return exits.Exit.OK
        attempts, kept = numbers.counted(written.jobs, "attempt"), numbers.counted(written.files, "file")
        shell.say(f"{target}: {attempts}, {kept}, {_length(target)}")
        return exits.Exit.OK

    return asking.run(server, context, ask)


def _length(file: Path) -> str:
    return numbers.size(file.stat().st_size)


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(details: Document) -> bool:
    jobs = numbers.counted(details["total"], "job")
    return streams.agreed(text.line(f"remove {details['experiment_id']} ({details['state']}, {jobs}) for ever?"))
