"""Every command on a terminal shows hostile text without any control sequence that the terminal would obey."""

import asyncio
import csv
import importlib.metadata
import io
import json
import os
import pty
import sys
import tty
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ems_worker.cli import ems, publish, worker
from ems_worker.conformance import cli as conformance
from tests.support import commands, hostile_words, servers, untrusted_orchestrator, untrusted_worker

H = hostile_words.ALL
# For file names: without the slash of an address.
NAME = f"{hostile_words.CLIPBOARD}{hostile_words.BIDI}\r{hostile_words.COLOR}"
REJECTED = {"experiment_id": H, H: H, "base_config": {H: H}, "parameter_space": {H: [H]}, "metrics_to_track": [H]}
GOOD = {
    "experiment_id": "reef",
    "description": H,
    "base_config": {"layer": {"word": H, "food": 1}},
    "parameter_space": {"layer.word": [H, "a"], "layer.food": [1, 2]},
}
# The arguments of each command. Arguments in capitals stand for files, see the fixture `path_of`.
ARGUMENTS: Mapping[str, Sequence[Sequence[str]]] = {
    "ems ls": [[], ["--json"], ["--flat", "--columns", "id,tags,name,publisher,reason"], ["--group", H]],
    "ems show": [["reef"], ["reef", "--json"], [f"{H}/"], [H]],
    "ems watch": [["reef"], ["reef", "--json"], ["reef", "--plain"], ["--timeout", "3"]],
    "ems points": [["reef"], ["reef", "--jobs", "--format", "csv"], ["PLAN"], ["GOOD"], ["GOOD", "--format", "jsonl"]],
    "ems submit": [["PLAN"], ["GOOD", "--dry-run"]],
    "ems jobs": [["reef"], ["reef", "--json"], ["reef", "--where", H]],
    "ems runs": [["reef"]],
    "ems doctor": [["--simulator", H], ["--json", "--simulator", H]],
    "ems results": [["reef"], ["reef", "--format", "jsonl"], ["reef", "-o", "/dev/tty"]],
    "ems validate": [["PLAN"], ["PLAN", "--json"], ["NAMED"]],
    "ems config": [["reef-p000000-r000-a1"], [H], [f"{H}-p0-r0"]],
    "ems plan": [["reef"]],
    "ems logs": [["reef-p000000-r000-a1"], ["reef-p000000-r000-a2", "--stderr"], [H]],
    "ems artifacts": [["reef-p000000-r000-a1"], ["reef-p000000-r000-a1", "--json"]],
    "ems download": [["reef-p000000-r000-a1"], ["reef"], ["reef-p000000-r000-a1", "-o", NAME]],
    "ems archive": [["reef", "--files", "-o", NAME]],
    "ems rm": [["reef", "--yes"], [H, "--yes"]],
    "ems reproduce": [["reef"], ["reef", "--id", H]],
    "ems pause": [["reef", "--now"]],
    "ems resume": [["reef"]],
    "ems cancel": [["reef", "--yes"], ["reef", "--where", H, "--dry-run"]],
    "ems retry": [["reef"], ["reef", "--json"]],
    "ems extend": [["reef", "--replicates", "5"], ["reef", "--add", f"{H}=["]],
    "ems set": [["reef", f"priority={H}"], ["reef", "priority=5"]],
    "ems close": [["reef"]],
    "ems exclude": [["reef", "--all", "--reason", H]],
    "ems include": [["reef"]],
    "ems schema": [[H]],
    "ems up": [["--simulator", H], [H]],
    "ems down": [["--data-dir", NAME]],
    "ems run": [[H], ["GOOD", "-o", "/dev/tty"], ["GOOD", "--set", f"{H}=1"], ["true", "--metric", H, "--dry-run"]],
    "ems dlq ls": [[], ["--json"]],
    "ems dlq show": [["1"], ["1", "--json"], ["2"]],
    "ems dlq replay": [["1"]],
    "ems dlq drop": [["1", "--server", f"nats://{NAME}"]],
    "ems-publish": [
        ["PLAN"],
        ["GOOD"],
        ["GOOD", "--publisher", "accepted", "--wait"],
        ["GOOD", "--dry-run"],
        ["NAMED"],
    ],
    "ems-worker run": [["--server", H], ["--config", "NAMED"]],
    "ems-worker provision": [["--server", f"nats://{NAME}"]],
    "ems-worker health": [[]],
    "ems-worker settings": [["--server", f"nats://{NAME}"], ["--server", f"nats://{NAME}", "--json"]],
    "ems-worker prune": [["--older-than", H]],
    "ems-worker backup": [["TARGET", "--data-dir", NAME]],
    "ems-worker restore": [[NAME]],
    "ems-conformance orchestrator": [["--orchestrator", NAME]],
    "ems-conformance simulator": [["--timeout", "5", "--", "SIMULATOR"]],
}
# A command of each program, and of each way of drawing, for every run of the tests.
QUICK = (
    "ems show",
    "ems points",
    "ems watch",
    "ems dlq ls",
    "ems validate",
    "ems logs",
    "ems artifacts",
    "ems download",
    "ems-worker health",
    "ems-conformance simulator",
)


