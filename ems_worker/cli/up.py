"""`ems up` and `ems down`: a whole platform on this machine."""

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import exits, numbers, shell
from ems_worker.cli.formats import ConfigFormat

if TYPE_CHECKING:
    from ems_worker.settings import running

_DIRECTORY = "ems-data"
_INSTALL_LOCAL = "pip install 'ems-worker[local]'"


def _port(default: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=1, max=65535, metavar="PORT", help=default)
    return option


@shell.guarded
def up(
    *,
    data_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Directory of the broker's store, the manifest and the logs.")
    ] = _DIRECTORY,
    json: Annotated[
        bool, typer.Option("--json", help="When everything is ready, print the addresses as one line of JSON.")
    ] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Simulations at once. Default: the number of cores.")
    ] = None,
    simulator: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Your simulator, such as 'python train.py {args} --seed {seed}'; see docs/orchestrator.md. Default: a "
            "small fish simulator.",
        ),
    ] = None,
    model_version: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Version of your simulator, recorded with each run.")
    ] = None,
    config_format: Annotated[
        ConfigFormat, typer.Option(help="Format of the file {config} of your simulator.")
    ] = ConfigFormat.YAML,
    background: Annotated[
        bool, typer.Option("--detach", "-d", help="Run it in the background; `ems down` stops it.")
    ] = False,
    nats_port: Annotated[int | None, _port("Default: 4222, or a free port if that is taken.")] = None,
    orchestrator_port: Annotated[
        int | None, _port("Serve the orchestrator on TCP, with a token. Default: a Unix socket.")
    ] = None,
    http_port: Annotated[int | None, _port("Default: 8080, or a free port if that is taken.")] = None,
    base_config_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of base files that plans may name instead of sending."),
    ] = None,
    secured: Annotated[
        bool, typer.Option("--secured", help="NATS with TLS, nkeys and a user for each role; see docs/security.md.")
    ] = False,
) -> exits.Exit | int:
    """Run a whole platform on this machine.

    Starts a nats-server, an orchestrator with a small fish simulator, and the worker, and stops them on Ctrl-C. The
    next start with the same directory continues where this one stopped.
    """
    if not data_dir:
        raise exits.Misused("--data-dir should not be empty")
    if simulator is None and model_version is not None:
        raise exits.Misused("--model-version is that of your own simulator: give --simulator COMMAND")
    _require_local()
    from ems_worker.local import up as platform

    options: dict[str, Any] = {
        "slots": slots,
        "simulator": simulator,
        "model_version": model_version,
        "config_format": None if config_format is ConfigFormat.YAML else config_format.value,
        "nats_port": nats_port,
        "orchestrator_port": orchestrator_port,
        "http_port": http_port,
        "base_config_root": base_config_root,
        "secured": secured or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    already = _already(Path(data_dir))
    if already and (given or not background):
        raise exits.Misused(already)
    if background:
        return _in_background(Path(data_dir), given, running_already=already, json=json)
    return platform.run(data_dir=Path(data_dir), json_output=json, **given)


@shell.guarded
def down(
    *,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Directory of the platform. Default: ems-data, or the only one.")
    ] = None,
    json: shell.Json = False,
) -> exits.Exit:
    """Stop the platform of `ems up`.

    What it ran is started again by the next `ems up` with the same directory.
    """
    _require_local()
    from ems_worker.local import background

    found = _running(data_dir)
    left = background.stop(found)
    where = _flag(found.data_dir)
    if json:
        shell.out_json({"data_dir": found.data_dir, "continues": left})
    elif left:
        shell.out(f"stopped; {numbers.counted(left, 'run')} will go on with the next `ems up{where}`")
    else:
        shell.out(f"stopped; `ems up{where}` continues with everything that is in {found.data_dir}")
    return exits.Exit.OK


def _already(data_dir: Path) -> str:
    """That a platform runs in this directory, and what stops it; empty if none does."""
    from ems_worker.settings import running

    found = running.of_directory(data_dir, os.environ)
    if found is None:
        return ""
    return f"a platform runs in {data_dir} already, at {found.url}; `ems down{_flag(found.data_dir)}` stops it"


def _in_background(data_dir: Path, options: dict[str, Any], *, running_already: str, json: bool) -> exits.Exit:
    from ems_worker.local import background
    from ems_worker.local import up as platform

    if simulator := options.get("simulator"):
        from ems_worker.local import checking

        checking.checked(simulator, "--simulator")
    if running_already:
        shell.say(running_already)
        return exits.Exit.OK
    flags = [f"--data-dir={data_dir}"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        flags.append(flag if value is True else f"{flag}={value}")
    addresses = background.start(data_dir, flags)
    if json:
        shell.out_json(dataclasses.asdict(addresses))
    else:
        shell.out(platform.welcome(addresses, stop=f"`ems down{_flag(str(data_dir.resolve()))}`"))
    return exits.Exit.OK


def _running(data_dir: str | None) -> "running.Platform":
    """The platform in this directory, else in the usual one, else the only one of this user."""
    from ems_worker.settings import running

    found = running.of_directory(Path(data_dir or _DIRECTORY), os.environ)
    if found is not None:
        return found
    others = list(running.platforms(os.environ))
    if data_dir is None and len(others) == 1:
        return others[0]
    known = ", ".join(sorted(other.data_dir or other.url for other in others))
    choose = f"; running: {known}: give --data-dir" if known else ""
    raise errors.NotFound(f"no platform runs in {data_dir or _DIRECTORY}{choose}")


def _flag(data_dir: str | None) -> str:
    """What other commands need to find the directory."""
    usual = data_dir is None or data_dir == str(Path(_DIRECTORY).resolve())
    return "" if usual else f" --data-dir {shlex.quote(str(data_dir))}"


def _require_local() -> None:
    try:
        import ems_worker.local.up  # noqa: F401
    except ModuleNotFoundError as missing:
        raise exits.Misused(f"the local platform is not installed ({missing.name}): {_INSTALL_LOCAL}") from missing
