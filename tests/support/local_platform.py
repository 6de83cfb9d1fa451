"""`ems up` as a process of the tests, and a small plan for it."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support import servers, wait

BASE = (servers.ROOT / "examples" / "reef_base.yaml").read_text()


@dataclasses.dataclass
class Up:
    """`ems up` as a process, ready."""

    program: servers.Program
    addresses: dict[str, str]


async def up(
    directory: Path,
    *,
    usual: tuple[int, int] | None = None,
    before: str = "",
    env: dict[str, str] | None = None,
    **options: Any,
) -> Up:
    """Starts a platform below this directory, as `ems up --json` does; ports of its own choice, or `usual` ones.

    `before` is run in its process first.
    """
    choice = (  # tests run beside what else this machine runs
        "ports.prefer = lambda port: ports.free_port()\n"
        if usual is None
        else f"up._NATS_PORT, up._HTTP_PORT = {usual!r}\n"
    )
    call = {"data_dir": str(directory / "data"), "json_output": True, "nats_port": None} | options
    code = (
        "import os, pathlib, sys; from ems_worker.local import platform, ports, up\n"
        f"{choice}{before}\n"
        f"given = {call!r}\n"
        "given['data_dir'] = pathlib.Path(given['data_dir'])\n"
        "sys.exit(up.run(**given))"
    )
    program = servers.Program("up", [sys.executable, "-c", code], log=directory / "up.log", env=env)
    said = program.log.stat().st_size if program.log.exists() else 0
    program.start()

    def ready() -> dict[str, str]:
        assert program.running, program.last_words()
        lines = [line for line in program.log.read_text()[said:].splitlines() if line.startswith("{")]
        return json.loads(lines[0]) if lines else {}

    return Up(program, await wait.until(ready, timeout=40, what="the platform to be ready"))


def plan(**more: Any) -> bytes:
    """A small plan over the reef, as JSON."""
    base = yaml.safe_load(BASE.replace("max_ticks: 700", "max_ticks: 20"))
    axis = {"simulation_layer.environment.water_temperature": [26.0, 30.0]}
    document = {"experiment_id": "small", "base_config": base, "parameter_space": axis, **more}
    return json.dumps(document).encode()
