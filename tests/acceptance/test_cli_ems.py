"""`ems` as a process: lists, shows and exports experiments over NATS."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import commands, oracle, screens, servers

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
    """A deployment where the experiment `reef` has completed and `fails-too` has failed."""
    for plan in (PLAN, PLAN.replace("experiment_id: reef", "experiment_id: fails-too")):
        ended = commands.run("ems-publish", "-", "--wait", env=deployment.env, stdin=plan)
        assert ended.code in (exits.Exit.OK, exits.Exit.FAILED), ended
    return deployment


def population(point: int, replicate: int) -> float:
    return oracle.metrics(f"reef-p{point:06d}-r{replicate:03d}-a1")["population"]


def test_ls_lists_the_newest_first(reef: commands.Deployment) -> None:
    """The list has a header and aligned columns, can be filtered and limited, and with --json is documents."""
    header, first, second = commands.run("ems", "ls", "--group", "heat", env=reef.env).out.splitlines()
    assert header.split() == ["id", "state", "progress", "jobs", "problems", "created", "name"]
    assert first.split()[:6] == ["fails-too", "failed", "100%", "18", "18", "failed"]
    assert second.split()[:5] == ["reef", "completed", "100%", "18", "-"]
    folded = commands.run("ems", "ls", "--name", "in the HEAT", "--tag", "test", "--since", "1d", env=reef.env)
    assert folded.out.splitlines()[1].split()[:6] == ["heat/", "1", "failed,", "1", "completed", "100%"]
    flags = ("--group", "heat", "--state", "completed", "--json")
    (document,) = map(json.loads, commands.run("ems", "ls", *flags, env=reef.env).out.splitlines())
    assert (document["schema"], document["experiment_id"]) == ("ems.status.v1", "reef")
    assert commands.run("ems", "ls", "--state", "paused", env=reef.env).err == "no experiments\n"
    assert len(commands.run("ems", "ls", "-n", "1", env=reef.env).out.splitlines()) == 2


def test_experiments_and_runs_are_found_by_other_names(reef: commands.Deployment) -> None:
    """By the beginning of an id, by what several share only if that is said, and a run by its job."""
    ambiguous = commands.run("ems", "show", "A reef in the heat", env=reef.env)
    assert ambiguous.err == "error: 2 experiments are called A reef in the heat: fails-too, reef\n"
    assert commands.run("ems", "show", "heat", env=reef.env).out.startswith("group heat: 2 experiments: ")
    for name, found in (("ree", "reef"), ("@latest", "fails-too")):
        document = json.loads(commands.run("ems", "show", name, "--json", "-n", "2", env=reef.env).out)
        assert (document["experiment_id"], len(document["listed_points"])) == (found, 2)
    whole = commands.run("ems", "config", "reef-p000003-r002-a1", env=reef.env).out
    assert commands.run("ems", "config", "ree-p3-r2", env=reef.env).out == whole
    assert commands.run("ems", "watch", "ree", env=reef.env).out.startswith("reef completed: ")
    assert commands.run("ems", "cancel", "fails-to", env=reef.env).out.startswith("fails-too: nothing changed")
    wrong = commands.run("ems", "pause", "reff", env=reef.env)
    assert wrong.err == "error: there is no experiment reff; did you mean reef?\n"


def test_show_has_the_points_with_their_means_best_first(reef: commands.Deployment) -> None:
    """Points are in the order of their means over replicates, and a parameter is named by its path's last segment."""
    lines = commands.run("ems", "show", "reef", env=reef.env).out.splitlines()
    assert lines[0] == f"reef completed: {JOBS} of {JOBS} jobs ended (100%)"
    assert "  about: three temperatures" in lines
    table = [line.split() for line in lines[lines.index("") + 1 :]]
    assert table[0] == ["point", "n", "heat", "food", "population"]
    assert lines[-1] == "n: completed replicates; ±: 95 % confidence interval"
    means = {point: sum(population(point, replicate) for replicate in range(3)) / 3 for point in range(6)}
    assert [int(row[0]) for row in table[1:-1]] == sorted(means, key=lambda point: -means[point])
    for point, n, heat, food, mean, _, half in table[1:-1]:
        assert float(mean.replace(",", "")) == pytest.approx(means[int(point)], abs=float(half.replace(",", "")) / 10)
        assert n == "3"
        assert (heat, food) == (str((26, 28, 30)[int(point) // 2]), str((50, 100)[int(point) % 2]))


def test_failures_are_shown_with_their_reasons(reef: commands.Deployment) -> None:
    """Each reason is shown once under the outcome, with the number of its jobs and the id of a run that has it."""
    for command in ("show", "watch"):
        lines = commands.run("ems", command, "fails-too", env=reef.env).out.splitlines()
        [reason] = [line for line in lines if line.startswith("  18 x failed, simulation: ")]
        assert "(fails-too-p" in reason
    table = [line.split() for line in commands.run("ems", "show", "fails-too", env=reef.env).out.splitlines()]
    header = next(row for row in table if row[:1] == ["point"])
    assert header[:3] == ["point", "n", "problems"]
    assert " x " not in commands.run("ems", "show", "reef", env=reef.env).out


@pytest.mark.parametrize("columns", [40, 80])
def test_an_id_stays_whole_on_a_narrow_terminal(reef: commands.Deployment, columns: int) -> None:
    """Other columns are left out if the table doesn't fit, and no line is wider than the terminal."""
    screen = screens.run(columns, reef.env, "ls", "--flat")
    assert any(line.split()[:2] == ["fails-too", "failed"] for line in screen.lines)
    assert "not shown: " in screen.raw
    assert len(screen.lines) == len(screen.raw.splitlines())


@pytest.mark.parametrize("columns", [24, 40, 70])
def test_the_count_is_shown_on_a_narrow_terminal(reef: commands.Deployment, columns: int) -> None:
    """The bar's line has the numbers of ended jobs and of all jobs, whatever else fits."""
    shown = screens.run(columns, reef.env, "watch", "reef").raw
    assert f"{JOBS}/{JOBS}" in shown
    assert f"reef completed: {JOBS} of {JOBS} jobs ended (100%)" in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_exit_code_2(reef: commands.Deployment) -> None:
    """Output that can't be written ends the command with a message and without a traceback."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [commands.SCRIPTS / "ems", "ls"], stdout=full, stderr=subprocess.PIPE, env=reef.env, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (2, "error: the output can't be written: No space left on device\n")


def test_export_writes_one_line_per_job(reef: commands.Deployment, tmp_path: Path) -> None:
    """The values are the same in CSV and in JSON lines, in a file and on stdout."""
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
    file = tmp_path / "reef.jsonl"
    assert commands.run("ems", "export", "reef", "-o", str(file), env=reef.env).err == f"18 jobs in {file}\n"
    assert file.read_text().splitlines() == lines
    wrong = commands.run("ems", "export", "reef", "-o", str(tmp_path / "reef.xlsx"), env=reef.env)
    assert (wrong.code, "end the name in .csv or .jsonl, or give --format" in wrong.err) == (exits.Exit.USAGE, True)


def test_points_are_the_same_before_and_after(reef: commands.Deployment) -> None:
    """A plan lists the points, seeds and ids that its experiment has; the columns of jobs are those of the export."""
    for flags in ([], ["--jobs"], ["--jobs", "--format", "csv"], ["--format", "csv"], ["--format", "jsonl"]):
        before = commands.run("ems", "points", "-", *flags, stdin=PLAN)
        assert (before.code, before.err) == (exits.Exit.OK, "")
        assert commands.run("ems", "points", "reef", *flags, env=reef.env) == before
    jobs = commands.run("ems", "points", "reef", "--jobs", "--format", "jsonl", env=reef.env).out.splitlines()
    exported = commands.run("ems", "export", "reef", "--format", "jsonl", env=reef.env).out.splitlines()
    for job, whole in zip(map(json.loads, jobs), map(json.loads, exported), strict=True):
        assert job == {name: whole[name] for name in job}


def test_export_to_a_link_to_stdout_writes_to_stdout(reef: commands.Deployment, tmp_path: Path) -> None:
    """Neither the link, such as /dev/stdout, nor the file that the shell opened is replaced by a new file."""
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


def test_a_reader_that_stops_reading_ends_the_export_quietly(reef: commands.Deployment) -> None:
    """A closed pipe, as in `ems export reef | head -1`, is exit code 0 without a message."""
    with commands.start("ems", "export", "reef", "--format", "jsonl", env=reef.env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(timeout=60), process.stderr.read()) == (exits.Exit.OK, "")


def test_config_prints_the_configuration_of_a_run(reef: commands.Deployment, tmp_path: Path) -> None:
    """The configuration is YAML with the run's own parameters and seed, or JSON in a file that is called so."""
    ended = commands.run("ems", "config", "reef-p000003-r002-a1", env=reef.env)
    assert ended.code == exits.Exit.OK
    file = tmp_path / "run.json"
    written = commands.run("ems", "config", "reef-p3-r2", "-o", str(file), env=reef.env)
    assert written.err == f"the configuration of reef-p000003-r002-a1 in {file}\n"
    assert json.loads(file.read_text()) == yaml.safe_load(ended.out)
    rows = commands.run("ems", "export", "reef", "--format", "jsonl", env=reef.env).out.splitlines()
    seed = next(row["seed"] for row in map(json.loads, rows) if (row["point"], row["replicate"]) == (3, 2))
    assert yaml.safe_load(ended.out) == {"layer": {"food": 100, "heat": 28}, "run": {"seed": seed}}


def test_watch_of_an_ended_experiment_ends_at_once(reef: commands.Deployment) -> None:
    """The exit code is the experiment's, and --json prints the terminal status."""
    assert commands.run("ems", "watch", "reef", env=reef.env).code == exits.Exit.OK
    ended = commands.run("ems", "watch", "fails-too", "--json", env=reef.env)
    assert ended.code == exits.Exit.FAILED
    assert json.loads(ended.out)["state"] == "failed"


@pytest.mark.parametrize("command", ["show", "watch", "export", "points"])
def test_an_unknown_experiment_is_exit_code_1(reef: commands.Deployment, command: str) -> None:
    """Every command that takes an experiment's id reports that there is no such experiment."""
    ended = commands.run("ems", command, "nobody", env=reef.env)
    assert (ended.code, ended.out, ended.err) == (exits.Exit.FAILED, "", "error: there is no experiment nobody\n")


@pytest.mark.parametrize("run", ["reef-p000099-r000-a1", "reef-p000000-r000-a2", "no.such run"])
def test_an_unknown_run_is_exit_code_1(reef: commands.Deployment, run: str) -> None:
    """Neither an id that no run has nor a text that is not an id has a configuration."""
    ended = commands.run("ems", "config", run, env=reef.env)
    assert (ended.code, ended.out, ended.err) == (exits.Exit.FAILED, "", f"error: there is no run {run}\n")


def test_validate_needs_no_server(tmp_path: Path) -> None:
    """A valid plan gives its size, an invalid plan exit code 3 and its problems, and --json the decision document."""
    ended = commands.run("ems", "validate", "-", stdin=PLAN)
    assert (ended.code, ended.out) == (exits.Exit.OK, "<stdin> is valid: 6 points with 3 replicates each: 18 jobs\n")
    (tmp_path / "bad.yaml").write_text(PLAN.replace("layer.food: [50", "layer.fod: [50"))
    ended = commands.run("ems", "validate", str(tmp_path / "bad.yaml"))
    assert ended.code == exits.Exit.INVALID_PLAN
    assert f"{tmp_path}/bad.yaml:13:3: error: parameter_space.layer.fod: " in ended.err
    document = json.loads(commands.run("ems", "validate", "--json", "-", stdin=PLAN).out)
    assert (document["schema"], document["decision"], document["points"]) == ("ems.decision.v1", "accepted", 6)
    assert document["submission"] is None


async def test_without_server_or_worker_it_is_exit_code_4(tmp_path: Path) -> None:
    """The message says whether the NATS server or the worker is missing."""
    ended = commands.run("ems", "ls", "--server", f"127.0.0.1:{ports.free_port()}")
    assert (ended.code, "no NATS server" in ended.err) == (exits.Exit.UNREACHABLE, True)
    async with servers.NatsServer(tmp_path / "nats") as server:
        ended = commands.run("ems", "ls", "--server", server.url)
    assert (ended.code, "no worker answers" in ended.err) == (exits.Exit.UNREACHABLE, True)


@pytest.mark.long
def test_help_and_version_are_plain() -> None:
    """The help of every program lists the exit codes, and in a pipe it has no escape codes."""
    for name in ("ems", "ems-publish", "ems-worker"):
        ended = commands.run(name, "--help")
        assert ended.code == exits.Exit.OK
        assert "Exit codes: 0 ok, 1 failed" in " ".join(ended.out.split())
        assert "\x1b" not in ended.out
        assert commands.run(name, "--version").out.strip()


@pytest.mark.parametrize("command", ["ls", "up", "watch", "export", "points", "dlq ls"])
def test_help_describes_option_values_in_words(command: str) -> None:
    """An option's value is called NUMBER, NAME or SECONDS rather than by its Python type."""
    text = commands.run("ems", *command.split(), "--help").out
    assert re.findall(r"--[a-z-]+ <(?:str|int|float|path)\b.*", text) == []


def test_the_module_can_be_run_as_the_command() -> None:
    """`python -m ems_worker.cli.ems` is `ems`, for environments without the scripts on PATH."""
    done = subprocess.run(
        [sys.executable, "-m", "ems_worker.cli.ems", "validate", "-"],
        input=PLAN, env=commands.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "is valid" in done.stdout
