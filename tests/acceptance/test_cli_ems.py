"""`ems` as a process: looking at experiments and bringing their results out, over NATS alone."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import yaml

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import commands, oracle, servers

PLAN = """\
experiment_id: reef
experiment_name: A reef in the heat
description: three temperatures
group: heat
tags: [test]
labels: {site: north}
base_config:
  layer: {food: 100, heat: 26.5}
  run: {seed: 0}
inject: {seed: run.seed}
parameter_space:
  layer.heat: {values: [26, 28, 30], as: heat}
  layer.food: [50, 100]
num_replicates_per_run: 3
metrics_to_track: [{name: population, goal: maximize}]
"""
JOBS = 18


@pytest.fixture(scope="module")
def reef(deployment: commands.Deployment) -> commands.Deployment:
    """A deployment on which the experiment `reef` has completed."""
    for plan in (PLAN, PLAN.replace("experiment_id: reef", "experiment_id: fails-too")):
        ended = commands.run("ems-publish", "-", "--wait", env=deployment.env, given=plan)
        assert ended.code in (exits.Exit.OK, exits.Exit.FAILED), ended
    return deployment


def population(point: int, replicate: int) -> float:
    return oracle.metrics(f"reef-p{point:06d}-r{replicate:03d}-a1")["population"]


def test_ls_lists_the_newest_first(reef: commands.Deployment) -> None:
    """Aligned columns with a header; filters; documents with --json."""
    header, first, second = commands.run("ems", "ls", "--group", "heat", env=reef.env).out.splitlines()
    assert header.split() == ["id", "state", "ended", "jobs", "trouble", "group", "created", "name"]
    assert first.split()[:7] == ["fails-too", "failed", "100%", "18", "18", "failed", "heat"]
    assert second.split()[:6] == ["reef", "completed", "100%", "18", "-", "heat"]
    flags = ("--group", "heat", "--state", "completed", "--json")
    (document,) = map(json.loads, commands.run("ems", "ls", *flags, env=reef.env).out.splitlines())
    assert (document["schema"], document["experiment_id"]) == ("ems.status.v1", "reef")
    assert commands.run("ems", "ls", "--state", "paused", env=reef.env).err == "no experiments\n"
    assert len(commands.run("ems", "ls", "-n", "1", env=reef.env).out.splitlines()) == 2


def test_show_has_the_points_with_their_means_best_first(reef: commands.Deployment) -> None:
    """The means are those of the replicates; a dotted path is told by its last word."""
    lines = commands.run("ems", "show", "reef", env=reef.env).out.splitlines()
    assert lines[0] == f"reef completed: {JOBS} of {JOBS} jobs ended (100%)"
    assert "  about: three temperatures" in lines
    table = [line.split() for line in lines[lines.index("") + 1 :]]
    assert table[0] == ["point", "replicates", "heat", "food", "population"]
    means = {point: sum(population(point, replicate) for replicate in range(3)) / 3 for point in range(6)}
    assert [int(row[0]) for row in table[1:]] == sorted(means, key=lambda point: -means[point])
    for point, replicates, heat, food, mean, *_ in table[1:]:
        assert float(mean) == pytest.approx(means[int(point)], rel=1e-5)
        assert replicates == "3/3"
        assert (heat, food) == (str((26, 28, 30)[int(point) // 2]), str((50, 100)[int(point) % 2]))


def test_the_reasons_of_failures_are_told(reef: commands.Deployment) -> None:
    """What went wrong stands under the outcome, the same reason once, with a run that it can be looked up by."""
    for command in ("show", "watch"):
        lines = commands.run("ems", command, "fails-too", env=reef.env).out.splitlines()
        [reason] = [line for line in lines if line.startswith("  18 x failed, simulation: ")]
        assert "(fails-too-p" in reason
    table = [line.split() for line in commands.run("ems", "show", "fails-too", env=reef.env).out.splitlines()]
    header = next(row for row in table if row[:1] == ["point"])
    assert header[:3] == ["point", "replicates", "trouble"]
    assert " x " not in commands.run("ems", "show", "reef", env=reef.env).out


def on_terminal(columns: int, env: dict[str, str], *arguments: str) -> str:
    """What a command shows on a terminal of this width."""
    master, slave = pty.openpty()
    with contextlib.closing(os.fdopen(master, "rb", buffering=0)) as terminal:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {name: value for name, value in env.items() if name != "COLUMNS"} | {"TERM": "xterm"}
        command = [str(commands.SCRIPTS / "ems"), *arguments]
        with subprocess.Popen(command, stdout=slave, stdin=slave, stderr=slave, env=env) as process:
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # how a terminal says that its other side is closed
                while piece := terminal.read(65536):
                    shown += piece
        assert process.returncode == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [40, 80])
def test_an_id_stays_whole_on_a_narrow_terminal(reef: commands.Deployment, columns: int) -> None:
    """Where not everything fits, ids, states and times can still be read and copied; no rule is wider than it."""
    lines = on_terminal(columns, reef.env, "ls").splitlines()
    first = next(line for line in lines if line.startswith("fails-too"))
    assert first.split()[:2] == ["fails-too", "failed"]
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", first)
    assert [line for line in lines if set(line.strip()) == {"─"} and len(line) > columns] == []


@pytest.mark.parametrize("columns", [24, 40, 70])
def test_the_count_is_seen_on_a_narrow_terminal(reef: commands.Deployment, columns: int) -> None:
    """How many jobs have ended of how many, whatever else fits beside it."""
    shown = on_terminal(columns, reef.env, "watch", "reef")
    assert f"{JOBS}/{JOBS}" in shown
    assert f"reef completed: {JOBS} of {JOBS} jobs ended (100%)" in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told(reef: commands.Deployment) -> None:
    """Output that can't be written ends with words and exit code 2, not with a traceback."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [commands.SCRIPTS / "ems", "ls"], stdout=full, stderr=subprocess.PIPE, env=reef.env, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (2, "error: the output can't be written: No space left on device\n")


