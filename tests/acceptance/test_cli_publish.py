"""`ems-publish` as a process: what a publisher at a terminal, or a script, relies on."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import broker, commands, schema_checks, servers

BASE = "layer:\n  food: 100   # a comment\n  heat: 26.5\n"


def plan_of(folder: Path, name: str, *, jobs: int = 4, extra: str = "") -> str:
    """Writes a plan and its base file; the plan's path."""
    (folder / "base.yaml").write_text(BASE)
    path = folder / f"{name}.yaml"
    path.write_text(
        f"experiment_id: {name}\n"
        "base_config_file_path: base.yaml\n"
        "parameter_space:\n"
        f"  layer.food: {[10 * (number + 1) for number in range(jobs // 2)]}\n"
        "num_replicates_per_run: 2\n"
        "metrics_to_track: [population]\n"
        f"{extra}"
    )
    return str(path)


def submissions(deployment: commands.Deployment) -> int:
    """How many plans the deployment's decisions speak of: the number of the last one."""
    ended = commands.run("ems", "ls", "--json", env=deployment.env)
    return len(ended.out.splitlines())


def test_wait_stays_to_the_end(deployment: commands.Deployment, tmp_path: Path) -> None:
    """Exit code 0; the decision and the summary on stdout, plain progress lines on stderr."""
    ended = commands.run("ems-publish", plan_of(tmp_path, "waits"), "--wait", env=deployment.env)
    assert ended.code == exits.Exit.OK, ended
    first, second, *_ = ended.out.splitlines()
    assert first == "waits: accepted, 2 points, 4 jobs"
    assert second == "waits completed: 4 of 4 jobs ended (100%)"
    assert ended.err.splitlines()[-1] == "completed: 4 of 4 jobs ended (100%)"
    assert "\x1b" not in ended.out + ended.err


def test_json_prints_the_decision_and_the_terminal_status(deployment: commands.Deployment, tmp_path: Path) -> None:
    """One document a line, nothing else on stdout."""
    ended = commands.run("ems-publish", plan_of(tmp_path, "documents"), "--wait", "--json", env=deployment.env)
    decision, status = map(json.loads, ended.out.splitlines())
    assert (decision["schema"], decision["decision"], decision["jobs"]) == ("ems.decision.v1", "accepted", 4)
    assert decision["submission"]["stream"] == "EMS_PLANS"
    assert (status["schema"], status["state"], status["counts"]["completed"]) == ("ems.status.v1", "completed", 4)


def test_an_experiment_that_fails_is_exit_code_1(deployment: commands.Deployment, tmp_path: Path) -> None:
    """And the summary says how many failed."""
    ended = commands.run("ems-publish", plan_of(tmp_path, "fails"), "--wait", env=deployment.env)
    assert ended.code == exits.Exit.FAILED
    assert "fails failed: 4 of 4 jobs ended (100%), 4 failed" in ended.out


def test_a_misspelt_path_is_told_with_its_place_and_the_nearest_name(
    deployment: commands.Deployment, tmp_path: Path
) -> None:
    """Exit code 3; path, line, column, the line itself, all problems at once; nothing was published."""
    path = plan_of(tmp_path, "typo", extra="limts: {}\n")
    Path(path).write_text(Path(path).read_text().replace("layer.food", "layer.fod"))
    before = submissions(deployment)
    ended = commands.run("ems-publish", path, env=deployment.env)
    assert ended.code == exits.Exit.INVALID_PLAN
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert re.match(
        rf"{re.escape(path)}:4:3: error: parameter_space\.layer\.fod: .*did you mean layer\.food\?", lines[0]
    )
    assert lines[1:3] == ["    4 |   layer.fod: [10, 20]", "      |   ^^^^^^^^^"]
    assert lines[3].startswith(f"{path}:7:1: error: limts: ")
    assert "did you mean limits?" in lines[3]
    assert lines[-1] == f"2 problems in {path}: nothing was published"
    assert submissions(deployment) == before

    ended = commands.run("ems-publish", path, "--json", env=deployment.env)
    assert ended.code == exits.Exit.INVALID_PLAN
    decision = json.loads(ended.out)
    assert [(one["code"], one["line"], one["column"]) for one in decision["errors"]] == [
        ("unknown_path", 4, 3),
        ("unknown_key", 7, 1),
    ]


