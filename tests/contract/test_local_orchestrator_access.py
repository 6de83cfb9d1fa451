"""Who may start simulations with the local orchestrator: its own user, by a socket or a token, and nobody else."""

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
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

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
    """A directory with a short path, since a socket is to be in it; every user of this machine may enter it."""
    with tempfile.TemporaryDirectory(prefix="ems") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return made.private(tmp_path / "token", TOKEN + b"\n")


def program(tmp_path: Path, listen: str, *flags: str) -> servers.Program:
    command = [sys.executable, "-m", "ems_worker.local.orchestrator", "--listen", listen, *flags]
    command += ["--server", "nats://127.0.0.1:1", "--data-dir", str(tmp_path / "data"), "--slots", "1"]
    command += ["--simulator", local_orchestrator.SHELL]
    # The umask that keeps nothing from anybody: it has to see to that itself.
    command = ["sh", "-c", 'umask 0; exec "$@"', "sh", *command]
    return servers.Program("orchestrator", command, log=tmp_path / "orchestrator.log")


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, listen: str, *flags: str) -> AsyncIterator[servers.Program]:
    """The orchestrator as a process, ready."""
    async with program(tmp_path, listen, *flags) as one:
        await ready(one)
        yield one


async def ready(one: servers.Program, times: int = 1) -> None:
    def there() -> bool:
        assert one.running, one.last_words()
        return one.log.read_text().count("orchestrator.ready") == times

    await wait.until(there, timeout=20, what="the orchestrator to serve")


async def starts(channel: Channel) -> None:
    """A start command gets there, and the capacity comes back."""
    async with Orchestrator.connect(channel) as client:
        await wait.until(client.ready, what="the channel")
        [answer] = await orchestrator_client.answers(client, [START])
        assert answer.outcome is Outcome.SUBMITTED, answer
        async with contextlib.aclosing(client.capacity()) as told:
            capacity = await anext(told)
            assert capacity is not None
            assert capacity.slots == 1


def local_port() -> str:
    return f"{ports.LOOPBACK}:{ports.free_port()}"


async def test_a_port_without_protection_is_refused(tmp_path: Path) -> None:
    """With every way to protect it; a certificate of its own alone keeps nobody out."""
    certificates = made.certificates(tmp_path)
    tls = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    for flags in ((), tls):
        async with program(tmp_path, local_port(), *flags) as refused:
            assert await refused.wait(timeout=20) == 2
            for words in ("everyone who can connect", "unix:PATH", "--token-file", "--tls-client-ca", "--insecure"):
                assert words in refused.last_words()
    async with serving(tmp_path, local_port(), "--insecure") as one:
        assert "orchestrator.open" in one.log.read_text()


async def test_every_call_has_to_carry_the_token(tmp_path: Path, token: Path) -> None:
    """Those of health and of reflection too, of every kind; without it, or with another, they are UNAUTHENTICATED."""
    target = local_port()
    async with serving(tmp_path, target, "--token-file", str(token)) as one:
        assert "orchestrator.open" not in one.log.read_text()
        await starts(Channel(target, token=token))
        for metadata in ((), (("authorization", "Bearer other"),), (("authorization", TOKEN.decode()),)):
            async with grpc.aio.insecure_channel(target) as channel:
                own = pb_grpc.OrchestratorClientServiceStub(channel)
                info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
                health = health_pb2_grpc.HealthStub(channel)
                for call in (
                    own.StartSimulation(pb.StartSimulationCommand(simulation_id="x"), metadata=metadata, timeout=10),
                    health.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=10),
                    own.WatchCapacity(pb.WatchCapacityRequest(), metadata=metadata, timeout=10),
                    info(iter([reflection_pb2.ServerReflectionRequest()]), metadata=metadata, timeout=10),
                ):
                    assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        async with Orchestrator.connect(Channel(target)) as client:
            await wait.until(client.ready, what="the channel")
            [answer] = await orchestrator_client.answers(client, [START])
            assert (answer.outcome, answer.code) == (Outcome.HALT, "UNAUTHENTICATED")


async def test_a_token_goes_over_tls_too(tmp_path: Path, token: Path) -> None:
    """The same calls."""
    certificates = made.certificates(tmp_path)
    tls = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    target = local_port()
    async with serving(tmp_path, target, *tls, "--token-file", str(token)):
        await starts(Channel(target, ca=certificates.ca, token=token))


async def test_a_token_that_others_may_read_is_refused(tmp_path: Path, token: Path) -> None:
    """And one that is empty; by the orchestrator and by who calls it."""
    for content, mode, words in ((TOKEN, 0o644, "chmod 600"), (b"\n", 0o600, "is empty")):
        made.private(token, content, mode)
        async with program(tmp_path, local_port(), "--token-file", str(token)) as refused:
            assert await refused.wait(timeout=20) == 2
            assert words in refused.last_words()
        with pytest.raises(errors.SettingsError, match=words):
            security.channel(Channel("127.0.0.1:1", token=token), ())


async def test_a_socket_is_for_its_user_only(tmp_path: Path, short: Path) -> None:
    """Its directory is made so; who may enter may start."""
    socket = short / "own" / "grpc.sock"
    async with serving(tmp_path, f"unix:{socket}"):
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert not socket.stat().st_mode & 0o077
        await starts(Channel(f"unix:{socket}"))
        if os.geteuid() == 0:
            code = """
            try:
                socket.socket(socket.AF_UNIX).connect(given)
                print('"connected"')
            except PermissionError:
                print('"kept out"')
            """
            assert another_user.run(code, str(socket)) == "kept out"


async def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path, short: Path) -> None:
    """The next start listens there again."""
    socket = short / "own" / "grpc.sock"
    async with serving(tmp_path, f"unix:{socket}") as one:
        os.kill(one.pid, signal.SIGKILL)
        await one.wait(timeout=10)
        assert socket.exists()
        one.start()
        await ready(one, times=2)
        await starts(Channel(f"unix:{socket}"))


async def test_a_socket_where_others_may_enter_is_refused(tmp_path: Path, short: Path) -> None:
    """So is one with a path that is too long, in words instead of gRPC's silence."""
    long = short / ("x" * 100) / "grpc.sock"
    for socket, words in ((short / "grpc.sock", f"chmod 700 {short}"), (long, "at most 103 bytes")):
        async with program(tmp_path, f"unix:{socket}") as refused:
            assert await refused.wait(timeout=20) == 1
            assert words in refused.last_words()


async def test_what_it_writes_is_its_users_only(tmp_path: Path, short: Path) -> None:
    """Whatever the umask: directories 0700, files 0600, those of the simulations too."""
    (tmp_path / "data").mkdir(0o755)
    (tmp_path / "data" / "runs").mkdir(0o755)
    target = f"unix:{short / 'own' / 'grpc.sock'}"
    async with serving(tmp_path, target):
        await starts(Channel(target))
        run = tmp_path / "data" / "runs" / START.simulation_id
        await wait.until((run / "exit").exists, what="the simulation to end")
        written = [path for path in (tmp_path / "data").rglob("*") if not path.is_symlink()]
        names = {path.name for path in written}
        assert {"orchestrator.db", "orchestrator.db-wal", "stdout", "config.yaml"} <= names
        wide = {str(path): oct(path.stat().st_mode) for path in written if path.stat().st_mode & 0o077}
        assert wide == {}
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
