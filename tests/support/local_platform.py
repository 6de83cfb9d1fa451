"""Runs `ems up` as a process, and provides a small plan for it."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from ems_worker.local import ports
from tests.support import servers, wait

BASE = (servers.ROOT / "examples" / "reef_base.yaml").read_text()


@dataclasses.dataclass
class Up:
    """A process of `ems up` that is ready."""

    program: servers.Program
    addresses: dict[str, Any]


async def up(
    directory: Path,
    *,
    preferred: tuple[int, int] | None = None,
    before: str = "",
    env: dict[str, str] | None = None,
    **options: Any,
) -> Up:
    """Starts a platform below this directory, as `ems up --json` does.

    It prefers the NATS and HTTP port in `preferred`, or free ports: the default ports may be in use on this machine.
    `before` is Python code that its process executes first.
    """
    nats_port, http_port = preferred or (ports.free_port(), ports.free_port())
    call = {"data_dir": str(directory / "data"), "json_output": True} | options
    code = (
        "import os, pathlib, sys; from ems_worker.local import platform, up\n"
        f"{before}\n"
        f"given = {call!r}\n"
        "given['data_dir'] = pathlib.Path(given['data_dir'])\n"
        f"preferred = up.PreferredPorts(nats={nats_port}, http={http_port})\n"
        "sys.exit(up.run(**given, preferred=preferred))"
    )
    program = servers.Program("up", [sys.executable, "-c", code], log=directory / "up.log", env=env)
    earlier_bytes = program.log.stat().st_size if program.log.exists() else 0
    program.start()

    def ready() -> dict[str, Any]:
        assert program.running, program.last_words()
        lines = [line for line in program.log.read_text()[earlier_bytes:].splitlines() if line.startswith("{")]
        return json.loads(lines[0]) if lines else {}

    return Up(program, await wait.until(ready, timeout=40, what="the platform to be ready"))


def plan(**more: Any) -> bytes:
    """A small plan for the reef model, as JSON."""
    base = yaml.safe_load(BASE.replace("max_ticks: 700", "max_ticks: 20"))
    axis = {"simulation_layer.environment.water_temperature": [26.0, 30.0]}
    document = {"experiment_id": "small", "base_config": base, "parameter_space": axis, **more}
    return json.dumps(document).encode()
