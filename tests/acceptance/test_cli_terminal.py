"""Every command on a terminal, fed with hostile words: they are shown, and there is nothing that a terminal obeys."""

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
from tests.support import commands, hostile_words, servers, untrusted_worker

H = hostile_words.ALL
# In names of files: without the slash of an address.
NAME = f"{hostile_words.CLIPBOARD}{hostile_words.BIDI}\r{hostile_words.COLOR}"
REJECTED = {"experiment_id": H, H: H, "base_config": {H: H}, "parameter_space": {H: [H]}, "metrics_to_track": [H]}
GOOD = {
    "experiment_id": "reef",
    "description": H,
    "base_config": {"layer": {"word": H, "food": 1}},
    "parameter_space": {"layer.word": [H, "a"], "layer.food": [1, 2]},
}
# What each command is given: its words, `PLAN` and `GOOD` being files with the plans above.
FED: Mapping[str, Sequence[Sequence[str]]] = {
    "ems ls": [[], ["--json"]],
    "ems show": [["reef"], ["reef", "--json"]],
    "ems watch": [["reef"], ["reef", "--json"]],
    "ems export": [["reef"], ["reef", "--format", "jsonl"], ["reef", "-o", "/dev/tty"]],
    "ems validate": [["PLAN"], ["PLAN", "--json"], ["NAMED"]],
    "ems config": [["reef-p000000-r000-a1"]],
    "ems retry": [["reef"], ["reef", "--json"]],
    "ems resume": [["reef"]],
    "ems schema": [[H]],
    "ems up": [["--simulator", H], [H]],
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
    "ems-worker config": [["--server", f"nats://{NAME}"], ["--server", f"nats://{NAME}", "--json"]],
    "ems-worker backup": [["TARGET", "--data-dir", NAME]],
    "ems-worker restore": [[NAME]],
    "ems-conformance orchestrator": [["--orchestrator", NAME]],
    "ems-conformance simulator": [["--timeout", "5", "--", "SIMULATOR"]],
}
# A command of each program, and of each way of drawing, for every run of the tests.
QUICK = ("ems show", "ems watch", "ems dlq ls", "ems validate", "ems-worker health", "ems-conformance simulator")


def subcommands(name: str, command: Any) -> Iterator[str]:
    """The full names of a command, or of those below it."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name
    else:
        for word, one in below.items():
            yield from subcommands(f"{name} {word}", one)


def test_no_command_is_forgotten() -> None:
    """Each one that is installed, with each of its subcommands, is fed below."""
    apps = {"ems": ems.app, "ems-publish": publish.app, "ems-worker": worker.app}
    found = {one for name, app in apps.items() for one in subcommands(name, typer.main.get_command(app))}
    found |= {f"ems-conformance {what}" for what in conformance._SUITES}
    assert set(FED) == found
    installed = importlib.metadata.distribution("ems-worker").entry_points.select(group="console_scripts")
    assert {one.name for one in installed} == {*apps, "ems-conformance"}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A broker with a worker that can't be trusted."""
    async with servers.NatsServer(tmp_path / "nats") as server, untrusted_worker.working(server.url):
        yield server.url


@pytest.fixture
async def health() -> AsyncIterator[str]:
    """Where something answers that isn't well, in hostile words."""

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
def place(tmp_path: Path) -> Callable[[str], str]:
    """Makes the files that stand for words in capitals."""
    (tmp_path / "plan.json").write_text(json.dumps(REJECTED, indent=1))
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    (tmp_path / f"{NAME}.yaml").write_text(f"{H}: [\n", encoding="utf-8")
    simulator = tmp_path / "simulator"
    simulator.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write({H!r})\nsys.exit(1)\n", encoding="utf-8")
    simulator.chmod(0o755)
    files = {"PLAN": "plan.json", "GOOD": "good.json", "NAMED": f"{NAME}.yaml", "SIMULATOR": "simulator", "TARGET": "t"}
    return lambda word: str(tmp_path / files[word]) if word in files else word


async def on_terminal(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> str:
    """All that a terminal gets which such a command is started on; it changes nothing about the bytes."""
    main, terminal = pty.openpty()
    tty.setraw(terminal)
    process = await asyncio.create_subprocess_exec(
        "setsid", "--ctty", *command, stdin=terminal, stdout=terminal, stderr=terminal, env=dict(env), cwd=cwd
    )
    os.close(terminal)
    reading = asyncio.get_running_loop().run_in_executor(None, _all, main)
    async with asyncio.timeout(60):
        await process.wait()
        return (await reading).decode()


def _all(main: int) -> bytes:
    shown = b""
    try:
        while piece := os.read(main, 65536):
            shown += piece
    except OSError:  # how a terminal says that its other side is closed
        pass
    os.close(main)
    return shown


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        pytest.param(command, words, marks=[] if command in QUICK else [pytest.mark.long])
        for command, ways in FED.items()
        for words in ways
    ],
    ids=lambda part: ascii(part)[:40],
)
async def test_nothing_hostile_reaches_a_terminal(
    command: str, arguments: Sequence[str], url: str, health: str, place: Callable[[str], str], tmp_path: Path
) -> None:
    """The words are there to be read, without any control character but line ends and our own styles."""
    program, *below = command.split()
    env = commands.environment(NATS_URL=url, EMS_HTTP=health, TERM="xterm-256color", LANG="C.UTF-8")
    words = [str(commands.SCRIPTS / program), *below, *(place(word) for word in arguments)]
    shown = await on_terminal(words, env, tmp_path)
    assert hostile_words.WITNESS in shown
    assert "Traceback" not in shown
    assert not hostile_words.found(hostile_words.without_ours(shown))


async def piped(url: str, *words: str) -> bytes:
    """What a command writes into a pipe."""
    command = [str(commands.SCRIPTS / "ems"), *words]
    env = commands.environment(NATS_URL=url)
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return out


async def test_data_in_a_pipe_is_left_as_it_is(url: str) -> None:
    """Byte for byte; what is for people is clean there too, as the pipe may end in a terminal."""
    assert await piped(url, "dlq", "show", "1") == H.encode()
    assert (await piped(url, "config", "reef-p000000-r000-a1")).decode() == f"food: {H}\n"
    line = json.loads(await piped(url, "export", "reef", "--format", "jsonl"))
    assert line["param." + H] == H
    [row] = csv.DictReader(io.StringIO((await piped(url, "export", "reef")).decode(), newline=""))
    assert row["param." + H] == H
    for words in (["ls"], ["show", "reef"], ["ls", "--json"], ["dlq", "ls"]):
        shown = (await piped(url, *words)).decode()
        assert hostile_words.WITNESS in shown
        assert not hostile_words.found(shown)
