"""`ems up` is its own user's: nobody else on the machine gets in, and that user's programs do without being asked."""

import asyncio
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

from ems_worker import client, errors
from ems_worker.adapters import nats_access
from ems_worker.cli import exits
from ems_worker.local import platform as platforms
from ems_worker.local import ports
from tests.support import another_user, commands, processes, wait
from tests.support.local_platform import Up, plan, up

# Tells what it was started with, and stays.
NOSY = "sh -c 'env; cat /proc/self/cmdline; sleep 60'"

BREAK_IN = """
came = {}
for name in given["files"]:
    try:
        pathlib.Path(name).open("rb").close()
        came[name] = "read"
    except PermissionError:
        pass
for name in given["locks"]:
    try:
        os.close(os.open(name, os.O_RDWR | os.O_CREAT))
        came[name] = "taken"
    except PermissionError:
        pass
try:
    socket.socket(socket.AF_UNIX).connect(given["socket"])
    came[given["socket"]] = "connected"
except PermissionError:
    pass
broker = socket.create_connection(("127.0.0.1", given["port"]))
stream = broker.makefile("rwb")
stream.readline()
stream.write(b'CONNECT {"verbose": true}\\r\\nPING\\r\\n')
stream.flush()
print(json.dumps({"came": came, "broker": stream.readline().decode()}))
"""


@pytest.fixture
def street(swept: Path) -> Iterator[Path]:
    """A directory that every user of this machine may enter, for the data of platforms."""
    with tempfile.TemporaryDirectory(prefix="ems") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for pid in processes.mentioning(name):
            os.kill(pid, signal.SIGKILL)


def context_of(here: Up) -> dict[str, str]:
    """What the platform says for other programs."""
    found: dict[str, str] = json.loads(Path(here.addresses["context"]).read_text())
    return found


def everything_seen(here: Up, directory: Path) -> list[bytes]:
    """What others could see: output and environment of simulations, logs, processes, and what is served by HTTP."""
    seen = [path.read_bytes() for path in [*directory.rglob("stdout"), *directory.rglob("*.log")]]
    for pid in [*processes.mentioning(str(directory)), here.program.pid]:
        seen += [Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()]
    for path in ("readyz", "healthz", "metrics"):
        with urllib.request.urlopen(f"{here.addresses['http']}/{path}", timeout=5) as answer:
            seen.append(answer.read())
    return seen


async def test_another_user_gets_nowhere(street: Path) -> None:
    """Neither to the broker nor to the orchestrator, to no file, and to no lock; though the umask is wide open."""
    (street / "data").mkdir()
    here = await up(street, before="os.umask(0)")
    async with client.EmsClient(here.addresses["nats_url"]) as ems:
        await ems.publish(plan())
        async with asyncio.timeout(60):
            await ems.decision(1, timeout=60)
            await ems.wait("small")
    runtime = Path(os.environ["XDG_RUNTIME_DIR"], "ems-worker")
    made = [path for root in (street / "data", runtime) for path in (root, *root.rglob("*"))]
    names = {path.name for path in made}
    assert {"manifest.db-wal", "orchestrator.db", "worker.log", "ports.lock", "stdout", "EMS_PLANS"} <= names
    wide = {
        str(path): oct(path.stat().st_mode) for path in made if not path.is_symlink() and path.stat().st_mode & 0o77
    }
    assert wide == {}
    if os.geteuid() == 0:
        given = {
            "files": [str(path) for path in made],
            "locks": [str(street / "data" / "lock"), str(runtime / "ports.lock"), str(runtime / "new.lock")],
            "socket": here.addresses["orchestrator"].removeprefix("unix:"),
            "port": int(here.addresses["nats_url"].rpartition(":")[2]),
        }
        found = another_user.runs(BREAK_IN, given)
        assert found["came"] == {}
        assert "Authorization Violation" in found["broker"]
    await here.program.stop(grace=30)


async def test_without_credentials_nats_lets_nobody_in(swept: Path) -> None:
    """Whoever it is; with those of the printed file any program gets in."""
    here = await up(swept)

    async def nothing(_: Exception) -> None:
        """nats-py would log it."""

    # Ours, which closes the connection on which it is refused; nats-py's own leaves it open.
    stranger = nats_access.Client(encrypted=False)
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await stranger.connect([here.addresses["nats_url"]], allow_reconnect=False, error_cb=nothing)
    found = context_of(here)
    connection = await nats.connect(found["url"], user=found["user"], password=found["password"])
    assert connection.is_connected
    await connection.close()
    await here.program.stop(grace=30)


async def test_secrets_are_in_their_files_only(swept: Path) -> None:
    """In no command line, no environment (those of simulations included), no log, and nothing that is served."""
    here = await up(swept, simulator=NOSY, orchestrator_port=ports.free_port())
    secrets = {context_of(here)["password"], (swept / "data" / "orchestrator" / "token").read_text()}
    async with client.EmsClient(here.addresses["nats_url"]) as ems:
        await ems.publish(plan())
    runs = swept / "data" / "orchestrator" / "runs"
    await wait.until(lambda: any(b"SIMULATION_ID" in one.read_bytes() for one in runs.glob("*/stdout")), timeout=30)
    seen = everything_seen(here, swept)
    assert len(seen) > 15
    for secret in secrets:
        assert len(secret) > 32
        assert not any(secret.encode() in one for one in seen)
    await here.program.stop(grace=30)


