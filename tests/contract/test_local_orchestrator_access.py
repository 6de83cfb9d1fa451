"""Only the user of the local orchestrator can start simulations, through a private socket or with a token."""

import contextlib
import os
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from ems_worker import errors
from ems_worker.adapters.orchestrator import Orchestrator, security
from ems_worker.core.lifecycle.outcome import Outcome
from ems_worker.core.wire import Start
from ems_worker.local import ports
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.settings import Channel
from tests.support import another_user, local_orchestrator, orchestrator_client, servers, wait
from tests.support import security as made

START = Start("e-p000000-r000-a1", b"exit 0\n", "sha", 1, "e", {})
TOKEN = b"a-bearer-token"


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory that every user may enter, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ems") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file of a token."""
    return made.private(tmp_path / "token", TOKEN + b"\n")


def program(tmp_path: Path, listen: str, *flags: str) -> servers.Program:
    """The orchestrator as a process, not started yet."""
    command = [sys.executable, "-m", "ems_worker.local.orchestrator", "--listen", listen, *flags]
    command += ["--server", "nats://127.0.0.1:1", "--data-dir", str(tmp_path / "data"), "--slots", "1"]
    command += ["--simulator", local_orchestrator.SHELL]
    # With this umask, only explicit permissions protect files and directories.
    command = ["sh", "-c", 'umask 0; exec "$@"', "sh", *command]
    return servers.Program("orchestrator", command, log=tmp_path / "orchestrator.log")


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, listen: str, *flags: str) -> AsyncIterator[servers.Program]:
    """The orchestrator as a process that is ready."""
    async with program(tmp_path, listen, *flags) as orchestrator:
        await ready(orchestrator)
        yield orchestrator


async def ready(orchestrator: servers.Program, starts: int = 1) -> None:
    """Waits until the orchestrator is ready after so many starts."""

    def is_ready() -> bool:
        assert orchestrator.running, orchestrator.last_words()
        return orchestrator.log.read_text().count("orchestrator.ready") == starts

    await wait.until(is_ready, timeout=20, what="the orchestrator to serve")


async def assert_calls_succeed(channel: Channel) -> None:
    """A unary call and a streaming call both succeed."""
    async with Orchestrator.connect(channel) as client:
        await wait.until(client.ready, what="the channel")
        [answer] = await orchestrator_client.answers(client, [START])
        assert answer.outcome is Outcome.SUBMITTED, answer
        async with contextlib.aclosing(client.capacity()) as capacities:
            capacity = await anext(capacities)
            assert capacity is not None
            assert capacity.slots == 1


def local_port() -> str:
    """A free TCP address on loopback."""
    return f"{ports.LOOPBACK}:{ports.free_port()}"


async def test_an_unprotected_port_is_refused(tmp_path: Path) -> None:
    """The error lists every way to protect the port; a server certificate alone does not restrict who may call."""
    certificates = made.certificates(tmp_path)
    tls = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    for flags in ((), tls):
        async with program(tmp_path, local_port(), *flags) as refused:
            assert await refused.wait(timeout=20) == 2
            for part in ("everyone who can connect", "unix:PATH", "--token-file", "--tls-client-ca", "--insecure"):
                assert part in refused.last_words()
    async with serving(tmp_path, local_port(), "--insecure") as orchestrator:
        assert "orchestrator.open" in orchestrator.log.read_text()


async def test_a_port_has_one_orchestrator(tmp_path: Path) -> None:
    """A second orchestrator on the same port doesn't start, instead of getting half of the calls."""
    target = local_port()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    async with serving(tmp_path / "first", target, "--insecure"):
        async with program(tmp_path / "second", target, "--insecure") as second:
            assert await second.wait(timeout=20) == 1
            assert f"can't listen on {target}" in second.last_words()


