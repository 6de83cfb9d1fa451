"""`ems-worker`: runs the worker, checks its health, shows its settings, copies its manifest."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ems_worker import settings
from ems_worker.cli import exits, groups, numbers, shell

# How long connecting to NATS may take.
_PROVISION_SECONDS = 10.0

_ABOUT = "The worker: receives plans over NATS, starts their runs over gRPC, records everything."

app = shell.app(_ABOUT, no_args_is_help=True, cls=groups.group({"config": "settings"}))

File = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A TOML file of settings. The environment and flags override it."),
]


@app.callback(help=_ABOUT)
def worker(version: shell.Version = False) -> None:
    """Handles the options that come before any command."""


def _with_settings(command: Callable[..., exits.Exit | int]) -> Callable[..., exits.Exit | int]:
    """Adds a flag for each setting. The command gets them as keyword arguments, None if not given.

    The flags are derived from the settings, so that none can be forgotten. Secrets have no flag, as every user of the
    machine can read a process's arguments.
    """
    flags = [_flag(setting) for setting in settings.describe() if not setting.is_secret]

    @functools.wraps(command)
    def wrapped(**given: Any) -> exits.Exit | int:
        return command(**given)

    parameters = inspect.signature(command).parameters.values()
    own = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    options = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *flags]]
    # Typer reads a command's options from these.
    wrapped.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # functions may have one
    wrapped.__annotations__ = {option.name: option.annotation for option in options}
    return wrapped


def _flag(setting: settings.Description) -> inspect.Parameter:
    default = f" [default: {setting.default}]" if setting.default else ""
    kind: Any = bool if setting.is_switch else str
    names = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}" if setting.is_switch else setting.flag
    metavar = None if setting.is_switch else setting.unit.upper() or "VALUE"
    option = typer.Option(names, metavar=metavar, help=f"{setting.description}{default}", show_default=False)
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


@app.command()
@shell.guarded
@_with_settings
def run(config: File = None, **flags: Any) -> exits.Exit | int:
    """Run the worker until SIGTERM or SIGINT."""
    loaded, _ = settings.load(flags, os.environ, config)
    # gRPC reads this when it is imported. Its core would write lines of text into the log, which is JSON; the errors of
    # calls contain the same information.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from ems_worker import daemon

    return daemon.run(loaded)


@app.command()
@shell.guarded
@_with_settings
def health(config: File = None, json: shell.Json = False, **flags: Any) -> exits.Exit:
    """Check whether the running worker is healthy.

    The exit code is 0 if it is, and 1 if it isn't or doesn't answer.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    from ems_worker.cli import health as probes

    return probes.ask(loaded.http_address, json=json)


@app.command("settings")
@shell.guarded
@_with_settings
def show(config: File = None, json: shell.Json = False, **flags: Any) -> exits.Exit:
    """Show every setting and the source of its value."""
    loaded, origins = settings.load(flags, os.environ, config)
    rows = [
        (setting, settings.shown(getattr(loaded, setting.name)), origins[setting.name])
        for setting in settings.describe()
    ]
    if json:
        for setting, value, origin in rows:
            shell.out_json(
                {
                    "name": setting.name,
                    "value": value,
                    "source": origin,
                    "env": setting.env,
                    "flag": setting.flag,
                    "default": setting.default,
                    "unit": setting.unit,
                    "constraint": setting.constraint,
                    "description": setting.description,
                }
            )
        return exits.Exit.OK
    from ems_worker.cli import fitting, tables

    cells = [(setting.name, value or "-", origin, setting.env, _meaning(setting)) for setting, value, origin in rows]
    columns = (
        fitting.Column("setting"),
        fitting.Column("value", cut=20, left=True),
        fitting.Column("from", drop=1),
        fitting.Column("variable", drop=2),
        fitting.Column("meaning", drop=3, cut=40),
    )
    tables.show(columns, cells, instead="--json, or a wider window")
    return exits.Exit.OK


@app.command()
@shell.guarded
@_with_settings
def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to create; it must not exist.")],
    config: File = None,
    json: shell.Json = False,
    **flags: Any,
) -> exits.Exit:
    """Copy the manifest, whether or not the worker is running.

    The copy is checked, and deleted if it is damaged.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    import asyncio

    from ems_worker.adapters.manifest import copies

    contents = asyncio.run(copies.take(loaded.manifest, target))
    if json:
        shell.out_json({"file": str(target), **dataclasses.asdict(contents)})
        return exits.Exit.OK
    shell.out(
        f"{target}: {numbers.counted(contents.experiments, 'experiment')}, {numbers.counted(contents.runs, 'run')}, "
        f"{contents.ended_runs:,} of them ended"
    )
    return exits.Exit.OK


@app.command()
@shell.guarded
@_with_settings
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A copy made by `ems-worker backup`.")],
    config: File = None,
    json: shell.Json = False,
    **flags: Any,
) -> exits.Exit:
    """Replace the manifest with a backup.

    The worker must not be running. Its next start replays the streams from a time before the backup.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    import asyncio
    from datetime import UTC, datetime

    from ems_worker.adapters.manifest import copies

    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    contents, aside = asyncio.run(copies.restore(loaded.manifest, source, at))
    if json:
        shell.out_json(
            {
                "file": str(loaded.manifest),
                **dataclasses.asdict(contents),
                "previous": None if aside is None else str(aside),
            }
        )
        return exits.Exit.OK
    counted = f"{numbers.counted(contents.experiments, 'experiment')}, {numbers.counted(contents.runs, 'run')}"
    shell.out(f"{loaded.manifest}: {counted}")
    if aside is not None:
        shell.say(f"the previous manifest is now {aside}")
    shell.say(
        "the worker's next start catches up from the streams, and pauses experiments whose state it can't determine"
    )
    return exits.Exit.OK


@app.command()
@shell.guarded
@_with_settings
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="Such as 30d, 12h or 2w, since their end.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would be deleted.")] = False,
    json: shell.Json = False,
    config: File = None,
    **flags: Any,
) -> exits.Exit:
    """Remove old experiments and the files of old runs.

    Experiments that ended longer ago are removed for ever by the running worker, after their manifest files
    (EXPERIMENT_ID.manifest.jsonl) are written. Beside the data directory of `ems up`, the directories of old runs are
    deleted too. The setting `retention` does this all the time.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    from ems_worker.cli import prune as pruning
    from ems_worker.settings import fields

    try:
        seconds = fields.seconds(older_than)
    except ValueError as error:
        raise exits.Misused(f"--older-than {older_than}: {error}") from None
    return pruning.run(loaded, seconds, dry_run=dry_run, json=json)


@app.command()
@shell.guarded
@_with_settings
def provision(config: File = None, json: shell.Json = False, **flags: Any) -> exits.Exit:
    """Create missing streams and the object store.

    Run it with an administrator's credentials; the worker itself then needs no right to create streams.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    import asyncio

    from ems_worker.adapters import jetstream

    for name, created in asyncio.run(jetstream.provision(loaded.access, _PROVISION_SECONDS)).items():
        if json:
            shell.out_json({"name": name, "created": created})
        else:
            shell.out(f"{name}: {'created' if created else 'already exists'}")
    return exits.Exit.OK


def _meaning(setting: settings.Description) -> str:
    constraint = f" ({setting.constraint})" if setting.constraint else ""
    return f"{setting.description}{constraint}"


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
