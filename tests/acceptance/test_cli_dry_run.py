"""`ems-publish --dry-run` as a process: what it shows of a plan, with a worker and without one."""

import json
import re
from pathlib import Path

import pytest

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import commands, schema_checks

PLAN = """\
base_config: {layer: {food: 100, heat: 26.5}}
parameter_space: {layer.food: [10, 20]}
num_replicates_per_run: 2
"""


def plan_of(folder: Path, name: str, text: str = PLAN) -> str:
    """Writes a plan with this id; returns its path."""
    path = folder / f"{name}.yaml"
    path.write_text(f"experiment_id: {name}\n{text}")
    return str(path)


def test_a_dry_run_publishes_nothing_and_shows_what_the_runs_would_get(
    deployment: commands.Deployment, tmp_path: Path
) -> None:
    """It shows the size, points, and the first and last configurations as differences, without a server."""
    path = plan_of(tmp_path, "dry")
    ended = commands.run("ems-publish", path, "--dry-run", "--server", f"127.0.0.1:{ports.free_port()}")
    assert ended.code == exits.Exit.OK
    lines = ended.out.splitlines()
    assert lines[0] == "2 points with 2 replicates each: 4 jobs"
    assert [line for line in lines if line.startswith("+++")] == [
        "+++ dry-p000000-r000-a1",
        "+++ dry-p000001-r001-a1",
    ]
    assert "-  food: 100" in lines
    assert "+  food: 10" in lines
    assert "+  food: 20" in lines
    assert lines[1] == "estimated time: unknown, because no worker answers"
    header, *table = [line.split() for line in lines[3:6]]
    assert header == ["point", "food", "first", "seed", "first", "simulation_id"]
    assert [(row[0], row[1], row[3]) for row in table] == [
        ("0", "10", "dry-p000000-r000-a1"),
        ("1", "20", "dry-p000001-r000-a1"),
    ]
    assert lines[6] == f"all points: ems points {path}; all jobs: ems points --jobs {path}"
    listed = commands.run("ems", "show", "dry", env=deployment.env)
    assert (listed.code, listed.err) == (exits.Exit.FAILED, "error: there is no experiment dry\n")


@pytest.mark.long
def test_a_dry_run_estimates_the_time_from_earlier_runs(deployment: commands.Deployment, tmp_path: Path) -> None:
    """The estimate is the worker's. With --json it is part of the decision, and null without a server."""
    commands.run("ems-publish", plan_of(tmp_path, "earlier"), "--wait", env=deployment.env)
    path = plan_of(tmp_path, "later")
    second = commands.run("ems-publish", path, "--dry-run", env=deployment.env).out.splitlines()[1]
    assert re.fullmatch(
        r"estimated time: .+ \(.+ s of runs, 4 at once; .+ s a run, from \d+ earlier runs of this model\)", second
    )
    asked = commands.run("ems-publish", path, "--dry-run", "--json", env=deployment.env)
    document = json.loads(asked.out)
    assert schema_checks.check(document) == "ems.decision.v1"
    assert (document["estimate"]["slots"], document["estimate"]["runs"] > 0) == (1000, True)
    away = f"127.0.0.1:{ports.free_port()}"
    offline = json.loads(commands.run("ems-publish", path, "--dry-run", "--json", "--server", away).out)
    assert offline == document | {"estimate": None}


def test_a_dry_run_has_the_objections_of_the_worker(deployment: commands.Deployment, tmp_path: Path) -> None:
    """What only the worker knows, such as its limit of jobs, is an error before the plan is published."""
    path = plan_of(tmp_path, "too-many", PLAN.replace("run: 2", "run: 1000000"))
    ended = commands.run("ems-publish", path, "--dry-run", env=deployment.env)
    assert (ended.code, ended.out) == (exits.Exit.INVALID_PLAN, "")
    assert "EMS_MAX_JOBS" in ended.err
    assert ended.err.endswith(f"the worker rejected {path}\n")
    document = json.loads(commands.run("ems-publish", path, "--dry-run", "--json", env=deployment.env).out)
    assert (document["decision"], document["errors"][0]["code"]) == ("rejected", "too_many_jobs")