def test_without_a_server_it_is_exit_code_4(tmp_path: Path) -> None:
    """With the address and the remedy."""
    path, address = plan_of(tmp_path, "nowhere"), f"127.0.0.1:{ports.free_port()}"
    ended = commands.run("ems-publish", path, "--server", f"nats://{address}")
    assert ended.code == exits.Exit.UNREACHABLE
    assert f"no NATS server at nats://{address} (connection refused)" in ended.err


async def test_a_stored_plan_without_a_worker_is_exit_code_5(tmp_path: Path) -> None:
    """It says that the plan is stored and runs later; without the stream nothing could be stored: exit code 4."""
    path = plan_of(tmp_path, "later")
    async with servers.NatsServer(tmp_path / "nats") as server:
        flags = ("ems-publish", path, "--timeout", "0.5", "--server", server.url)
        ended = commands.run(*flags)
        assert ended.code == exits.Exit.UNREACHABLE
        assert "no worker has ever run there" in ended.err
        async with broker.plain(server) as (_, jetstream):
            await jetstream.add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"])
        ended = commands.run(*flags)
    assert ended.code == exits.Exit.TIMED_OUT
    assert ended.err == (
        "the plan is stored (EMS_PLANS 1) and no worker has answered within 0.5 s: it runs when one starts\n"
    )


def test_the_same_plan_again_is_a_duplicate_and_another_one_a_conflict(
    deployment: commands.Deployment, tmp_path: Path
) -> None:
    """The conflict names the paths that differ, and leaves the experiment alone: exit code 3."""
    path = plan_of(tmp_path, "again")
    assert commands.run("ems-publish", path, env=deployment.env).code == exits.Exit.OK
    ended = commands.run("ems-publish", path, "--wait", env=deployment.env)
    assert ended.code == exits.Exit.OK
    assert "again: this plan was accepted before" in ended.out
    (tmp_path / "base.yaml").write_text(BASE.replace("26.5", "27.5"))
    ended = commands.run("ems-publish", path, env=deployment.env)
    assert ended.code == exits.Exit.INVALID_PLAN
    assert "base_config.layer.heat; choose another experiment_id [conflict]" in ended.err
    assert "the worker rejected" in ended.err


def test_dry_run_publishes_nothing_and_shows_what_would_be(deployment: commands.Deployment, tmp_path: Path) -> None:
    """Points, jobs, the first and the last configuration against the base, the seeds; no server is asked."""
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
    seeds = [line.split() for line in lines[lines.index(next(one for one in lines if "seed" in one)) + 1 :]]
    assert [(point, replicate) for point, replicate, _ in seeds] == [("all", "0"), ("all", "1")]
    listed = commands.run("ems", "show", "dry", env=deployment.env)
    assert (listed.code, listed.err) == (exits.Exit.FAILED, "error: there is no experiment dry\n")


def test_dry_run_tells_the_time_where_earlier_runs_tell_it(deployment: commands.Deployment, tmp_path: Path) -> None:
    """The worker is asked; with --json it is in the decision, and null where no server is."""
    commands.run("ems-publish", plan_of(tmp_path, "earlier"), "--wait", env=deployment.env)
    path = plan_of(tmp_path, "later")
    second = commands.run("ems-publish", path, "--dry-run", env=deployment.env).out.splitlines()[1]
    assert re.fullmatch(
        r"estimated time: .+ \(.+ s a run, from \d+ earlier runs of this model; 1,000 at once\)", second
    )
    asked = commands.run("ems-publish", path, "--dry-run", "--json", env=deployment.env)
    document = json.loads(asked.out)
    assert schema_checks.check(document) == "ems.decision.v1"
    assert (document["estimate"]["slots"], document["estimate"]["runs"] > 0) == (1000, True)
    away = f"127.0.0.1:{ports.free_port()}"
    offline = json.loads(commands.run("ems-publish", path, "--dry-run", "--json", "--server", away).out)
    assert offline == document | {"estimate": None}


