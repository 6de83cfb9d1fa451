"""Implements `ems up`: a platform on this machine that runs until a signal stops it."""

import contextlib
import dataclasses
import json
import shlex
from pathlib import Path

from ems_worker import settings
from ems_worker.local import checking, platform, ports, remembered, stopping
from ems_worker.local.orchestrator import command
from ems_worker.terminal import streams

_EXAMPLE = Path("examples/reef_heat.yaml")


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
    model_version: str | None = None,
    config_format: str = "yaml",
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
    orchestrator listens on a Unix socket. Without `simulator` it is that of the last start in the same directory; if
    it is empty, the built-in one. Raises PlatformFailed if a part can't be started, SettingsError if the command line
    of the simulator can't work.
    """
    if simulator is None:
        last = remembered.read(data_dir)
        simulator, model_version, config_format = last.simulator, last.model_version, last.config_format or "yaml"
        if simulator:
            streams.say("continuing with the simulator of the last start; --simulator '' is for the built-in one")
    if simulator:
        checking.checked(simulator, "--simulator")
    runs = remembered.Simulator(simulator, model_version, config_format)
    options = platform.Options(
        data_dir=data_dir,
        slots=slots,
        simulator=simulator or None,
        model_version=model_version,
        config_format=config_format if simulator else None,
        nats_port=nats_port,
        orchestrator_port=orchestrator_port,
        http_port=http_port,
        base_config_root=base_config_root,
        secured=secured,
    )
    stopping.run_until_signal(lambda: _up(options, preferred, runs, json_output))
    return 0


async def _up(
    options: platform.Options, preferred: PreferredPorts, runs: remembered.Simulator, json_output: bool
) -> int:
    async with contextlib.AsyncExitStack() as stack:
        async with ports.reserved():
            options = with_ports(options, preferred)
            running = await stack.enter_async_context(platform.Platform(options, streams.say))
            remembered.write(options.data_dir, runs)
        if json_output:
            streams.out_json(dataclasses.asdict(running.addresses))
        else:
            streams.out(welcome(running.addresses))
        try:
            await running.watch()
        finally:
            streams.say("stopping")
    return 0


def with_ports(options: platform.Options, preferred: PreferredPorts = PreferredPorts()) -> platform.Options:
    """The options with ports: the preferred ones where none is given and they are free."""
    return dataclasses.replace(
        options,
        nats_port=options.nats_port or ports.prefer(preferred.nats),
        http_port=options.http_port or ports.prefer(preferred.http),
    )


def welcome(addresses: platform.Addresses, *, stop: str = "Ctrl-C") -> str:
    """What people need to know of a platform that is ready. `stop` is what stops it."""
    found_by_default = addresses.nats_url.endswith(f":{settings.DEFAULT_NATS_PORT}")
    server = "" if found_by_default else f" --server {addresses.nats_url}"
    slots = f"{addresses.slots:,} at once" if addresses.slots > 1 else "one at a time"
    return (
        f"simulator     {addresses.simulator or 'the built-in fish (your own: --simulator COMMAND)'}, {slots}\n"
        f"NATS          {addresses.nats_url}\n"
        f"credentials   {addresses.context} (nats --context FILE; our own commands find it themselves)\n"
        f"orchestrator  {addresses.orchestrator}\n"
        f"worker        {addresses.http}/readyz, /healthz, /metrics\n"
        f"manifest      {addresses.manifest}\n"
        f"logs          {addresses.data_dir}/logs\n"
        f"{_example(addresses.simulator, server)}\n"
        f"{stop} stops everything; the next start continues."
    )


def _example(simulator: str, server: str) -> str:
    """A command that the simulator understands."""
    run = "Run your own program: ems run"
    if not simulator:
        # Present in a checkout, not in an installed package.
        fish = f"Publish a plan: ems submit{server} {_EXAMPLE} --wait\n" if _EXAMPLE.is_file() else ""
        return f"{fish}{run}{server} 'python train.py --lr {{lr}}' lr=0.1,0.01"
    names = command.Command.parse(simulator).parameters
    if not names:
        return f"Publish a plan: ems submit{server} plan.yaml --wait"
    plan = {
        "name": "first",
        "base_config": {},
        "allow_new_paths": True,
        "parameters": {name: [1, 2] for name in names},
    }
    return f"Publish a plan, such as: echo {shlex.quote(json.dumps(plan))} | ems submit{server} - --wait"
