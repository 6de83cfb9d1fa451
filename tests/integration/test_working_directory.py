"""Commands in a directory of Python files, such as a researcher's project."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import commands

# Above this size a plan is read in a process of its own.
LARGE = "x" * 300_000
REEF = Path(__file__).parents[2].joinpath("examples", "reef_base.yaml").read_text()
BASE = json.dumps(yaml.safe_load(REEF.replace("max_ticks: 700", "max_ticks: 60")))
HEAT = "simulation_layer.environment.water_temperature"
PLAN = f"# {LARGE}\nexperiment_id: large\nbase_config: {BASE}\nparameter_space: {{{HEAT}: [26.0, 29.0]}}\n"
# Modules of Python that every part imports, and that a project may use as names for its own files.
MODULES = ("asyncio", "json", "random", "signal", "socket", "struct")


@pytest.mark.long
def test_files_in_the_working_directory_do_not_replace_pythons_modules(swept: Path) -> None:
    """A whole platform runs a plan in a directory whose files have the names of Python's modules."""
    folder = swept / "project"
    folder.mkdir()
    for module in MODULES:
        (folder / f"{module}.py").write_text("raise SystemExit('imported from the working directory')\n")
    flags = ["--json", "--data-dir", str(swept / "data"), "--slots", "1"]
    chosen = ["--nats-port", str(ports.free_port()), "--http-port", str(ports.free_port())]
    with (
        (swept / "log").open("w") as log,
        subprocess.Popen(
            [commands.SCRIPTS / "ems", "up", *flags, *chosen],
            cwd=folder,
            env=commands.environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as platform,
    ):
        try:
            assert platform.stdout is not None
            line = platform.stdout.readline()
            assert line, (swept / "log").read_text()
            context = json.loads(line)["context"]
            ended = commands.run("ems-publish", "-", "--wait", "--context", context, stdin=PLAN)
            assert ended.code == exits.Exit.OK, ended.err
            platform.terminate()
            assert platform.wait(timeout=30) == exits.Exit.OK
        finally:
            platform.kill()