def test_export_has_one_line_a_job(reef: commands.Deployment, tmp_path: Path) -> None:
    """To a file or stdout, CSV or JSON lines: the same values."""
    file = tmp_path / "reef.csv"
    ended = commands.run("ems", "export", "reef", "-o", str(file), env=reef.env)
    assert (ended.code, ended.out, ended.err) == (exits.Exit.OK, "", f"18 jobs in {file}\n")
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) == JOBS
    for row in rows:
        assert float(row["metric.population"]) == population(int(row["point"]), int(row["replicate"]))
        assert (row["state"], row["label.site"]) == ("completed", "north")
    lines = commands.run("ems", "export", "reef", "--format", "jsonl", env=reef.env).out.splitlines()
    assert [str(json.loads(line)["seed"]) for line in lines] == [row["seed"] for row in rows]
    assert [json.loads(line)["param.heat"] for line in lines[::6]] == [26, 28, 30]


def test_export_to_a_link_to_stdout_is_export_to_stdout(reef: commands.Deployment, tmp_path: Path) -> None:
    """As /dev/stdout is one: nothing is put in the link's place, nor in that of the file that the shell opened."""
    link, file = tmp_path / "link", tmp_path / "out"
    link.symlink_to("/proc/self/fd/1" if Path("/proc/self/fd").exists() else "/dev/fd/1")
    for mode in ("pipe", "file"):
        with file.open("w") as out:
            out.write("before\n")
            out.flush()
            target = out if mode == "file" else subprocess.PIPE
            done = subprocess.run(
                [commands.SCRIPTS / "ems", "export", "reef", "-o", link],
                stdout=target, stderr=subprocess.PIPE, env=reef.env, text=True, check=True,
            )  # fmt: skip
        text = done.stdout if mode == "pipe" else file.read_text().removeprefix("before\n")
        assert len(list(csv.DictReader(io.StringIO(text)))) == JOBS
        assert done.stderr == f"18 jobs in {link}\n"
        assert link.is_symlink()


def test_a_reader_that_has_enough_ends_the_export_quietly(reef: commands.Deployment) -> None:
    """As `ems export reef | head -1` does."""
    with commands.start("ems", "export", "reef", "--format", "jsonl", env=reef.env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(timeout=60), process.stderr.read()) == (exits.Exit.OK, "")


def test_config_is_exactly_what_the_run_got(reef: commands.Deployment) -> None:
    """YAML of the run's own parameters and seed; its digest was checked."""
    ended = commands.run("ems", "config", "reef-p000003-r002-a1", env=reef.env)
    assert ended.code == exits.Exit.OK
    rows = commands.run("ems", "export", "reef", "--format", "jsonl", env=reef.env).out.splitlines()
    seed = next(row["seed"] for row in map(json.loads, rows) if (row["point"], row["replicate"]) == (3, 2))
    assert yaml.safe_load(ended.out) == {"layer": {"food": 100, "heat": 28}, "run": {"seed": seed}}


