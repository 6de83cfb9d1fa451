"""What `ems up` does: a platform on this machine that stays up until it is told to stop."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ems_worker import errors
from ems_worker.local import platform, ports
from ems_worker.local.orchestrator import simulation
from ems_worker.terminal import streams

# Where ems-publish, ems and ems-worker look when nothing is said.
_NATS_PORT, _HTTP_PORT = 4222, 8080
_INTERRUPTED = 130


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
) -> int:
    """Runs a platform until SIGINT, SIGTERM or SIGHUP; the exit code, 0 after an orderly stop.

    With `json_output` the first line on stdout, once all is ready, is the addresses as a JSON object. Ports that
    aren't given are the usual ones where they are free; without `orchestrator_port` the orchestrator has a Unix socket.
    Raises PlatformFailed where a part can't be started, and
    SettingsError where the simulator can't.
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
    until_told(_up(options, json_output))
    return 0


def until_told(work: Coroutine[Any, Any, int]) -> int | None:
    """Runs the work until its end, its result, or until a signal ends it: None. A second signal ends all at once."""
    return asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, int]) -> int | None:
    task = asyncio.create_task(work)
    told = False

    def heard() -> None:
        nonlocal told
        if told:
            os._exit(_INTERRUPTED)  # the guardian ends what is left
        told = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, heard)
    try:
        return await task
    except asyncio.CancelledError:
        if not told:
            raise
        return None


async def _up(options: platform.Options, json_output: bool) -> int:
    async with contextlib.AsyncExitStack() as stack:
        async with ports.turn():
            here = await stack.enter_async_context(platform.Platform(_with_ports(options), streams.say))
        if json_output:
            streams.out_json(dataclasses.asdict(here.addresses))
        else:
            streams.out(_welcome(here.addresses))
        try:
            await here.watch()
        finally:
            streams.say("stopping")
    return 0


def _check_simulator(command: str) -> None:
    """Every run would fail by what is said here at once. Raises SettingsError."""
    try:
        program = simulation.Command.parse(command).words[0]
    except ValueError as wrong:
        raise errors.SettingsError(f"--simulator {command!r}: {wrong}") from wrong
    if "{" not in program and shutil.which(program) is None:
        raise errors.SettingsError(f"--simulator: there is no program {program!r} that can be executed")


def _with_ports(options: platform.Options) -> platform.Options:
    return dataclasses.replace(
        options,
        nats_port=options.nats_port or ports.prefer(_NATS_PORT),
        http_port=options.http_port or ports.prefer(_HTTP_PORT),
    )


def _welcome(addresses: platform.Addresses) -> str:
    server = "" if addresses.nats_url.endswith(f":{_NATS_PORT}") else f" --server {addresses.nats_url}"
    return (
        f"NATS          {addresses.nats_url}\n"
        f"credentials   {addresses.context} (nats --context FILE; our own commands find them)\n"
        f"orchestrator  {addresses.orchestrator}\n"
        f"worker        {addresses.http}/readyz, /healthz, /metrics\n"
        f"manifest      {addresses.manifest}\n"
        f"logs          {addresses.data_dir}/logs\n"
        f"Publish a plan: ems-publish{server} examples/reef_heat.yaml --wait\n"
        "Ctrl-C stops everything."
    )
