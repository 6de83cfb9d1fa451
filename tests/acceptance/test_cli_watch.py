"""`ems watch`: a live screen on a terminal of any size, which it leaves as it was; lines and documents elsewhere."""

import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping

import pytest

from ems_worker.cli import exits
from tests.support import commands, live_terminal

PLAN = """\
experiment_id: {name}
experiment_name: A reef in the heat
group: {group}
base_config: {{food: 100, heat: 1}}
parameter_space: {{food: [50, 100, 150], heat: [1, 2]}}
num_replicates_per_run: 5
metrics_to_track: [{{name: population, goal: maximize}}]
limits: {{max_attempts: 1, max_failed: 100%}}
"""
BAR = "▒"


def publish(deployment: commands.Deployment, name: str, group: str = "watched") -> None:
    """An experiment of 30 jobs in 6 points."""
    ended = commands.run("ems", "submit", "-", env=deployment.env, stdin=PLAN.format(name=name, group=group))
    assert ended.code == exits.Exit.OK, ended


@contextlib.asynccontextmanager
async def watching(
    deployment: commands.Deployment,
    *arguments: str,
    columns: int = 80,
    rows: int = 24,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[live_terminal.LiveTerminal]:
    command = [str(commands.SCRIPTS / "ems"), "watch", *arguments]
    ours = {name: value for name, value in deployment.env.items() if name != "NO_COLOR"}
    ours |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    async with live_terminal.opened(command, {**ours, **(env or {})}, columns, rows) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def slow(deployment: commands.Deployment) -> commands.Deployment:
    """A deployment with an experiment whose runs don't end."""
    publish(deployment, "slow-screen")
    return deployment


@pytest.mark.parametrize("columns", [80, 60])
async def test_the_screen_shows_what_runs(slow: commands.Deployment, columns: int) -> None:
    """Id, state, bar, numbers, the runs; nothing is wider than the terminal, and the keys are on the last line."""
    async with watching(slow, "slow-screen", columns=columns) as terminal:
        await terminal.shows("slow-screen  running", "A reef in the heat", "0 of 30 jobs ended (0%)", "running now  30")
        await terminal.shows("slow-screen-p000000-r000-a1", "▒ 30 running")
        lines = terminal.lines
        assert lines[1] == BAR * min(columns, 76)
        assert lines[-1] == "p pause   c cancel   q quit"
        shown = [line for line in lines if line.startswith("slow-screen-p")]
        more = next(line for line in lines if line.startswith("... and"))
        assert len(shown) + int(more.split()[2]) == 30
        terminal.press("q")
        assert await terminal.ended() == exits.Exit.OK
        assert b"the experiment continues; follow it with: ems watch slow-screen" in terminal.received


async def test_the_screen_follows_the_size_of_the_window(slow: commands.Deployment) -> None:
    """It is drawn again at once, with what fits now."""
    async with watching(slow, "slow-screen", env={"COLUMNS": "100"}) as terminal:
        await terminal.shows("running now  30", "p pause")
        terminal.resize(60, 14)
        await terminal.until(lambda: terminal.lines[1] == BAR * 60 and terminal.lines[-1].startswith("p pause"))
        assert len(terminal.lines) == 14
        terminal.resize(100, 40)
        await terminal.until(lambda: terminal.lines[1] == BAR * 76 and terminal.lines[39].startswith("p pause"))
        terminal.press("q")
        assert await terminal.ended() == exits.Exit.OK


async def test_colours_can_be_turned_off(slow: commands.Deployment) -> None:
    """With NO_COLOR the screen has no colour, and without it the bar has."""
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        async with watching(slow, "slow-screen", env=env) as terminal:
            await terminal.shows(BAR * 76)
            terminal.press("q")
            await terminal.ended()
            assert (b"\x1b[33m" in terminal.received) is coloured
            assert b"\x1b[31m" not in terminal.received


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, exits.Exit.INTERRUPTED),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGHUP),
        (signal.SIGQUIT, -signal.SIGQUIT),
    ],
)
async def test_a_signal_leaves_the_terminal_as_it_was(
    slow: commands.Deployment, number: signal.Signals, code: int
) -> None:
    """The screen, the cursor and what is typed: the shell that is there afterwards works as before."""
    async with watching(slow, "slow-screen") as terminal:
        before = terminal.modes
        await terminal.shows("running now  30")
        assert terminal.modes != before
        terminal.process.send_signal(number)
        assert await terminal.ended() == code
        assert terminal.modes == before
        assert terminal.received.count(b"\x1b[?1049h") == terminal.received.count(b"\x1b[?1049l") == 1
        assert terminal.received.rindex(b"\x1b[?25h") > terminal.received.rindex(b"\x1b[?25l")
        assert b"Traceback" not in terminal.received
        assert b"the experiment continues" in terminal.received


async def test_ctrl_c_is_a_signal_on_the_screen_too(slow: commands.Deployment) -> None:
    """It is not read as a key. Nothing is said but what goes on."""
    async with watching(slow, "slow-screen") as terminal:
        await terminal.shows("running now  30")
        terminal.press("\x03")
        assert await terminal.ended() == exits.Exit.INTERRUPTED
        last = terminal.received.decode().rpartition("\x1b[?1049l")[2].split()
        assert " ".join(last) == "the experiment continues; follow it with: ems watch slow-screen"


