"""`ems-publish` as a process: the output and exit codes that people and scripts rely on."""

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
from tests.support import broker, commands, servers

BASE = "layer:\n  food: 100   # a comment\n  heat: 26.5\n"


def plan_of(folder: Path, name: str, *, jobs: int = 4, extra: str = "") -> str:
    """Writes a plan and its base file; returns the plan's path."""
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


def experiments(deployment: commands.Deployment) -> int:
    """The number of experiments that the worker lists."""
    ended = commands.run("ems", "ls", "--json", "-n", "10000", env=deployment.env)
    return len(ended.out.splitlines())


def test_wait_follows_the_experiment_to_its_end(deployment: commands.Deployment, tmp_path: Path) -> None:
    """With --wait the decision and the summary are on stdout, progress is on stderr, and the exit code is 0."""
    ended = commands.run("ems-publish", plan_of(tmp_path, "waits"), "--wait", env=deployment.env)
    assert ended.code == exits.Exit.OK, ended
    first, second, *_ = ended.out.splitlines()
    assert first == "waits: accepted, 2 points, 4 jobs"
    assert second == "waits completed: 4 of 4 jobs ended (100%)"
    assert ended.err.splitlines()[-1] == "completed: 4 of 4 jobs ended (100%)"
    assert "\x1b" not in ended.out + ended.err


def test_json_prints_the_decision_and_the_terminal_status(deployment: commands.Deployment, tmp_path: Path) -> None:
    """With --json stdout has exactly these two documents, one per line."""
    ended = commands.run("ems-publish", plan_of(tmp_path, "documents"), "--wait", "--json", env=deployment.env)
    decision, status = map(json.loads, ended.out.splitlines())
    assert (decision["schema"], decision["decision"], decision["jobs"]) == ("ems.decision.v1", "accepted", 4)
    assert decision["submission"]["stream"] == "EMS_PLANS"
    assert (status["schema"], status["state"], status["counts"]["completed"]) == ("ems.status.v1", "completed", 4)


def test_an_experiment_that_fails_is_exit_code_1(deployment: commands.Deployment, tmp_path: Path) -> None:
    """The summary has the number of failed jobs."""
    ended = commands.run("ems-publish", plan_of(tmp_path, "fails"), "--wait", env=deployment.env)
    assert ended.code == exits.Exit.FAILED
    assert "fails failed: 4 of 4 jobs ended (100%), 4 failed" in ended.out


def test_a_misspelt_path_is_reported_with_its_position_and_a_suggestion(
    deployment: commands.Deployment, tmp_path: Path
) -> None:
    """All problems are reported at once with line and column, nothing is published, and the exit code is 3."""
    path = plan_of(tmp_path, "typo", extra="limts: {}\n")
    Path(path).write_text(Path(path).read_text().replace("layer.food", "layer.fod"))
    before = experiments(deployment)
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
    assert experiments(deployment) == before

    ended = commands.run("ems-publish", path, "--json", env=deployment.env)
    assert ended.code == exits.Exit.INVALID_PLAN
    decision = json.loads(ended.out)
    assert [(error["code"], error["line"], error["column"]) for error in decision["errors"]] == [
        ("unknown_path", 4, 3),
        ("unknown_key", 7, 1),
    ]


def test_without_a_server_it_is_exit_code_4(tmp_path: Path) -> None:
    """The message has the address and the reason."""
    path, address = plan_of(tmp_path, "nowhere"), f"127.0.0.1:{ports.free_port()}"
    ended = commands.run("ems-publish", path, "--server", f"nats://{address}")
    assert ended.code == exits.Exit.UNREACHABLE
    assert f"no NATS server at nats://{address} (connection refused)" in ended.err


async def test_a_stored_plan_without_a_worker_is_exit_code_5(tmp_path: Path) -> None:
    """A message says that the plan is stored. Without a stream to store it, the exit code is 4."""
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
        "the plan is stored (EMS_PLANS 1), but no worker has answered within 0.5 s; it will run when a worker starts\n"
    )


def test_the_same_plan_is_a_duplicate_and_a_different_plan_a_conflict(
    deployment: commands.Deployment, tmp_path: Path
) -> None:
    """A duplicate is exit code 0. A conflict is exit code 3 and names the paths that differ."""
    path = plan_of(tmp_path, "again")
    assert commands.run("ems-publish", path, env=deployment.env).code == exits.Exit.OK
    ended = commands.run("ems-publish", path, "--wait", env=deployment.env)
    assert ended.code == exits.Exit.OK
    assert "again: this plan was accepted before; nothing new happens" in ended.out
    (tmp_path / "base.yaml").write_text(BASE.replace("26.5", "27.5"))
    ended = commands.run("ems-publish", path, env=deployment.env)
    assert ended.code == exits.Exit.INVALID_PLAN
    assert "base_config.layer.heat; choose another experiment_id [conflict]" in ended.err
    assert "the worker rejected" in ended.err


