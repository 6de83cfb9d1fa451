"""A platform of `ems up` is open to the programs of its own user, without a login, and closed to all other users."""

import asyncio
import contextlib
import json
import os
import signal
import socketserver
import stat
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from ems_worker import client, errors, nats_access
from ems_worker.cli import exits
from ems_worker.local import platform as platforms
from ems_worker.local import ports
from tests.support import another_user, commands, processes, wait
from tests.support.local_platform import Up, plan, up

# A simulator that prints its environment and its command line.
NOSY = "sh -c 'env; cat /proc/self/cmdline; sleep 60'"

BREAK_IN = """
successes = {}
for name in given["files"]:
    try:
        pathlib.Path(name).open("rb").close()
        successes[name] = "read"
    except PermissionError:
        pass
for name in given["locks"]:
    try:
        os.close(os.open(name, os.O_RDWR | os.O_CREAT))
        successes[name] = "opened"
    except PermissionError:
        pass
try:
    socket.socket(socket.AF_UNIX).connect(given["socket"])
    successes[given["socket"]] = "connected"
except PermissionError:
    pass
broker = socket.create_connection(("127.0.0.1", given["port"]))
stream = broker.makefile("rwb")
stream.readline()
stream.write(b'CONNECT {"verbose": true}\\r\\nPING\\r\\n')
stream.flush()
print(json.dumps({"successes": successes, "broker": stream.readline().decode()}))
"""


@pytest.fixture
def public(swept: Path) -> Iterator[Path]:
    """A directory that every user of this machine may enter."""
    with tempfile.TemporaryDirectory(prefix="ems") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for pid in processes.mentioning(name):
            os.kill(pid, signal.SIGKILL)


def context_of(platform: Up) -> dict[str, str]:
    """The context file for other programs."""
    context: dict[str, str] = json.loads(Path(platform.addresses["context"]).read_text())
    return context


def everything_visible(platform: Up, directory: Path) -> list[bytes]:
    """The output of simulations, logs, command lines and environments of processes, and HTTP responses."""
    visible = [path.read_bytes() for path in [*directory.rglob("stdout"), *directory.rglob("*.log")]]
    for pid in [*processes.mentioning(str(directory)), platform.program.pid]:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # the process may have ended
                visible.append(Path(f"/proc/{pid}/{name}").read_bytes())
    for path in ("readyz", "healthz", "metrics"):
        with urllib.request.urlopen(f"{platform.addresses['http']}/{path}", timeout=5) as answer:
            visible.append(answer.read())
    return visible


async def test_another_user_has_no_access(public: Path) -> None:
    """Broker, orchestrator, files and locks are all closed to other users, even with a permissive umask."""
    (public / "data").mkdir()
    platform = await up(public, before="os.umask(0)")
    async with client.EmsClient(platform.addresses["nats_url"]) as ems:
        await ems.publish(plan())
        await ems.decision(1, timeout=60)
        await ems.wait("small")
    runtime = Path(os.environ["XDG_RUNTIME_DIR"], "ems-worker")
    created = [path for root in (public / "data", runtime) for path in (root, *root.rglob("*"))]
    names = {path.name for path in created}
    assert {"manifest.db-wal", "orchestrator.db", "worker.log", "ports.lock", "stdout", "EMS_PLANS"} <= names
    open_to_others = {
        str(path): oct(path.stat().st_mode) for path in created if not path.is_symlink() and path.stat().st_mode & 0o77
    }
    assert open_to_others == {}
    if os.geteuid() == 0:
        given = {
            "files": [str(path) for path in created],
            "locks": [str(public / "data" / "lock"), str(runtime / "ports.lock"), str(runtime / "new.lock")],
            "socket": platform.addresses["orchestrator"].removeprefix("unix:"),
            "port": int(platform.addresses["nats_url"].rpartition(":")[2]),
        }
        attempt = another_user.run(BREAK_IN, given)
        assert attempt["successes"] == {}
        assert "Authorization Violation" in attempt["broker"]
    await platform.program.stop(grace=30)


async def test_nats_requires_the_credentials_of_the_context_file(swept: Path) -> None:
    """A client without credentials is refused; any client that uses those of the context file is accepted."""
    platform = await up(swept)

    async def ignore(_: Exception) -> None:
        """Keeps nats-py from logging the error."""

    # Our client closes a connection that is refused; that of nats-py leaves it open.
    stranger = nats_access.Client(encrypted=False)
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await stranger.connect([platform.addresses["nats_url"]], allow_reconnect=False, error_cb=ignore)
    context = context_of(platform)
    connection = await nats.connect(context["url"], user=context["user"], password=context["password"])
    assert connection.is_connected
    await connection.close()
    await platform.program.stop(grace=30)


async def test_secrets_are_only_in_their_files(swept: Path) -> None:
    """No command line, environment, log, output of a simulation or HTTP response has the password or the token."""
    platform = await up(swept, simulator=NOSY, orchestrator_port=ports.free_port())
    secrets = {context_of(platform)["password"], (swept / "data" / "orchestrator" / "token").read_text()}
    async with client.EmsClient(platform.addresses["nats_url"]) as ems:
        await ems.publish(plan())
    runs = swept / "data" / "orchestrator" / "runs"

    def printed() -> bool:
        return any(b"SIMULATION_ID" in path.read_bytes() for path in runs.glob("*/stdout"))

    await wait.until(printed, timeout=30, what="a simulation to print its environment")
    visible = everything_visible(platform, swept)
    assert len(visible) > 15
    for secret in secrets:
        assert len(secret) > 32
        assert not any(secret.encode() in content for content in visible)
    await platform.program.stop(grace=30)


