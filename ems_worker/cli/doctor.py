"""`ems doctor`: checks everything that an experiment needs, and says what to do about each fault."""

import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker import errors
from ems_worker.cli import exits, numbers, shell

if TYPE_CHECKING:
    from ems_worker.cli.checks.findings import Finding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "bright_black"}
# The columns before what was seen, and before a remedy. Narrower texts than the last are not wrapped.
_SEEN, _REMEDY, _MIN_WIDTH = 23, 6, 20


@shell.guarded
def doctor(
    *,
    simulator: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Check this simulator. Default: that of the platform of `ems up`."),
    ] = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Check everything that an experiment needs.

    Broker, streams, rights, worker, clock, orchestrator, simulator, disk, file system and versions. Each line is ok,
    warn or fail, with what to do; unknown is what can't be checked from here, or not with your rights. Nothing is
    changed.

    The exit code is 0 unless a line says fail.
    """
    import asyncio

    from ems_worker.cli.checks.findings import Verdict

    found = asyncio.run(_examined(server, context, simulator))
    for finding in found:
        if json:
            shell.out_json(finding.document())
        else:
            _show(finding)
    failed, warned = (sum(one.verdict is verdict for one in found) for verdict in (Verdict.FAIL, Verdict.WARN))
    if not json:
        warnings = numbers.counted(warned, "warning")
        parts = [f"{failed} failed" if failed else "all is well", *([warnings] if warned else [])]
        shell.out(", ".join(parts))
    return exits.Exit.FAILED if failed else exits.Exit.OK


async def _examined(server: str | None, context: str | None, simulator: str | None) -> "list[Finding]":
    # gRPC's core would write lines of its own between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import asyncio

    from ems_worker import settings
    from ems_worker.adapters.manifest import opening
    from ems_worker.cli.checks import findings, machine, nats, orchestrator
    from ems_worker.settings import running

    found: list[Finding] = []
    try:
        access = shell.access(server, context)
        loaded, origins = settings.load({"server": server, "context": context}, os.environ)
        platform = running.find(settings.Access(loaded.server), os.environ)
    except errors.SettingsError as error:
        return [findings.failure("settings", "they contradict each other or can't be used", str(error))]
    broker, reached = await asyncio.gather(
        nats.check(access),
        orchestrator.check(None if origins["orchestrator"] == "default" else loaded.channel),
    )
    found += broker.findings
    address = loaded.http_address if origins["http"] != "default" else None
    ready_at = f"{address[0]}:{address[1]}" if address is not None and address[1] else None
    directory = loaded.data_dir
    if platform is not None:
        directory = Path(platform.data_dir) if platform.data_dir is not None else directory
        ready_at = platform.http or ready_at
        simulator = simulator or platform.simulator
    found += [
        machine.health(ready_at),
        reached,
        machine.simulator(
            simulator, None if platform is None or platform.started_in is None else Path(platform.started_in)
        ),
        machine.disk(directory),
        machine.file_system(directory, opening.MOUNTS),
        machine.versions(broker.server_version, broker.worker_version),
    ]
    return found


def _show(finding: "Finding") -> None:
    """Prints a finding. On a terminal, what doesn't fit goes on under its beginning."""
    from ems_worker.terminal import drawing, text

    verdict = finding.verdict.value
    width = drawing.Console(sys.stdout).width if sys.stdout.isatty() else 0
    first, *further = _wrapped(text.line(finding.seen), width - _SEEN)
    drawing.show(sys.stdout, (f"{verdict:7}", _STYLES[verdict]), "  ", (f"{finding.part:12}", "bold"), f"  {first}")
    for line in further:
        shell.out(f"{' ' * _SEEN}{line}")
    for remedy in finding.remedy.splitlines():
        for number, line in enumerate(_wrapped(text.line(remedy), width - _REMEDY)):
            shell.out(f"{'   -> ' if number == 0 else '      '}{line}")


def _wrapped(line: str, width: int) -> list[str]:
    """The line broken between words; as it is without a terminal, or on one that is too narrow for that."""
    if width < _MIN_WIDTH:
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