async def test_a_suspended_screen_leaves_the_terminal_and_comes_back(slow: commands.Deployment) -> None:
    """Ctrl-Z gives the terminal back to the shell, and `fg` draws the screen again."""
    async with watching(slow, "slow-screen") as terminal:
        before = terminal.modes
        await terminal.shows("running now  30")
        during = terminal.modes
        terminal.press("\x1a")
        await terminal.until(lambda: terminal.modes == before)
        await terminal.until(lambda: terminal.received.endswith(b"\x1b[?25h\x1b[?1049l"))
        os.kill(terminal.process.pid, signal.SIGCONT)
        await terminal.until(lambda: terminal.modes == during)
        terminal.press("q")
        assert await terminal.ended() == exits.Exit.OK
        assert terminal.modes == before


async def test_keys_pause_resume_and_cancel(deployment: commands.Deployment) -> None:
    """Cancelling asks first; when the experiment has ended, the summary is printed on the terminal as it was."""
    publish(deployment, "slow-keys")
    async with watching(deployment, "slow-keys") as terminal:
        await terminal.shows("slow-keys  running", "running now  30")
        terminal.press("p")
        await terminal.shows("slow-keys: paused, no more jobs start", "p resume", "paused by a person")
        terminal.press("p")
        await terminal.shows("slow-keys: resumed, and running", "p pause")
        terminal.press("c")
        await terminal.shows("cancel slow-keys and its 30 open jobs?", "y yes   n no")
        terminal.press("n")
        await terminal.until(lambda: terminal.lines[-1].startswith("p pause"))
        terminal.press("c")
        await terminal.shows("open jobs?")
        terminal.press("y")
        assert await terminal.ended() == exits.Exit.FAILED
        summary = terminal.received.decode().rpartition("\x1b[?1049l")[2]
        assert summary.startswith("slow-keys cancelled: 30 of 30 jobs ended (100%), 30 cancelled")


async def test_the_best_points_and_the_reasons_are_on_the_screen(deployment: commands.Deployment) -> None:
    """Opened from the list, the screen of an ended experiment stays until a key is pressed."""
    publish(deployment, "fails-shown", "shown")
    publish(deployment, "good-shown", "shown")
    for name in ("fails-shown", "good-shown"):
        commands.run("ems", "watch", name, env=deployment.env)
    async with watching(deployment, "--group", "shown", columns=60) as terminal:
        await terminal.shows("> good-shown", "fails-shown", "30/30", "up/down choose")
        terminal.press("\r")
        await terminal.shows(
            "best points  by population, highest first", "mean", "95 %", "heat", "good-shown  completed"
        )
        best = [line.split() for line in terminal.lines if "±" in line]
        assert len(best) == 6
        means = [float(words[1]) for words in best]
        assert means == sorted(means, reverse=True)
        assert {words[4] for words in best} == {"5"}
        terminal.press("q")
        await terminal.shows("up/down choose")
        terminal.press("\x1b[B\r")
        await terminal.shows(
            "why jobs did not complete", "failed, simulation:", "  30  fails-shown-p", "fails-shown  completed"
        )
        terminal.press("c")
        await terminal.shows("fails-shown has ended")
        terminal.press("\x1b")
        await terminal.shows("up/down choose")
        terminal.press("q")
        assert await terminal.ended() == exits.Exit.OK


async def test_an_experiment_in_the_list_can_be_paused(slow: commands.Deployment) -> None:
    """Keys are about the chosen one."""
    publish(slow, "slow-listed", "chosen")
    async with watching(slow, "--group", "chosen") as terminal:
        await terminal.shows("> slow-listed  running", "0/30")
        terminal.press("p")
        await terminal.shows("slow-listed: paused, no more jobs start", "> slow-listed  paused")
        terminal.press("q")
        assert await terminal.ended() == exits.Exit.OK


async def test_a_dumb_terminal_gets_no_screen(deployment: commands.Deployment) -> None:
    """Lines as in a pipe, or a bar that is only printed, and no sequence that it would show as rubbish."""
    publish(deployment, "good-dumb")
    async with watching(deployment, "good-dumb", env={"TERM": "dumb"}) as terminal:
        assert await terminal.ended() == exits.Exit.OK
        assert b"\x1b[?1049" not in terminal.received
        assert b"good-dumb completed: 30 of 30 jobs ended (100%)" in terminal.received


def test_without_a_terminal_all_open_experiments_are_followed_in_lines(deployment: commands.Deployment) -> None:
    """Until none is open; each line names its experiment. With --json they are documents."""
    publish(deployment, "good-line", "lines")
    ended = commands.run("ems", "watch", "--group", "nobody", env=deployment.env)
    assert (ended.code, ended.err) == (exits.Exit.OK, "no experiment is open\n")
    publish(deployment, "slow-line", "lines")
    ended = commands.interrupted("ems", "watch", "--group", "lines", after="slow-line: running", env=deployment.env)
    assert ended.code == exits.Exit.INTERRUPTED
    assert ended.err.endswith("the experiments continue; follow them with: ems watch\n")
    commands.run("ems", "cancel", "slow-line", "--wait", env=deployment.env)
    publish(deployment, "slow-document", "documents")
    with commands.start("ems", "watch", "--group", "documents", "--json", env=deployment.env) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["schema"], first["experiment_id"]) == ("ems.status.v1", "slow-document")
        commands.run("ems", "cancel", "slow-document", "--wait", env=deployment.env)
        *_, last = process.stdout.read().splitlines()
        assert json.loads(last)["state"] == "cancelled"
        assert process.wait(60) == exits.Exit.OK


def test_an_id_and_a_group_are_too_much(deployment: commands.Deployment) -> None:
    """One of them, or neither."""
    ended = commands.run("ems", "watch", "x", "--group", "y", env=deployment.env)
    assert ended.code == exits.Exit.USAGE
