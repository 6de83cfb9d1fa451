"""`ems-worker`: runs the worker, asks how it is, or shows what it would run with."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ems_worker import settings
from ems_worker.cli import exits, shell

# How long a NATS server may take to let us in.
_PROVISION_SECONDS = 10.0

app = shell.app("The worker: plans in over NATS, runs out over gRPC, every one recorded.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML, under the environment and flags.")
]


@app.callback()
def worker(version: shell.Version = False) -> None:
    """The worker: plans in over NATS, runs out over gRPC, every one recorded."""


def _with_settings(command: Callable[..., exits.Exit | int]) -> Callable[..., exits.Exit | int]:
    """Adds a flag for each setting; they come as keyword arguments, None where not given.

    Made from the settings themselves, so that a setting can't be without its flag; but for secrets: everybody on the
    machine sees a process's flags.
    """
    flags = [_flag(setting) for setting in settings.describe() if not setting.is_secret]

    @functools.wraps(command)
    def wrapped(**given: Any) -> exits.Exit | int:
        return command(**given)

    own = [one for one in inspect.signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
    every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in [*own, *flags]]
    # What typer reads a command's options from.
    wrapped.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # functions may have one
    wrapped.__annotations__ = {one.name: one.annotation for one in every}
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
    """Runs the worker until SIGTERM or SIGINT."""
    loaded, _ = settings.load(flags, os.environ, config)
    # Read by gRPC when it is imported: its core would write lines of its own into the log, which is JSON. What they say
    # of connections, the errors of calls say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from ems_worker import daemon

    return daemon.run(loaded)


@app.command()
@shell.guarded
@_with_settings
def health(config: File = None, **flags: Any) -> exits.Exit:
    """Asks the running worker whether it is healthy; 0: it is, 1: it isn't, or doesn't answer."""
    loaded, _ = settings.load(flags, os.environ, config)
    from ems_worker.cli import health as asking

    return asking.ask(loaded.http_address)


@app.command("config")
@shell.guarded
@_with_settings
def show(config: File = None, json: shell.Json = False, **flags: Any) -> exits.Exit:
    """Shows every setting, and where its value comes from."""
    loaded, origins = settings.load(flags, os.environ, config)
    rows = [(one, settings.shown(getattr(loaded, one.name)), origins[one.name]) for one in settings.describe()]
    if json:
        for one, value, origin in rows:
            shell.out_json(
                {
                    "name": one.name,
                    "value": value,
                    "source": origin,
                    "env": one.env,
                    "flag": one.flag,
                    "default": one.default,
                    "unit": one.unit,
                    "constraint": one.constraint,
                    "description": one.description,
                }
            )
        return exits.Exit.OK
    from ems_worker.cli import tables

    cells = [(one.name, value or "-", origin, one.env, _meaning(one)) for one, value, origin in rows]
    tables.show(("setting", "value", "from", "variable", "meaning"), cells)
    return exits.Exit.OK


@app.command()
@shell.guarded
@_with_settings
def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to make; it must not exist.")],
    config: File = None,
    **flags: Any,
) -> exits.Exit:
    """Copies the manifest, checked, while the worker runs or not."""
    loaded, _ = settings.load(flags, os.environ, config)
    import asyncio

    from ems_worker.adapters.manifest import copies

    contents = asyncio.run(copies.take(loaded.manifest, target))
    shell.out(
        f"{target}: {contents.experiments} experiments, {contents.runs} runs, {contents.ended_runs} of them ended"
    )
    return exits.Exit.OK


@app.command()
@shell.guarded
@_with_settings
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `ems-worker backup` made.")],
    config: File = None,
    **flags: Any,
) -> exits.Exit:
    """Puts a backup in the manifest's place; the worker must not be running.

    Its next start replays the streams from before the backup.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    import asyncio
    from datetime import UTC, datetime

    from ems_worker.adapters.manifest import copies

    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    contents, aside = asyncio.run(copies.restore(loaded.manifest, source, at))
    shell.out(f"{loaded.manifest}: {contents.experiments} experiments, {contents.runs} runs")
    if aside is not None:
        shell.say(f"what was there is now {aside}")
    shell.say("the next start of the worker catches up with the streams; experiments that it can't vouch for are held")
    return exits.Exit.OK


@app.command()
@shell.guarded
@_with_settings
def provision(config: File = None, **flags: Any) -> exits.Exit:
    """Makes the streams and the object store that are missing, with an administrator's credentials.

    The worker itself needs no right to make streams then.
    """
    loaded, _ = settings.load(flags, os.environ, config)
    import asyncio

    from ems_worker.adapters import jetstream

    for name, made in asyncio.run(jetstream.provision(loaded.access, _PROVISION_SECONDS)).items():
        shell.out(f"{name}: {'made' if made else 'there already'}")
    return exits.Exit.OK


def _meaning(one: settings.Description) -> str:
    bounds = f" ({one.constraint})" if one.constraint else ""
    return f"{one.description}{bounds}"


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
