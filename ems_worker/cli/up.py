"""`ems up`: a whole platform on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from ems_worker.cli import exits, shell

_INSTALL_LOCAL = "pip install 'ems-worker[local]'"


def _port(default: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=1, max=65535, metavar="PORT", help=default)
    return option


@shell.guarded
def up(
    *,
    data_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Directory of the broker's store, the manifest and the logs.")
    ] = "ems-data",
    json: Annotated[
        bool, typer.Option("--json", help="When everything is ready, print the addresses as one line of JSON.")
    ] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Simulations at once. Default: the number of cores.")
    ] = None,
    simulator: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Your simulator; see docs/orchestrator.md. Default: a small fish simulator."
        ),
    ] = None,
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
