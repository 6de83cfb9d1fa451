"""`ems run`, `ems up -d` and `ems down`: from a script that knows nothing of us to its results."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ems_worker.cli import sweeps
from ems_worker.local.orchestrator import command
from tests.support import commands, processes, servers, wait

PAGE = (servers.ROOT / "docs" / "run.md").read_text()

SCRIPT = """\
import argparse, json, random, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--wait", default="")
given = parser.parse_args()
while given.wait and not __import__("os").path.exists(given.wait):
    time.sleep(0.02)
print("epoch 1 of 1")
print(json.dumps({"score": given.lr + given.seed, "loss": 1 - given.lr, "name": "x"}))
"""
TRAIN = f"{sys.executable} train.py --lr {{lr}} --seed {{seed}}"


@pytest.fixture
def work(swept: Path) -> Path:
    """A directory with the script."""
    (swept / "train.py").write_text(SCRIPT)
    return swept


def start(work: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Starts `ems` in this directory."""
    env = commands.environment(HOME=str(work), PATH=f"{commands.SCRIPTS}:{os.environ['PATH']}")
    return subprocess.Popen(
        [commands.SCRIPTS / "ems", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=work,
        text=True,
    )


def ems(work: Path, *arguments: str) -> commands.Ended:
    """Runs `ems` in this directory to its end."""
    with start(work, *arguments) as process:
        out, err = process.communicate(timeout=100)
    assert "Traceback" not in err, err
    return commands.Ended(process.returncode, out, err)


def run(work: Path, *arguments: str) -> commands.Ended:
    return ems(work, "run", *arguments, "--data-dir", str(work / "data"))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def until_said(process: "subprocess.Popen[str]", text: str) -> None:
    """Waits until a line of its standard error has this text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it ended without {text!r}")


def test_a_script_runs_from_values_to_results(work: Path) -> None:
    """A platform starts and ends with it; the table has n and intervals, best first; the CSV has all jobs."""
    ended = run(work, TRAIN, "lr=0.1,0.3", "--replicates", "3", "--metric", "score:max", "-o", "out.csv")
    assert ended.code == 0, ended
    assert "2 points with 3 replicates each: 6 jobs" in ended.err
    lines = [line.split() for line in ended.out.splitlines()]
    header = lines.index(["point", "n", "lr", "score"])
    assert lines[header + 1 : header + 3] == [
        ["1", "3", "0.3", "2.3", "±", "2.5"],
        ["0", "3", "0.1", "2.1", "±", "2.5"],
    ]
    results = rows(work / "out.csv")
    assert [(row["param.lr"], row["seed"], row["metric.score"]) for row in results[:3]] == [
        ("0.1", "1", "1.1"),
        ("0.1", "2", "2.1"),
        ("0.1", "3", "3.1"),
    ]
    [version] = {row["model_version"] for row in results}
    assert f"version   {version}" in ended.err
    [entry] = (work / "data" / "orchestrator" / "simulators").glob("*/simulator.json")
    assert json.loads(entry.read_text())["model_version"] == version
    assert (entry.parent / "files" / "train.py").read_text() == SCRIPT
    assert processes.mentioning(str(work)) == {}


def test_a_platform_in_the_background_is_used_by_all_commands(work: Path) -> None:
    """It has another simulator; `ems run` adds its own. A second start says that it runs; `ems down` stops it."""
    data = ("--data-dir", str(work / "data"))
    up = ems(work, "up", "-d", *data, "--simulator", "sh -c 'echo loss=1'", "--slots", "2", "--model-version", "v7")
    assert up.code == 0, up
    assert "simulator     sh -c 'echo loss=1', 2 at once" in up.out
    assert "ems down" in up.out
    again = ems(work, "up", "-d", *data)
    assert (again.code, again.out) == (0, "")
    assert "runs in" in again.err
    assert ems(work, "up", "-d", *data, "--slots", "1").code == 2
    assert ems(work, "up", *data).code == 2

    assert run(work, TRAIN, "lr=1", "--metric", "score", "-o", "mine.csv").code == 0
    assert [row["metric.score"] for row in rows(work / "mine.csv")] == ["2.0"]
    plan = {"name": "p", "base_config": {"opt": {"lr": 1}}, "parameters": {"opt.lr": [1, 2]}, "metrics": ["loss"]}
    (work / "plan.json").write_text(json.dumps(plan))
    assert run(work, "plan.json", "-o", "theirs.csv").code == 0
    assert [(row["metric.loss"], row["model_version"]) for row in rows(work / "theirs.csv")] == [("1.0", "v7")] * 2
    simulator = f"{sys.executable} train.py --lr {{opt.lr}}"
    ended = run(
        work, "plan.json", "--simulator", simulator, "--set", "opt.lr=5", "--set", "replicates=2", "-o", "x.jsonl"
    )
    assert ended.code == 0, ended
    results = [json.loads(line) for line in (work / "x.jsonl").read_text().splitlines()]
    assert sorted(row["metric.loss"] for row in results) == [-1.0, -1.0, 0.0, 0.0]

    broken = run(work, f"{sys.executable} train.py --lrr {{lr}}", "lr=1", "--metric", "score")
    assert broken.code == 1
    assert "error: the following arguments are required: --lr" in broken.out
    down = ems(work, "down", *data)
    assert down.code == 0
    assert down.out.startswith("stopped; ")
    assert processes.mentioning(str(work)) == {}
    assert ems(work, "down", *data).code == 1

    later = ems(work, "up", "-d", *data)
    assert "simulator     sh -c 'echo loss=1'" in later.out
    assert ems(work, "down", *data).code == 0
    assert "the built-in fish" in ems(work, "up", "-d", *data, "--simulator", "").out
    assert ems(work, "down", *data).code == 0


async def test_ctrl_c_says_what_goes_on_and_the_next_start_continues(work: Path) -> None:
    """The platform of an `ems run` stops with it, the runs start again; one in the background goes on."""
    waiting = f"{TRAIN} --wait {work}/go"
    data = ("--data-dir", str(work / "data"))
    process = start(work, "run", waiting, "lr=1,2", "--metric", "score", *data)
    until_said(process, "running: ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "jobs ended: it goes on with the next `ems up --data-dir" in err
    assert "Traceback" not in err
    assert processes.mentioning(str(work)) == {}

    assert ems(work, "up", "-d", *data).code == 0
    process = start(work, "run", waiting, "lr=3", "--metric", "score", *data)
    until_said(process, "running: ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "it goes on; follow it with: ems watch" in err
    (work / "go").touch()
    server = ("--context", str(work / "data" / "nats" / "context.json"))

    def completed() -> bool:
        listed = ems(work, "ls", "--json", *server).out.splitlines()
        return [json.loads(line)["state"] for line in listed] == ["completed", "completed"]

    await wait.until(completed, timeout=60, what="both experiments to complete")
    assert ems(work, "down", *data).code == 0


@pytest.mark.parametrize("said", ["4 points", "starting nats-server"])
def test_ctrl_c_while_it_starts_leaves_nothing(work: Path, said: str) -> None:
    """Nothing was sent, no process is left, and one line says so."""
    process = start(work, "run", TRAIN, "lr=1..4", "--metric", "score", "--data-dir", str(work / "data"))
    until_said(process, said)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    # Before the event loop runs, there is nothing that could have been sent, and nothing to say.
    assert err.splitlines()[-1:] in ([], ["interrupted; nothing was sent"])
    assert processes.mentioning(str(work)) == {}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["python", "train.py", "--lr", "1"], 2, "a command is one word, in quotes"),
        ([f"{sys.executable} train.py {{lrr}}", "lr=1"], 2, "did you mean {lr}?"),
        (["nobody-has-this {lr}", "lr=1"], 2, "no executable program 'nobody-has-this'"),
        ([TRAIN, "lr=1", "--set", "zzz=1", "--config", "base.yaml"], 2, "have 'zzz'"),
        ([TRAIN, "rl=1", "--config", "base.yaml"], 3, "the base configuration has no 'rl'"),
        (["missing.yaml"], 2, "can't be read"),
        (["plan.json", "lr=1"], 2, "--set"),
        (["plan.json", "--simulator", f"{sys.executable} train.py {{lrr}}"], 2, "did you mean {lr}?"),
        ([TRAIN, "lr=1", "--simulator", "x"], 2, "first argument"),
        ([TRAIN, "lr=1", "-o", "x.xlsx"], 2, "should end in .csv or .jsonl"),
        ([TRAIN, "lr=1", "-o", "missing/x.csv"], 2, "can be written to"),
        ([TRAIN, "lr=1", "--server", "nats://127.0.0.1:1"], 2, "no platform of `ems up` on this machine"),
    ],
)
def test_mistakes_are_found_before_anything_starts(
    work: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    """With the remedy."""
    (work / "base.yaml").write_text("lr: 1\n")
    (work / "plan.json").write_text('{"name": "x", "base_config": {"lr": 1}, "parameters": {"lr": [1]}}')
    ended = ems(work, "run", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert not (work / "ems-data").exists()


def test_a_dry_run_prints_the_plan(work: Path) -> None:
    """It can be kept and run as a file; what the command line leaves out is said."""
    ended = ems(work, "run", f"{sys.executable} train.py", "lr=0.1,0.2", "--replicates", "2", "--dry-run")
    assert ended.code == 0
    (work / "kept.yaml").write_text(ended.out)
    assert "warning: lr is in no placeholder" in ended.err
    assert "warning: the command has no {seed}" in ended.err
    assert "kept.yaml is valid: 2 points with 2 replicates each: 4 jobs" in ems(work, "validate", "kept.yaml").out


@pytest.mark.parametrize("line", re.findall(r"^\$ (ems run .*)$", PAGE, re.M))
def test_the_commands_of_the_page_are_accepted(work: Path, line: str) -> None:
    """Each as it stands, without being carried out."""
    (work / "plan.yaml").write_text("name: x\nbase_config: {learning: {rate: 1}}\nparameters: {learning.rate: [1]}\n")
    ended = ems(work, *shlex.split(line)[1:], "--dry-run")
    assert ended.code == 0, ended


def test_the_page_has_all_placeholders_and_options() -> None:
    """Each in its table."""
    placeholders = set(re.findall(r"^\| `\{([\w.]+)\}`", PAGE, re.M))
    assert placeholders == {*command.FIXED, "NAME"} - {"output_dir"}
    words = re.findall(r"^\| `(\w+)=(.*?)` \|", PAGE, re.M)
    assert len(words) == 8
    for name, values in words:
        sweeps.axis(name, values)