async def test_every_call_needs_the_token(tmp_path: Path, token: Path) -> None:
    """Calls of any kind without it or with another token are UNAUTHENTICATED, including health and reflection."""
    target = local_port()
    async with serving(tmp_path, target, "--token-file", str(token)) as orchestrator:
        assert "orchestrator.open" not in orchestrator.log.read_text()
        await assert_calls_succeed(Channel(target, token=token))
        for metadata in ((), (("authorization", "Bearer other"),), (("authorization", TOKEN.decode()),)):
            async with grpc.aio.insecure_channel(target) as channel:
                own = pb_grpc.OrchestratorClientServiceStub(channel)
                info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
                health = health_pb2_grpc.HealthStub(channel)
                for call in (
                    own.StartSimulation(pb.StartSimulationCommand(simulation_id="x"), metadata=metadata, timeout=10),
                    health.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=10),
                    own.WatchCapacity(pb.WatchCapacityRequest(), metadata=metadata, timeout=10),
                    info(iter(()), metadata=metadata, timeout=10),  # refused before any request
                ):
                    assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        async with Orchestrator.connect(Channel(target)) as client:
            await wait.until(client.ready, what="the channel")
            [answer] = await orchestrator_client.answers(client, [START])
            assert (answer.outcome, answer.code) == (Outcome.HALT, "UNAUTHENTICATED")


async def test_a_token_works_over_tls_too(tmp_path: Path, token: Path) -> None:
    """Calls with the token succeed over TLS."""
    certificates = made.certificates(tmp_path)
    tls = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    target = local_port()
    async with serving(tmp_path, target, *tls, "--token-file", str(token)):
        await assert_calls_succeed(Channel(target, ca=certificates.ca, token=token))


async def test_a_token_that_others_may_read_is_refused(tmp_path: Path, token: Path) -> None:
    """Both the orchestrator and its callers refuse such a file, and an empty one."""
    for content, mode, message in ((TOKEN, 0o644, "chmod 600"), (b"\n", 0o600, "is empty")):
        made.private(token, content, mode)
        async with program(tmp_path, local_port(), "--token-file", str(token)) as refused:
            assert await refused.wait(timeout=20) == 2
            assert message in refused.last_words()
        with pytest.raises(errors.SettingsError, match=message):
            security.channel(Channel("127.0.0.1:1", token=token), ())


async def test_only_its_user_can_connect_to_a_socket(tmp_path: Path, short: Path) -> None:
    """The directory of the socket is created private, so that other users can't reach it."""
    socket = short / "own" / "grpc.sock"
    async with serving(tmp_path, f"unix:{socket}"):
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert not socket.stat().st_mode & 0o077
        await assert_calls_succeed(Channel(f"unix:{socket}"))
        if os.geteuid() == 0:
            code = """
            try:
                socket.socket(socket.AF_UNIX).connect(given)
                print('"connected"')
            except PermissionError:
                print('"refused"')
            """
            assert another_user.run(code, str(socket)) == "refused"


async def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path, short: Path) -> None:
    """After a crash, the next start listens on the same path again."""
    socket = short / "own" / "grpc.sock"
    async with serving(tmp_path, f"unix:{socket}") as orchestrator:
        os.kill(orchestrator.pid, signal.SIGKILL)
        await orchestrator.wait(timeout=10)
        assert socket.exists()
        orchestrator.start()
        await ready(orchestrator, starts=2)
        await assert_calls_succeed(Channel(f"unix:{socket}"))


async def test_an_unsuitable_path_for_a_socket_is_refused(tmp_path: Path, short: Path) -> None:
    """A directory that others may enter and a path that is too long are errors with the remedy or the limit."""
    long = short / ("x" * 100) / "grpc.sock"
    for socket, message in ((short / "grpc.sock", f"chmod 700 {short}"), (long, "at most 103 bytes")):
        async with program(tmp_path, f"unix:{socket}") as refused:
            assert await refused.wait(timeout=20) == 1
            assert message in refused.last_words()


async def test_all_files_are_readable_only_by_the_user(tmp_path: Path, short: Path) -> None:
    """Under any umask, directories have mode 0700 and files 0600, including those of simulations."""
    (tmp_path / "data").mkdir(0o755)
    (tmp_path / "data" / "runs").mkdir(0o755)
    target = f"unix:{short / 'own' / 'grpc.sock'}"
    async with serving(tmp_path, target):
        await assert_calls_succeed(Channel(target))
        run = tmp_path / "data" / "runs" / START.simulation_id
        await wait.until((run / "exit").exists, what="the simulation to end")
        written = [path for path in (tmp_path / "data").rglob("*") if not path.is_symlink()]
        names = {path.name for path in written}
        assert {"orchestrator.db", "orchestrator.db-wal", "stdout", "config.yaml"} <= names
        open_to_others = {str(path): oct(path.stat().st_mode) for path in written if path.stat().st_mode & 0o077}
        assert open_to_others == {}
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
