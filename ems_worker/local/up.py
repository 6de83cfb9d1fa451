"""Implements `ems up`: a platform on this machine that runs until a signal stops it."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ems_worker import errors, settings
from ems_worker.local import platform, ports
from ems_worker.local.orchestrator import simulation
from ems_worker.terminal import streams

_INTERRUPTED = 130


@dataclasses.dataclass(frozen=True, slots=True)
class PreferredPorts:
    """The ports to use if they are free: by default those at which ems-publish, ems and ems-worker look."""

    nats: int = settings.DEFAULT_NATS_PORT
    http: int = settings.DEFAULT_HTTP_PORT


def run(
    *,
    data_dir: Path,
    json_output: bool = False,
    slots: int | None = None,
    simulator: str | None = None,
    nats_port: int | None = None,
    orchestrator_port: int | None = None,
    http_port: int | None = None,
    base_config_root: Path | None = None,
    secured: bool = False,
    preferred: PreferredPorts = PreferredPorts(),
) -> int:
    """Runs a platform until SIGINT, SIGTERM or SIGHUP; returns 0 after an orderly stop.

    With `json_output`, the first line on stdout is a JSON object with the addresses, printed when everything is ready.
    A port that isn't given is the preferred one, or any free port if that is taken. Without `orchestrator_port` the
    orchestrator listens on a Unix socket. Raises PlatformFailed if a part can't be started, SettingsError if the
    command line of the simulator can't work.
    """
    if simulator is not None:
        _check_simulator(simulator)
    options = platform.Options(
        data_dir=data_dir,
        slots=slots,
        simulator=simulator,
        nats_port=nats_port,
        orchestrator_port=orchestrator_port,
        http_port=http_port,
        base_config_root=base_config_root,
        secured=secured,
    )
    run_until_signal(_up(options, preferred, json_output))
    return 0


def run_until_signal(work: Coroutine[Any, Any, int]) -> int | None:
    """Runs the work; its result, or None if a signal stopped it. A second signal ends the process at once."""
    return asyncio.run(_run_until_signal(work))


async def _run_until_signal(work: Coroutine[Any, Any, int]) -> int | None:
    task = asyncio.create_task(work)
    signalled = False

    def on_signal() -> None:
        nonlocal signalled
        if signalled:
            os._exit(_INTERRUPTED)  # the guardian ends the remaining processes
        signalled = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        if not signalled:
            raise
        return None


async def _up(options: platform.Options, preferred: PreferredPorts, json_output: bool) -> int:
    async with contextlib.AsyncExitStack() as stack:
        async with ports.reserved():
            options = _with_ports(options, preferred)
            running = await stack.enter_async_context(platform.Platform(options, streams.say))
        if json_output:
            streams.out_json(dataclasses.asdict(running.addresses))
        else:
            streams.out(_welcome(running.addresses))
        try:
            await running.watch()
        finally:
            streams.say("stopping")
    return 0


def _check_simulator(command: str) -> None:
    """Raises SettingsError for a command line with which every run would fail."""
    try:
        program = simulation.Command.parse(command).arguments[0]
    except ValueError as error:
        raise errors.SettingsError(f"--simulator {command!r}: {error}") from error
    if "{" not in program and shutil.which(program) is None:
        raise errors.SettingsError(f"--simulator: there is no executable program {program!r}")


def _with_ports(options: platform.Options, preferred: PreferredPorts) -> platform.Options:
    return dataclasses.replace(
        options,
        nats_port=options.nats_port or ports.prefer(preferred.nats),
        http_port=options.http_port or ports.prefer(preferred.http),
    )


def _welcome(addresses: platform.Addresses) -> str:
    found_by_default = addresses.nats_url.endswith(f":{settings.DEFAULT_NATS_PORT}")
    server = "" if found_by_default else f" --server {addresses.nats_url}"
    return (
        f"NATS          {addresses.nats_url}\n"
        f"credentials   {addresses.context} (nats --context FILE; our own commands find it themselves)\n"
        f"orchestrator  {addresses.orchestrator}\n"
        f"worker        {addresses.http}/readyz, /healthz, /metrics\n"
        f"manifest      {addresses.manifest}\n"
        f"logs          {addresses.data_dir}/logs\n"
        f"Publish a plan: ems-publish{server} examples/reef_heat.yaml --wait\n"
        "Ctrl-C stops everything; the next start continues."
    )
