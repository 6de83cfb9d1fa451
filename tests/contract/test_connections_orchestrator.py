"""TLS to the orchestrator, against the real local one; and its own way into a NATS that asks for credentials."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.lifecycle.outcome import Outcome
from ems_worker.core.wire import Start
from ems_worker.local import ports
from ems_worker.settings import Channel
from tests.support import local_orchestrator, security, servers, wait
from tests.support import orchestrator_client as support

START = Start("e-p000000-r000-a1", b"exit 0\n", "sha", 1, "e", {})


@pytest.fixture
def certificates(tmp_path: Path) -> security.Certificates:
    return security.certificates(tmp_path)


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path,
    nats_url: str,
    flags: Sequence[str] = ("--insecure",),
    env: dict[str, str] | None = None,
    target: str | None = None,
) -> AsyncIterator[str]:
    """The local orchestrator as a process; its gRPC target, a free port unless given."""
    target = target or f"{ports.LOOPBACK}:{ports.free_port()}"
    command = ["--listen", target, "--server", nats_url, "--data-dir", str(tmp_path / "data"), "--slots", "1"]
    module = [sys.executable, "-m", "ems_worker.local.orchestrator"]
    command = [*module, *command, "--simulator", local_orchestrator.SHELL, *flags]
    log = tmp_path / "orchestrator.log"
    async with servers.Program("orchestrator", command, log=log, env=env):
        await wait.until(lambda: "orchestrator.ready" in log.read_text(), timeout=20, what="the orchestrator to serve")
        yield target


def tls_flags(made: security.Certificates, *more: str) -> list[str]:
    return ["--tls-cert", str(made.cert), "--tls-key", str(made.key), *more]


async def starts(channel: Channel) -> None:
    """A start command gets there and is answered."""
    async with Orchestrator.connect(channel) as client:
        await wait.until(client.ready, what="the channel")
        [answer] = await support.answers(client, [START])
        assert answer.outcome is Outcome.SUBMITTED


async def fails(channel: Channel, words: str) -> None:
    """The command isn't delivered, and may be sent again later: nobody has it."""
    async with Orchestrator.connect(channel, deadline_seconds=2) as client:
        [answer] = await support.answers(client, [START])
        assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "UNAVAILABLE")
        assert words in answer.message
        assert not client.ready()


async def test_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """With the CA that is given; not with another, not with gRPC's own, not without TLS."""
    async with serving(tmp_path, "nats://127.0.0.1:1", tls_flags(certificates, "--insecure")) as target:
        await starts(Channel(target, ca=certificates.ca))
        await fails(Channel(target, ca=certificates.other_ca), "CERTIFICATE_VERIFY_FAILED")
        await fails(Channel(target, tls=True), "CERTIFICATE_VERIFY_FAILED")
        await fails(Channel(target), "")


async def test_mutual_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """Only who has a certificate of the orchestrator's CA may start runs."""
    flags = tls_flags(certificates, "--tls-client-ca", str(certificates.ca))
    async with serving(tmp_path, "nats://127.0.0.1:1", flags) as target:
        await starts(Channel(target, ca=certificates.ca, cert=certificates.client_cert, key=certificates.client_key))
        await fails(Channel(target, ca=certificates.ca), "")
        await fails(Channel(target, ca=certificates.ca, cert=certificates.other_cert, key=certificates.other_key), "")


@pytest.mark.parametrize(
    "target",
    [
        "orchestrator.example:50051",
        "10.0.0.7:50051",
        "dns:///orchestrator:50051",
        "ipv4:127.0.0.1:50051,10.0.0.5:50051",
        "xds:///localhost:50051",
    ],
)
async def test_plaintext_beyond_this_machine_has_to_be_allowed(target: str) -> None:
    """With the remedy in the words; TLS, or the permission, is enough."""
    with pytest.raises(errors.SettingsError, match="EMS_ORCHESTRATOR_PLAINTEXT"):
        async with Orchestrator.connect(Channel(target)):
            pass
    for channel in (Channel(target, plaintext=True), Channel(target, tls=True)):
        async with Orchestrator.connect(channel) as client:
            assert not client.ready()


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "ipv4:127.0.0.1:1", "unix:///nowhere.sock"]
)
async def test_this_machine_needs_no_permission(target: str) -> None:
    """By every name that it has."""
    async with Orchestrator.connect(Channel(target)) as client:
        assert not client.ready()