def subcommands(name: str, command: Any) -> Iterator[str]:
    """Yields the full names of a group's commands, or the name of a command."""
    members = getattr(command, "commands", None)
    if members is None:
        yield name
    else:
        for member_name, member in members.items():
            yield from subcommands(f"{name} {member_name}", member)


def test_every_command_is_tested() -> None:
    """Each installed command and subcommand has arguments for the test below."""
    apps = {"ems": ems.app, "ems-publish": publish.app, "ems-worker": worker.app}
    known = {command for name, app in apps.items() for command in subcommands(name, typer.main.get_command(app))}
    known |= {f"ems-conformance {suite}" for suite in conformance.SUITES}
    assert set(ARGUMENTS) == known
    installed = importlib.metadata.distribution("ems-worker").entry_points.select(group="console_scripts")
    assert {script.name for script in installed} == {*apps, "ems-conformance"}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A broker with a worker that sends hostile text."""
    async with servers.NatsServer(tmp_path / "nats") as server, untrusted_worker.working(server.url):
        yield server.url


@pytest.fixture
async def health() -> AsyncIterator[str]:
    """The address of a worker that reports problems in hostile text."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"troubles": {H: H}}).encode()
        writer.write(b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@pytest.fixture
async def orchestrator() -> AsyncIterator[str]:
    """The address of an orchestrator that sends hostile text."""
    async with untrusted_orchestrator.working() as address:
        yield address


# The commands that ask the orchestrator.
ASKING = ("ems logs", "ems artifacts", "ems download", "ems archive")


@pytest.fixture
def path_of(tmp_path: Path) -> Callable[[str], str]:
    """Creates the files that arguments in capitals stand for, and returns a function that replaces these arguments."""
    (tmp_path / "plan.json").write_text(json.dumps(REJECTED, indent=1))
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    (tmp_path / f"{NAME}.yaml").write_text(f"{H}: [\n", encoding="utf-8")
    simulator = tmp_path / "simulator"
    simulator.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write({H!r})\nsys.exit(1)\n", encoding="utf-8")
    simulator.chmod(0o755)
    files = {"PLAN": "plan.json", "GOOD": "good.json", "NAMED": f"{NAME}.yaml", "SIMULATOR": "simulator", "TARGET": "t"}
    return lambda argument: str(tmp_path / files[argument]) if argument in files else argument


async def on_terminal(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> str:
    """Runs a command on a raw terminal and returns everything that the terminal receives."""
    main, terminal = pty.openpty()
    tty.setraw(terminal)
    process = await asyncio.create_subprocess_exec(
        "setsid", "--ctty", *command, stdin=terminal, stdout=terminal, stderr=terminal, env=dict(env), cwd=cwd
    )
    os.close(terminal)
    reading = asyncio.get_running_loop().run_in_executor(None, _read_all, main)
    async with asyncio.timeout(60):
        await process.wait()
        return (await reading).decode()


def _read_all(main: int) -> bytes:
    shown = b""
    try:
        while piece := os.read(main, 65536):
            shown += piece
    except OSError:  # how a terminal reports that its other side is closed
        pass
    os.close(main)
    return shown


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        pytest.param(command, arguments, marks=[] if command in QUICK else [pytest.mark.long])
        for command, calls in ARGUMENTS.items()
        for arguments in calls
    ],
    ids=lambda part: ascii(part)[:40],
)
async def test_nothing_hostile_reaches_a_terminal(
    command: str,
    arguments: Sequence[str],
    *,
    url: str,
    health: str,
    orchestrator: str,
    path_of: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """The text is shown without any control character except line ends and our own styles."""
    program, *subcommand = command.split()
    env = commands.environment(NATS_URL=url, EMS_HTTP=health, TERM="xterm-256color", LANG="C.UTF-8")
    if command in ASKING:
        env["EMS_ORCHESTRATOR"] = orchestrator
    command_line = [str(commands.SCRIPTS / program), *subcommand, *map(path_of, arguments)]
    shown = await on_terminal(command_line, env, tmp_path)
    assert hostile_words.WITNESS in shown
    assert "Traceback" not in shown
    assert not hostile_words.dangerous_characters(hostile_words.without_ours(shown))


async def piped(url: str, *arguments: str) -> bytes:
    """Runs `ems` and returns what it writes into a pipe."""
    command = [str(commands.SCRIPTS / "ems"), *arguments]
    env = commands.environment(NATS_URL=url)
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return out


@pytest.mark.long
async def test_data_in_a_pipe_is_unchanged(url: str) -> None:
    """Data is written byte for byte, and text for people is cleaned, as the pipe may end at a terminal."""
    assert await piped(url, "dlq", "show", "1") == H.encode()
    assert (await piped(url, "config", "reef-p000000-r000-a1")).decode() == f"food: {H}\n"
    line = json.loads(await piped(url, "export", "reef", "--format", "jsonl"))
    assert line["param." + H] == H
    [row] = csv.DictReader(io.StringIO((await piped(url, "export", "reef")).decode(), newline=""))
    assert row["param." + H] == H
    line = json.loads(await piped(url, "points", "reef", "--format", "jsonl"))
    assert line["param." + H] == H
    for arguments in (["ls"], ["show", "reef"], ["points", "reef"], ["ls", "--json"], ["dlq", "ls"]):
        shown = (await piped(url, *arguments)).decode()
        assert hostile_words.WITNESS in shown
        assert not hostile_words.dangerous_characters(shown)