def test_a_plan_from_standard_input_reads_its_base_file_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the base file is not in the working directory, the plan is invalid."""
    text = Path(plan_of(tmp_path, "piped")).read_text()
    monkeypatch.chdir(tmp_path)
    ended = commands.run("ems-publish", "-", "--dry-run", stdin=text)
    assert ended.code == exits.Exit.OK
    monkeypatch.chdir("/")
    ended = commands.run("ems-publish", "-", "--dry-run", stdin=text)
    assert ended.code == exits.Exit.INVALID_PLAN
    assert "<stdin>:2:24: error: base_config_file_path: the base file 'base.yaml' can't be read" in ended.err


@pytest.mark.parametrize(
    "arguments", [("--nonsense",), (), ("absent.yaml",), ("x", "--server", "http://h"), ("x", "--publisher", "a b")]
)
def test_invalid_arguments_are_exit_code_2(arguments: tuple[str, ...]) -> None:
    """Invalid arguments are explained on stderr without a traceback."""
    ended = commands.run("ems-publish", *arguments)
    assert ended.code == exits.Exit.USAGE
    assert ended.err


def test_interrupted_while_waiting_is_exit_code_130(deployment: commands.Deployment, tmp_path: Path) -> None:
    """The experiment continues, and a message says how to follow it."""
    path = plan_of(tmp_path, "slow-one")
    ended = commands.interrupted("ems-publish", path, "--wait", after="0 of 4 jobs", env=deployment.env)
    assert ended.code == exits.Exit.INTERRUPTED
    assert "slow-one: the experiment continues; follow it with: ems watch slow-one" in ended.err
    status = json.loads(commands.run("ems", "show", "slow-one", "--json", env=deployment.env).out)
    assert status["state"] in ("accepted", "running")


def test_waiting_stops_at_the_timeout_with_exit_code_5(deployment: commands.Deployment, tmp_path: Path) -> None:
    """A message says that the experiment did not end in time."""
    path = plan_of(tmp_path, "slow-two")
    ended = commands.run("ems-publish", path, "--wait", "--timeout", "1.5", env=deployment.env)
    assert ended.code == exits.Exit.TIMED_OUT
    assert "slow-two did not end in time" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ["ems-publish"],
        pytest.param(["ems-publish", "--dry-run"], marks=pytest.mark.long),
        pytest.param(["ems", "validate"], marks=pytest.mark.long),
        pytest.param(["ems", "points"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_a_plan_from_a_stranger_can_not_publish_other_files(
    deployment: commands.Deployment, tmp_path: Path, command: list[str]
) -> None:
    """No command that reads a plan reads a file outside its directory unless the user allows that directory."""
    secret = tmp_path / "secrets" / "prod.yaml"
    secret.parent.mkdir()
    secret.write_text("layer: {food: 1, password: hunter2}\n")
    folder = tmp_path / "plans"
    folder.mkdir()
    plan = folder / "plan.yaml"
    text = "experiment_id: stranger\nbase_config_file_path: {}\nparameter_space: {{layer.food: [1, 2]}}\n"
    plan.write_text(text.format("../secrets/prod.yaml"))
    before = experiments(deployment)
    for argument, given in ((str(plan), ""), ("-", text.format(secret))):
        ended = commands.run(*command, argument, env=deployment.env, stdin=given)
        assert ended.code == exits.Exit.INVALID_PLAN, ended
        assert "--allow-files-from" in ended.err
        assert "hunter2" not in ended.out + ended.err
        allowed = ["--allow-files-from", str(folder), "--allow-files-from", str(secret.parent)]
        if command != ["ems-publish"]:
            ended = commands.run(*command, argument, *allowed, env=deployment.env, stdin=given)
            assert ended.code == exits.Exit.OK, ended
    assert experiments(deployment) == before


def test_a_terminal_shows_a_progress_bar(deployment: commands.Deployment, tmp_path: Path) -> None:
    """On a terminal a progress bar is drawn, and the summary and exit code are the usual."""
    main, terminal = pty.openpty()
    env = {**deployment.env, "TERM": "xterm"}
    command = [str(Path(sys.executable).parent / "ems-publish"), plan_of(tmp_path, "drawn"), "--wait"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(main, 4096):
                shown += chunk
        except OSError:  # how Linux reports the end of a terminal
            pass
        assert process.wait(timeout=60) == exits.Exit.OK
    os.close(main)
    assert b"\x1b[" in shown
    assert "━".encode() in shown
    assert b"drawn completed: 4 of 4 jobs ended (100%)" in shown


@pytest.mark.parametrize("module", ["ems", "publish"])
def test_help_does_not_import_slow_modules(module: str) -> None:
    """Importing a command's module, which is all that its help needs, imports none of the large libraries."""
    script = (
        f"import sys; from ems_worker.cli import {module}; "
        "print([name for name in ('nats', 'rich.progress', 'grpc', 'yaml', 'structlog') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=commands.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