@pytest.mark.long
async def test_the_commands_of_its_user_get_in_without_being_asked(swept: Path) -> None:
    """By its address alone: `ems`, `ems-publish`, `ems dlq`; `ems-worker config` says where from, and masks it."""
    here = await up(swept)
    env = commands.environment(NATS_URL=here.addresses["nats_url"])
    published = await asyncio.to_thread(commands.run, "ems-publish", "-", "--wait", env=env, given=plan().decode())
    assert published.code == exits.Exit.OK, published.err
    for command in (("ls",), ("dlq", "ls"), ("show", "small")):
        ended = await asyncio.to_thread(commands.run, "ems", *command, env=env)
        assert ended.code == exits.Exit.OK, ended.err
    context = await asyncio.to_thread(
        commands.run, "ems", "ls", "--context", here.addresses["context"], env=commands.environment()
    )
    assert "small" in context.out
    shown = await asyncio.to_thread(commands.run, "ems-worker", "config", "--json", env=env)
    password = next(one for one in map(json.loads, shown.out.splitlines()) if one["name"] == "nats_password")
    assert password["value"] == "***"
    assert password["source"].startswith("running platform /")
    assert context_of(here)["password"] not in shown.out
    stranger = await asyncio.to_thread(commands.run, "ems", "ls", env={**env, "XDG_RUNTIME_DIR": "", "HOME": ""})
    assert stranger.code == exits.Exit.UNREACHABLE
    assert "doesn't let us in" in stranger.err
    await here.program.stop(grace=30)
    after = await asyncio.to_thread(commands.run, "ems", "ls", env=env)
    assert "no NATS server" in after.err


@pytest.mark.long
async def test_a_program_that_stays_gets_into_the_next_platform_too(swept: Path) -> None:
    """Each start has new credentials; a client that was connected takes them by itself."""
    port = ports.free_port()
    said: list[str] = []
    here = await up(swept, nats_port=port)
    before = context_of(here)
    async with client.EmsClient(here.addresses["nats_url"], notice=said.append) as ems:
        assert [one async for one in ems.experiments()] == []
        await here.program.stop(grace=30)
        here = await up(swept, nats_port=port)
        assert context_of(here)["password"] != before["password"]
        await wait.until(lambda: "connected to NATS again" in said, timeout=20, what="the client to be back")
        assert [one async for one in ems.experiments()] == []
    await here.program.stop(grace=30)


async def test_what_a_killed_platform_left_is_not_used(swept: Path) -> None:
    """Its credentials go to nobody who listens at its address later."""
    here = await up(swept)
    port = int(here.addresses["nats_url"].rpartition(":")[2])
    left = Path(os.environ["XDG_RUNTIME_DIR"], "ems-worker", f"{port}.json")
    os.kill(here.program.pid, signal.SIGKILL)
    await here.program.wait(timeout=10)
    await wait.until(lambda: not processes.mentioning(str(swept)), timeout=40, what="everything to end")
    assert left.name in os.listdir(left.parent)
    heard: list[bytes] = []

    class Impostor(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b'INFO {"server_id": "x", "auth_required": true, "max_payload": 1000, "proto": 1}\r\n')
            heard.append(self.rfile.readline())
            self.wfile.write(b"-ERR 'Authorization Violation'\r\n")

    with socketserver.ThreadingTCPServer((ports.LOOPBACK, port), Impostor) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        given = commands.environment(NATS_URL=here.addresses["nats_url"])
        ended = await asyncio.to_thread(commands.run, "ems", "ls", env=given)
        server.shutdown()
    assert ended.code == exits.Exit.UNREACHABLE
    assert heard
    assert not any(b"pass" in one for one in heard)


@pytest.mark.long
async def test_the_orchestrator_has_a_socket_wherever_the_data_is(street: Path, swept: Path) -> None:
    """In the data; in the runtime directory where that has too long a path; else a port with a token."""
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    deep = street / ("d" * 100)
    deep.mkdir()
    for directory, long_runtime in ((street, False), (deep, False), (deep, True)):
        env = dict(os.environ)
        if long_runtime:
            (runtime / ("r" * 100)).mkdir(0o700)
            env["XDG_RUNTIME_DIR"] = str(runtime / ("r" * 100))
        here = await up(directory, env=env)
        target = here.addresses["orchestrator"]
        token = directory / "data" / "orchestrator" / "token"
        if long_runtime:
            assert target.startswith(f"{ports.LOOPBACK}:")
            assert stat.S_IMODE(token.stat().st_mode) == 0o600
        else:
            within = runtime if directory is deep else directory
            assert Path(target.removeprefix("unix:")).is_relative_to(within)
            assert not token.exists()
        await here.program.stop(grace=30)


async def test_a_directory_of_another_user_is_refused(street: Path) -> None:
    """Theirs would be what we trust: the broker's configuration, the runs."""
    another_user.needs_root()
    (street / "data" / "orchestrator").mkdir(parents=True)
    os.chown(street / "data" / "orchestrator", another_user.NOBODY, another_user.NOBODY)
    with pytest.raises(errors.FileUnwritable, match="another may have made it") as refused:
        async with platforms.Platform(platforms.Options(street / "data"), print):
            pass
    assert exits.of(refused.value) is exits.Exit.USAGE
    assert processes.mentioning(str(street)) == {}


def test_its_command_says_how_others_get_in() -> None:
    """`ems up --help` tells of the socket and the token."""
    ended = subprocess.run([commands.SCRIPTS / "ems", "up", "--help"], capture_output=True, text=True)
    assert "Default: a Unix socket" in " ".join(ended.stdout.split())