async def test_a_proxy_of_the_environment_is_not_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would send it what goes to the orchestrator, in plaintext."""
    asked: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    proxy = await asyncio.start_server(hear, ports.LOOPBACK, 0)
    async with proxy, serving(tmp_path, "nats://127.0.0.1:1") as target:
        monkeypatch.setenv("http_proxy", f"http://{ports.LOOPBACK}:{proxy.sockets[0].getsockname()[1]}")
        await starts(Channel(target))
        await starts(Channel(f"ipv4:{target}"))
        assert asked == []


async def test_the_workers_log_stays_json_where_tls_fails(tmp_path: Path, certificates: security.Certificates) -> None:
    """What gRPC's core would write beside it is in the log as the reason."""
    log = tmp_path / "worker.log"
    async with (
        servers.NatsServer(tmp_path / "nats") as nats,
        serving(tmp_path, nats.url, tls_flags(certificates, "--insecure")) as target,
    ):
        env = {
            "EMS_SERVER": nats.url,
            "EMS_ORCHESTRATOR": target,
            "EMS_ORCHESTRATOR_CA": str(certificates.other_ca),
            "EMS_DATA_DIR": str(tmp_path / "worker"),
            "EMS_HTTP": "",
        }
        command = [sys.executable, "-m", "ems_worker.cli.worker", "run"]
        async with servers.Program("worker", command, log=log, env=env):

            def logged() -> bool:
                return any(line[0] == "{" and "VERIFY_FAILED" in line for line in log.read_text().splitlines())

            await wait.until(logged, timeout=30, what="the reason in the worker's own words")
    assert all(json.loads(line)["event"] for line in log.read_text().splitlines())


async def test_files_that_cannot_be_used_are_said_at_the_start(
    tmp_path: Path, certificates: security.Certificates
) -> None:
    """gRPC itself would say nothing, and connect never."""
    not_pem = security.private(tmp_path / "der.pem", b"\x30\x82")
    open_key = security.private(tmp_path / "open.key", certificates.client_key.read_bytes(), 0o644)
    for channel, words in (
        (Channel("localhost:1", ca=tmp_path / "absent"), "can't be read: No such file"),
        (Channel("localhost:1", ca=not_pem), "is not in PEM"),
        (Channel("localhost:1", cert=certificates.client_cert), "needs its key"),
        (Channel("localhost:1", cert=certificates.client_cert, key=open_key), "chmod 600"),
    ):
        with pytest.raises(errors.SettingsError, match=words):
            async with Orchestrator.connect(channel):
                pass


async def test_the_local_orchestrator_gets_into_a_secured_nats(
    tmp_path: Path, certificates: security.Certificates
) -> None:
    """By what other NATS programs read: its events arrive over mutual TLS with a user and a password."""
    config = security.server_tls(certificates, verify=True)
    config += 'authorization { users: [ { user: "orchestrator", password: "word" } ] }\n'
    env = {
        "NATS_CA": str(certificates.ca),
        "NATS_CERT": str(certificates.client_cert),
        "NATS_KEY": str(certificates.client_key),
        "NATS_USER": "orchestrator",
        "NATS_PASSWORD": "word",
    }
    async with servers.NatsServer(tmp_path / "nats", more=config) as server:
        async with serving(tmp_path, server.url, env=env) as target:
            await starts(Channel(target))
            log = tmp_path / "orchestrator.log"
            await wait.until(lambda: "broker.connected" in log.read_text(), what="the orchestrator to get in")
            assert "word" not in log.read_text().replace("password", "")
