"""`ems jobs` and `ems runs`, the completion of ids in the shell, and Ctrl-C before a command has begun."""

import json
import signal
import subprocess
import sys

import pytest

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import commands, wait

PLAN = """\
experiment_id: {name}
base_config: {{food: 100, heat: 1}}
parameter_space: {{food: [50, 100, 150], heat: [1, 2]}}
num_replicates_per_run: 10
metrics_to_track: [population]
limits: {{max_attempts: 2, retry_on: [simulation]}}
"""


@pytest.fixture(scope="module")
def listed(deployment: commands.Deployment) -> commands.Deployment:
    """A deployment with an experiment of 60 jobs that completed, and one whose jobs failed twice each."""
    for name in ("jobs-listed", "fails-listed"):
        commands.run("ems-publish", "-", "--wait", env=deployment.env, stdin=PLAN.format(name=name))
    return deployment


def test_jobs_are_a_table_that_says_when_it_is_not_all(listed: commands.Deployment) -> None:
    """Each job is shown by its run, with parameters, metrics and duration; 50 of them unless more are asked for."""
    ended = commands.run("ems", "jobs", "jobs-listed", env=listed.env)
    header, *rows = ended.out.splitlines()
    assert header.split()[:5] == ["run", "state", "food", "heat", "population"]
    assert len(rows) == 50
    assert rows[0].split()[:4] == ["jobs-listed-p000000-r000-a1", "completed", "50", "1"]
    assert ended.err == "... and more jobs: `ems jobs jobs-listed -n 0` lists all\n"
    ended = commands.run("ems", "jobs", "jobs-listed", "-n", "0", env=listed.env)
    assert (len(ended.out.splitlines()), ended.err) == (61, "")


def test_jobs_are_chosen_by_state_and_condition(listed: commands.Deployment) -> None:
    """With --json they are documents, all of them."""
    ended = commands.run("ems", "jobs", "jobs-listed", "--where", "food >= 100 and heat == 2", "--json", env=listed.env)
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert len(found) == 20
    assert {(job["schema"], job["params"]["heat"]) for job in found} == {("ems.result.v1", 2)}
    ended = commands.run("ems", "jobs", "jobs-listed", "--state", "failed", env=listed.env)
    assert (ended.code, ended.out, ended.err) == (exits.Exit.OK, "", "no jobs match\n")
    ended = commands.run("ems", "jobs", "jobs-listed", "--where", "fod > 1", env=listed.env)
    assert (ended.code, "did you mean food?" in ended.err) == (exits.Exit.FAILED, True)


def test_runs_are_every_attempt(listed: commands.Deployment) -> None:
    """With why each did not complete."""
    ended = commands.run("ems", "runs", "fails-listed", "--where", "point == 0 and replicate == 0", env=listed.env)
    header, first, second = ended.out.splitlines()
    assert header.split()[-1] == "why"
    assert [line.split()[0] for line in (first, second)] == [f"fails-listed-p000000-r000-a{n}" for n in (1, 2)]
    assert "fails by --fail" in first
    assert len(commands.run("ems", "runs", "fails-listed", "--json", env=listed.env).out.splitlines()) == 120


def completed(env: dict[str, str], *words: str) -> list[str]:
    """What bash would offer for the last of these words."""
    asked = {**env, "_EMS_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([commands.SCRIPTS / "ems"], env=asked, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


async def offered(env: dict[str, str], *words: str) -> list[str]:
    """The same, asked again while nothing is offered: on a busy machine, an answer may come too late."""
    return await wait.until(lambda: completed(env, *words), what=" ".join(words))


async def test_ids_are_completed(listed: commands.Deployment) -> None:
    """Those of experiments after any command that takes one, and those of runs where a run is asked for."""
    assert await offered(listed.env, "ems", "show", "jobs-l") == ["jobs-listed"]
    assert await offered(listed.env, "ems", "cancel", "fails-li") == ["fails-listed"]
    runs = await offered(listed.env, "ems", "config", "jobs-listed-p000003-r00")
    assert runs[:2] == ["jobs-listed-p000003-r000-a1", "jobs-listed-p000003-r001-a1"]
    assert completed(listed.env, "ems", "wat") == ["watch"]
    assert completed(listed.env, "ems", "jobs", "nothing-like-that") == []


def test_completion_is_silent_without_a_broker_or_a_worker(listed: commands.Deployment) -> None:
    """Nothing is offered and nothing is said."""
    nowhere = {**listed.env, "NATS_URL": f"nats://127.0.0.1:{ports.free_port()}"}
    assert completed(nowhere, "ems", "show", "j") == []
    assert completed({**nowhere, "EMS_NATS_CREDS": "/nowhere"}, "ems", "show", "j") == []


@pytest.mark.parametrize("module", ["typer", "ems_worker.cli.ems", "ems_worker.cli.exits"])
def test_ctrl_c_is_silent_while_a_command_is_being_imported(module: str) -> None:
    """The process ends by the signal, as one that isn't written in Python does, without a traceback."""
    program = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from ems_worker.cli import start
start.ems()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=commands.environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
