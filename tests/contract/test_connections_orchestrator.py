"""TLS between the worker and the local orchestrator, and the orchestrator's connection to a secured NATS."""

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
    """Runs the local orchestrator as a process, and yields its gRPC target, by default on a free port."""
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


async def check_start(channel: Channel) -> None:
    """A start command arrives and is answered."""
    async with Orchestrator.connect(channel) as client:
        await wait.until(client.ready, what="the channel")
        [answer] = await support.answers(client, [START])
        assert answer.outcome is Outcome.SUBMITTED


async def check_failure(channel: Channel, message: str) -> None:
    """A start command doesn't arrive, and its answer is UNKNOWN with this message, so it can be sent again."""
    async with Orchestrator.connect(channel, deadline_seconds=2) as client:
        [answer] = await support.answers(client, [START])
        assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "UNAVAILABLE")
        assert message in answer.message
        assert not client.ready()


async def test_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """The channel works with the right CA, but not with another CA, with the default CAs, or without TLS."""
    async with serving(tmp_path, "nats://127.0.0.1:1", tls_flags(certificates, "--insecure")) as target:
        await check_start(Channel(target, ca=certificates.ca))
        await check_failure(Channel(target, ca=certificates.other_ca), "CERTIFICATE_VERIFY_FAILED")
        await check_failure(Channel(target, tls=True), "CERTIFICATE_VERIFY_FAILED")
        await check_failure(Channel(target), "")


async def test_mutual_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """Only a client with a certificate of the orchestrator's CA can start runs."""
    flags = tls_flags(certificates, "--tls-client-ca", str(certificates.ca))
    async with serving(tmp_path, "nats://127.0.0.1:1", flags) as target:
        await check_start(
            Channel(target, ca=certificates.ca, cert=certificates.client_cert, key=certificates.client_key)
        )
        await check_failure(Channel(target, ca=certificates.ca), "")
        await check_failure(
            Channel(target, ca=certificates.ca, cert=certificates.other_cert, key=certificates.other_key), ""
        )


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
async def test_plaintext_beyond_loopback_needs_permission(target: str) -> None:
    """The error has the remedy, and either the permission or TLS is enough."""
    with pytest.raises(errors.SettingsError, match="EMS_ORCHESTRATOR_PLAINTEXT"):
        async with Orchestrator.connect(Channel(target)):
            pass
    for channel in (Channel(target, plaintext=True), Channel(target, tls=True)):
        async with Orchestrator.connect(channel) as client:
            assert not client.ready()


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "ipv4:127.0.0.1:1", "unix:///nowhere.sock"]
)
async def test_loopback_needs_no_permission(target: str) -> None:
    """Plaintext to this machine is allowed, whichever name it is given."""
    async with Orchestrator.connect(Channel(target)) as client:
        assert not client.ready()


async def test_loopback_does_not_use_the_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default gRPC would send calls to a local orchestrator through the proxy, in plaintext."""
    requests: list[bytes] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readline())
        writer.close()

    proxy = await asyncio.start_server(receive, ports.LOOPBACK, 0)
    async with proxy, serving(tmp_path, "nats://127.0.0.1:1") as target:
        monkeypatch.setenv("http_proxy", f"http://{ports.LOOPBACK}:{proxy.sockets[0].getsockname()[1]}")
        await check_start(Channel(target))
        await check_start(Channel(f"ipv4:{target}"))
        assert requests == []


async def test_the_workers_log_stays_json_if_tls_fails(tmp_path: Path, certificates: security.Certificates) -> None:
    """gRPC's core doesn't write to stderr, and its reason is in an event of the log."""
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

            await wait.until(logged, timeout=30, what="the reason in the log")
    assert all(json.loads(line)["event"] for line in log.read_text().splitlines())


async def test_files_that_cannot_be_used_are_reported_at_the_start(
    tmp_path: Path, certificates: security.Certificates
) -> None:
    """Connecting raises SettingsError, where gRPC would report nothing and never connect."""
    not_pem = security.private(tmp_path / "der.pem", b"\x30\x82")
    open_key = security.private(tmp_path / "open.key", certificates.client_key.read_bytes(), 0o644)
    for channel, message in (
        (Channel("localhost:1", ca=tmp_path / "absent"), "can't be read: No such file"),
        (Channel("localhost:1", ca=not_pem), "is not in PEM"),
        (Channel("localhost:1", cert=certificates.client_cert), "needs its key"),
        (Channel("localhost:1", cert=certificates.client_cert, key=open_key), "chmod 600"),
    ):
        with pytest.raises(errors.SettingsError, match=message):
            async with Orchestrator.connect(channel):
                pass


async def test_the_local_orchestrator_connects_to_a_secured_nats(
    tmp_path: Path, certificates: security.Certificates
) -> None:
    """It authenticates by mutual TLS, user and password, from the variables that other NATS programs read."""
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
            await check_start(Channel(target))
            log = tmp_path / "orchestrator.log"
            await wait.until(lambda: "broker.connected" in log.read_text(), what="the orchestrator to connect")
            assert "word" not in log.read_text().replace("password", "")