def test_a_plan_from_standard_input_finds_its_base_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads the plan; its base file is taken from the working directory."""
    text = Path(plan_of(tmp_path, "piped")).read_text()
    monkeypatch.chdir(tmp_path)
    ended = commands.run("ems-publish", "-", "--dry-run", given=text)
    assert ended.code == exits.Exit.OK
    monkeypatch.chdir("/")
    ended = commands.run("ems-publish", "-", "--dry-run", given=text)
    assert ended.code == exits.Exit.INVALID_PLAN
    assert "<stdin>:2:24: error: base_config_file_path: the base file 'base.yaml' can't be read" in ended.err


@pytest.mark.parametrize(
    "arguments", [("--nonsense",), (), ("absent.yaml",), ("x", "--server", "http://h"), ("x", "--publisher", "a b")]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """With words, and without a traceback."""
    ended = commands.run("ems-publish", *arguments)
    assert ended.code == exits.Exit.USAGE
    assert ended.err


def test_interrupted_while_waiting_is_exit_code_130(deployment: commands.Deployment, tmp_path: Path) -> None:
    """The experiment goes on, and it says how to follow it."""
    path = plan_of(tmp_path, "slow-one")
    ended = commands.interrupted("ems-publish", path, "--wait", after="0 of 4 jobs", env=deployment.env)
    assert ended.code == exits.Exit.INTERRUPTED
    assert "slow-one goes on; follow it with: ems watch slow-one" in ended.err
    status = json.loads(commands.run("ems", "show", "slow-one", "--json", env=deployment.env).out)
    assert status["state"] in ("accepted", "running")


def test_waiting_ends_at_the_timeout_with_exit_code_5(deployment: commands.Deployment, tmp_path: Path) -> None:
    """The experiment goes on."""
    path = plan_of(tmp_path, "slow-two")
    ended = commands.run("ems-publish", path, "--wait", "--timeout", "1.5", env=deployment.env)
    assert ended.code == exits.Exit.TIMED_OUT
    assert "slow-two has not ended in time" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ["ems-publish"],
        pytest.param(["ems-publish", "--dry-run"], marks=pytest.mark.long),
        pytest.param(["ems", "validate"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_a_strangers_plan_publishes_no_file_of_ours(
    deployment: commands.Deployment, tmp_path: Path, command: list[str]
) -> None:
    """By no command that reads plans, from a file or from standard input; where the user allows it, it is read."""
    secret = tmp_path / "secrets" / "prod.yaml"
    secret.parent.mkdir()
    secret.write_text("layer: {food: 1, password: hunter2}\n")
    folder = tmp_path / "plans"
    folder.mkdir()
    plan = folder / "plan.yaml"
    text = "experiment_id: stranger\nbase_config_file_path: {}\nparameter_space: {{layer.food: [1, 2]}}\n"
    plan.write_text(text.format("../secrets/prod.yaml"))
    before = submissions(deployment)
    for argument, given in ((str(plan), ""), ("-", text.format(secret))):
        ended = commands.run(*command, argument, env=deployment.env, given=given)
        assert ended.code == exits.Exit.INVALID_PLAN, ended
        assert "--allow-files-from" in ended.err
        assert "hunter2" not in ended.out + ended.err
        allowed = ["--allow-files-from", str(folder), "--allow-files-from", str(secret.parent)]
        if command != ["ems-publish"]:
            ended = commands.run(*command, argument, *allowed, env=deployment.env, given=given)
            assert ended.code == exits.Exit.OK, ended
    assert submissions(deployment) == before


def test_on_a_terminal_it_shows_a_bar(deployment: commands.Deployment, tmp_path: Path) -> None:
    """And ends as it does anywhere else."""
    main, terminal = pty.openpty()
    env = {**deployment.env, "TERM": "xterm"}
    command = [str(Path(sys.executable).parent / "ems-publish"), plan_of(tmp_path, "drawn"), "--wait"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(main, 4096):
                shown += chunk
        except OSError:  # what Linux says at the end of a terminal
            pass
        assert process.wait(timeout=60) == exits.Exit.OK
    os.close(main)
    assert b"\x1b[" in shown
    assert "━".encode() in shown
    assert b"drawn completed: 4 of 4 jobs ended (100%)" in shown


@pytest.mark.parametrize("module", ["ems", "publish"])
def test_help_does_not_load_what_it_does_not_need(module: str) -> None:
    """The first thing that anybody does with a command has to be quick."""
    script = (
        f"import sys; from ems_worker.cli import {module}; "
        "print([name for name in ('nats', 'rich.progress', 'grpc', 'yaml', 'structlog') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=commands.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