def test_watch_of_an_ended_experiment_ends_at_once(reef: commands.Deployment) -> None:
    """The exit code is the experiment's; --json prints the status."""
    assert commands.run("ems", "watch", "reef", env=reef.env).code == exits.Exit.OK
    ended = commands.run("ems", "watch", "fails-too", "--json", env=reef.env)
    assert ended.code == exits.Exit.FAILED
    assert json.loads(ended.out)["state"] == "failed"


@pytest.mark.parametrize("command", ["show", "watch", "export"])
def test_an_unknown_experiment_is_exit_code_1(reef: commands.Deployment, command: str) -> None:
    """In words, whatever was asked."""
    ended = commands.run("ems", command, "nobody", env=reef.env)
    assert (ended.code, ended.out, ended.err) == (exits.Exit.FAILED, "", "error: there is no experiment nobody\n")


@pytest.mark.parametrize("run", ["reef", "reef-p000099-r000-a1", "reef-p000000-r000-a2", "no.such run"])
def test_an_unknown_run_is_exit_code_1(reef: commands.Deployment, run: str) -> None:
    """A run that never was has no configuration."""
    ended = commands.run("ems", "config", run, env=reef.env)
    assert (ended.code, ended.out, ended.err) == (exits.Exit.FAILED, "", f"error: there is no run {run}\n")


def test_validate_needs_no_server(tmp_path: Path) -> None:
    """Valid: exit code 0 and the size; not: exit code 3 and every problem; --json: the decision document."""
    ended = commands.run("ems", "validate", "-", given=PLAN)
    assert (ended.code, ended.out) == (exits.Exit.OK, "<stdin> is valid: 6 points with 3 replicates each: 18 jobs\n")
    (tmp_path / "bad.yaml").write_text(PLAN.replace("layer.food: [50", "layer.fod: [50"))
    ended = commands.run("ems", "validate", str(tmp_path / "bad.yaml"))
    assert ended.code == exits.Exit.INVALID_PLAN
    assert f"{tmp_path}/bad.yaml:13:3: error: parameter_space.layer.fod: " in ended.err
    document = json.loads(commands.run("ems", "validate", "--json", "-", given=PLAN).out)
    assert (document["schema"], document["decision"], document["points"]) == ("ems.decision.v1", "accepted", 6)
    assert document["submission"] is None


async def test_without_server_or_worker_it_is_exit_code_4(tmp_path: Path) -> None:
    """The words tell one from the other."""
    ended = commands.run("ems", "ls", "--server", f"127.0.0.1:{ports.free_port()}")
    assert (ended.code, "no NATS server" in ended.err) == (exits.Exit.UNREACHABLE, True)
    async with servers.NatsServer(tmp_path / "nats") as server:
        ended = commands.run("ems", "ls", "--server", server.url)
    assert (ended.code, "no worker answers" in ended.err) == (exits.Exit.UNREACHABLE, True)


def test_help_and_version_are_plain() -> None:
    """Every command is listed with its exit codes; no escape codes in a pipe."""
    for name in ("ems", "ems-publish", "ems-worker"):
        ended = commands.run(name, "--help")
        assert ended.code == exits.Exit.OK
        assert "Exit codes: 0 ok, 1 failed" in " ".join(ended.out.split())
        assert "\x1b" not in ended.out
        assert commands.run(name, "--version").out.strip()


@pytest.mark.parametrize("command", ["ls", "up", "watch", "export", "dlq ls"])
def test_help_names_what_an_option_takes_in_words(command: str) -> None:
    """NUMBER, NAME, SECONDS: no types of Python's."""
    words = commands.run("ems", *command.split(), "--help").out
    assert re.findall(r"--[a-z-]+ <(?:str|int|float|path)\b.*", words) == []


def test_the_module_form_is_the_command() -> None:
    """Where the scripts aren't on PATH."""
    done = subprocess.run(
        [sys.executable, "-m", "ems_worker.cli.ems", "validate", "-"],
        input=PLAN, env=commands.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "is valid" in done.stdout