@pytest.mark.long
async def test_the_commands_of_the_user_need_only_the_address(swept: Path) -> None:
    """They use the credentials of the platform at that address; `ems-worker config` masks them and names the origin."""
    platform = await up(swept)
    env = commands.environment(NATS_URL=platform.addresses["nats_url"])
    published = await asyncio.to_thread(commands.run, "ems-publish", "-", "--wait", env=env, stdin=plan().decode())
    assert published.code == exits.Exit.OK, published.err
    for command in (("ls",), ("dlq", "ls"), ("show", "small")):
        ended = await asyncio.to_thread(commands.run, "ems", *command, env=env)
        assert ended.code == exits.Exit.OK, ended.err
    by_context = await asyncio.to_thread(
        commands.run, "ems", "ls", "--context", platform.addresses["context"], env=commands.environment()
    )
    assert "small" in by_context.out
    shown = await asyncio.to_thread(commands.run, "ems-worker", "config", "--json", env=env)
    password = next(line for line in map(json.loads, shown.out.splitlines()) if line["name"] == "nats_password")
    assert password["value"] == "***"
    assert password["source"].startswith("running platform /")
    assert context_of(platform)["password"] not in shown.out
    stranger = await asyncio.to_thread(commands.run, "ems", "ls", env={**env, "XDG_RUNTIME_DIR": "", "HOME": ""})
    assert stranger.code == exits.Exit.UNREACHABLE
    assert "refused the connection" in stranger.err
    await platform.program.stop(grace=30)
    after = await asyncio.to_thread(commands.run, "ems", "ls", env=env)
    assert "no NATS server" in after.err


@pytest.mark.long
async def test_a_connected_client_reconnects_to_the_next_platform(swept: Path) -> None:
    """Each start of a platform has new credentials, and a client that was connected rereads them."""
    port = ports.free_port()
    notices: list[str] = []
    platform = await up(swept, nats_port=port)
    before = context_of(platform)
    async with client.EmsClient(platform.addresses["nats_url"], notice=notices.append) as ems:
        assert [experiment async for experiment in ems.experiments()] == []
        await platform.program.stop(grace=30)
        platform = await up(swept, nats_port=port)
        assert context_of(platform)["password"] != before["password"]
        await wait.until(lambda: "reconnected to NATS" in notices, timeout=20, what="the client to be back")
        assert [experiment async for experiment in ems.experiments()] == []
    await platform.program.stop(grace=30)


@pytest.mark.long
async def test_the_credentials_of_a_killed_platform_are_not_used(swept: Path) -> None:
    """A program that later listens at the address of the platform never receives its credentials."""
    platform = await up(swept)
    port = int(platform.addresses["nats_url"].rpartition(":")[2])
    leftover = Path(os.environ["XDG_RUNTIME_DIR"], "ems-worker", f"{port}.json")
    os.kill(platform.program.pid, signal.SIGKILL)
    await platform.program.wait(timeout=10)
    await wait.until(lambda: not processes.mentioning(str(swept)), timeout=40, what="everything to end")
    assert leftover.name in os.listdir(leftover.parent)
    received: list[bytes] = []

    class Impostor(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b'INFO {"server_id": "x", "auth_required": true, "max_payload": 1000, "proto": 1}\r\n')
            received.append(self.rfile.readline())
            self.wfile.write(b"-ERR 'Authorization Violation'\r\n")

    with socketserver.ThreadingTCPServer((ports.LOOPBACK, port), Impostor) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        env = commands.environment(NATS_URL=platform.addresses["nats_url"])
        ended = await asyncio.to_thread(commands.run, "ems", "ls", env=env)
        server.shutdown()
    assert ended.code == exits.Exit.UNREACHABLE
    assert received
    assert not any(b"pass" in line for line in received)


@pytest.mark.long
async def test_the_orchestrator_listens_on_a_socket_if_a_path_is_short_enough(public: Path, swept: Path) -> None:
    """The socket is in the data directory or else in the runtime directory; otherwise a port with a token is used."""
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    deep = public / ("d" * 100)
    deep.mkdir()
    for directory, long_runtime in ((public, False), (deep, False), (deep, True)):
        env = dict(os.environ)
        if long_runtime:
            (runtime / ("r" * 100)).mkdir(0o700)
            env["XDG_RUNTIME_DIR"] = str(runtime / ("r" * 100))
        platform = await up(directory, env=env)
        target = platform.addresses["orchestrator"]
        token = directory / "data" / "orchestrator" / "token"
        if long_runtime:
            assert target.startswith(f"{ports.LOOPBACK}:")
            assert stat.S_IMODE(token.stat().st_mode) == 0o600
        else:
            within = runtime if directory is deep else directory
            assert Path(target.removeprefix("unix:")).is_relative_to(within)
            assert not token.exists()
        await platform.program.stop(grace=30)


async def test_a_directory_of_another_user_is_refused(public: Path) -> None:
    """That user could replace the configuration of the broker and the results of runs."""
    another_user.require_root()
    (public / "data" / "orchestrator").mkdir(parents=True)
    os.chown(public / "data" / "orchestrator", another_user.NOBODY, another_user.NOBODY)
    with pytest.raises(errors.FileUnwritable, match="another user may have created it") as refused:
        async with platforms.Platform(platforms.Options(public / "data"), print):
            pass
    assert exits.of(refused.value) is exits.Exit.USAGE
    assert processes.mentioning(str(public)) == {}


def test_the_help_of_the_command_names_the_default_of_the_orchestrator_port() -> None:
    """`ems up --help` states that the orchestrator listens on a Unix socket unless a port is given."""
    ended = subprocess.run([commands.SCRIPTS / "ems", "up", "--help"], capture_output=True, text=True)
    assert "Default: a Unix socket" in " ".join(ended.stdout.split())
