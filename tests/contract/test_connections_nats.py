"""Every way of authenticating to NATS, for the worker and the client, against real servers."""

import asyncio
import contextlib
import dataclasses
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest
from nats.aio import transport

from ems_worker import client, errors, nats_access
from ems_worker.adapters.jetstream import Broker, connection
from ems_worker.settings import Access
from tests.support import security, servers, wait

PASSWORD = "s3cret-word"
USERS = f'authorization {{ users: [ {{ user: "worker", password: "{PASSWORD}" }} ] }}\n'
TOKEN = f'authorization {{ token: "{PASSWORD}" }}\n'


@pytest.fixture
def certificates(tmp_path: Path) -> security.Certificates:
    return security.certificates(tmp_path)


@contextlib.asynccontextmanager
async def listening(tmp_path: Path, config: str) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats", more=config) as server:
        yield server


async def check_accepted(access: Access) -> None:
    """The worker can create its streams, and the client can store a plan."""
    async with Broker.connect(access, name="test", timeout=5) as broker:
        await broker.ensure("test")
        async with client.EmsClient(access) as ems:
            assert (await ems.publish(b"plan")).seq == 1
        [message] = await broker.plans()
        assert message.data == b"plan"


async def check_refused(access: Access, reason: str) -> None:
    """Neither the worker nor the client can connect, and their errors have the reason and no secret."""
    with pytest.raises(errors.BrokerUnavailable, match=reason) as of_worker:
        async with Broker.connect(access, name="test", timeout=5):
            pass
    with pytest.raises(errors.BrokerUnavailable, match=reason) as of_client:
        async with client.EmsClient(access, connect_timeout=1):
            pass
    assert PASSWORD not in f"{of_worker.value} {of_client.value} {access!r}"


async def check_remedy(access: Access, message: str, *, timeout: float = 1) -> None:
    """The client's error has this remedy, and doesn't suggest starting a server that is running."""
    with pytest.raises(errors.BrokerUnavailable, match=message) as caught:
        async with client.EmsClient(access, connect_timeout=timeout):
            pass
    assert "start one" not in str(caught.value)


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Acts like a nats-server that refuses a client before it reads its PING: sends the reason, and resets."""
    writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true}\r\n')
    await reader.readuntil(b"PING\r\n")
    writer.write(b"-ERR 'Authorization Violation'\r\n")
    await writer.drain()
    without_waiting = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, without_waiting)
    writer.transport.abort()


async def test_a_reset_does_not_hide_the_reason() -> None:
    """If the server gives its reason and then resets the connection, the error has the reason."""
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        await check_refused(Access((f"nats://{host}:{port}",), user="worker", password="wrong"), "(?i)authorization")


async def test_a_connection_that_does_not_close_holds_nobody_up(tmp_path: Path) -> None:
    """The end of a TLS connection may never be confirmed, and nats-py would wait for that without end."""

    async def never(_: transport.TcpTransport) -> None:
        await asyncio.Event().wait()

    async with listening(tmp_path, USERS) as server:
        bare = Access((server.url,))
        with patch.object(transport.TcpTransport, "wait_closed", never):
            await check_accepted(dataclasses.replace(bare, user="worker", password=PASSWORD))
            await check_refused(bare, "(?i)authorization")


class _Failing:
    """A part of the worker that can't be set up on any connection."""

    async def connected(self, _: object) -> None:
        raise OSError("the server refuses it")

    def lost(self) -> None:
        """Nothing was set up."""


async def test_a_connection_that_cannot_be_used_is_none(tmp_path: Path) -> None:
    """Opening it ends at its timeout, also if the server itself answers."""
    async with listening(tmp_path, "") as server:
        link = connection.Connection([server.url], name="test")
        await link.listen(_Failing())
        with pytest.raises(errors.BrokerUnavailable, match="no NATS server answered within 1 s"):
            await link.open(1)
        assert not link.connected


async def test_user_and_password(tmp_path: Path) -> None:
    """They can be settings or part of the address; a wrong user and missing credentials are refused."""
    async with listening(tmp_path, USERS) as server:
        bare = Access((server.url,))
        await check_accepted(dataclasses.replace(bare, user="worker", password=PASSWORD))
        async with client.EmsClient(server.url.replace("//", f"//worker:{PASSWORD}@")):
            pass
        await check_refused(bare, "(?i)authorization")
        await check_refused(dataclasses.replace(bare, user="other", password=PASSWORD), "(?i)authorization")
        await check_remedy(bare, "refused the connection .*: the credentials are missing or wrong; .*EMS_NATS_CREDS")
        await check_remedy(Access((server.url.replace("nats://", "tls://"),)), "the server offers no TLS")


async def test_token(tmp_path: Path) -> None:
    """The right token is accepted, and another one is refused."""
    async with listening(tmp_path, TOKEN) as server:
        await check_accepted(Access((server.url,), token=PASSWORD))
        await check_refused(Access((server.url,), token="other"), "(?i)authorization")


async def test_nkey(tmp_path: Path) -> None:
    """The client signs with the seed of the key that the server knows; another seed is refused."""
    key, stranger = security.user_key(), security.user_key()
    config = f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}\n"
    mine = security.private(tmp_path / "mine.nk", key.seed + b"\n")
    other = security.private(tmp_path / "other.nk", stranger.seed)
    async with listening(tmp_path, config) as server:
        await check_accepted(Access((server.url,), nkey=mine))
        await check_refused(Access((server.url,), nkey=other), "(?i)authorization")


async def test_creds(tmp_path: Path) -> None:
    """The credentials file of a user in the operator's account is accepted; that of a stranger is refused."""
    config, creds = security.operator_mode(tmp_path)
    _, stranger = security.operator_mode(subdirectory(tmp_path, "other"))
    async with listening(tmp_path, config) as server:
        await check_accepted(Access((server.url,), creds=creds))
        await check_refused(Access((server.url,), creds=stranger), "(?i)authorization")


def subdirectory(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


async def test_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """A server with a certificate of the given CA is trusted, by name and by address; one of another CA isn't."""
    async with listening(tmp_path, security.server_tls(certificates)) as server:
        await check_accepted(Access((server.url.replace("nats://", "tls://"),), ca=certificates.ca))
        async with client.EmsClient(Access((f"tls://localhost:{server.port}",), ca=certificates.ca)):
            pass
        await check_refused(Access((server.url,), ca=certificates.other_ca), "(?i)certificate verify failed")
        await check_remedy(Access((server.url,), ca=certificates.other_ca), "isn't trusted .*; set EMS_NATS_CA")
        await check_refused(Access((server.url.replace("nats://", "tls://"),)), "(?i)certificate verify failed")


async def test_mutual_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """The server accepts only clients with a certificate of its CA."""
    async with listening(tmp_path, security.server_tls(certificates, verify=True)) as server:
        bare = Access((server.url,), ca=certificates.ca)
        await check_accepted(dataclasses.replace(bare, cert=certificates.client_cert, key=certificates.client_key))
        for access in (bare, dataclasses.replace(bare, cert=certificates.other_cert, key=certificates.other_key)):
            with pytest.raises(errors.BrokerUnavailable):
                async with Broker.connect(access, name="test", timeout=5):
                    pass
            await check_remedy(access, "the TLS handshake with NATS at .* failed .*EMS_NATS_CERT", timeout=3)


async def test_tls_first(tmp_path: Path, certificates: security.Certificates) -> None:
    """A server that sends nothing before the handshake is supported."""
    async with listening(tmp_path, security.server_tls(certificates, first=True)) as server:
        await check_accepted(Access((server.url,), ca=certificates.ca, tls_first=True))


@pytest.mark.parametrize("address", ["tls://127.0.0.1", "nats://127.0.0.1"])
async def test_nothing_is_sent_in_plaintext_if_tls_is_required(
    certificates: security.Certificates, address: str
) -> None:
    """A server that offers no TLS, or a middlebox that pretends so, gets no password."""
    received = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "x", "max_payload": 1048576, "auth_required": true, "headers": true}\r\n')
        with contextlib.suppress(ConnectionError):
            received.extend(await reader.read(1000))
        writer.close()

    listener = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        access = Access((f"{address}:{port}",), ca=certificates.ca, user="worker", password=PASSWORD)
        await check_refused(access, "offers no TLS")
    assert bytes(received) == b""


async def test_replaced_credentials_are_read_at_the_next_connection(
    tmp_path: Path, certificates: security.Certificates
) -> None:
    """An expiring certificate can be replaced on disk without a restart of the worker."""
    async with listening(tmp_path, security.server_tls(certificates, verify=True)) as server:
        cert = security.private(tmp_path / "our.pem", certificates.client_cert.read_bytes())
        key = security.private(tmp_path / "our.key", certificates.client_key.read_bytes())
        access = Access((server.url,), ca=certificates.ca, cert=cert, key=key)
        reported: list[str] = []
        async with Broker.connect(
            access, name="test", timeout=5, on_error=lambda error: reported.append(str(error))
        ) as broker:
            security.private(key, b"being replaced")
            await server.restart()
            await wait.until(
                lambda: any("can't be used" in message for message in reported), what="the error about the broken key"
            )
            assert not broker.connected
            security.private(key, certificates.client_key.read_bytes())
            await wait.until(lambda: broker.connected, what="a connection with the new key")


async def test_a_failed_attempt_leaves_no_connection_open() -> None:
    """A client that reconnects to a server that refuses it closes each connection before the next attempt."""
    begun = ended = 0

    async def refuse_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun, ended
        begun += 1
        with contextlib.suppress(OSError):
            writer.write(b'INFO {"server_id": "x", "auth_required": true, "max_payload": 1000, "proto": 1}\r\n')
            await reader.readline()
            if begun == 1:
                await reader.readline()  # its PING
                writer.write(b"PONG\r\n")
            else:
                writer.write(b"-ERR 'Authorization Violation'\r\n")
                await reader.read()
            writer.close()
            await writer.wait_closed()
        ended += 1

    async def ignore(_: Exception) -> None:
        """Without this callback, nats-py logs the error."""

    async with await asyncio.start_server(refuse_later, "127.0.0.1", 0) as server:
        access = Access((f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",))
        refused = nats_access.client(access)
        options = nats_access.options(access)
        # Let it give up by itself: nats-py may ignore a `close` between two attempts.
        await refused.connect(**options, error_cb=ignore, max_reconnect_attempts=3, reconnect_time_wait=0)
        await wait.until(lambda: refused.is_closed, what="the client to give up")
        await wait.until(lambda: ended == begun, what="the last connection to end")
        assert ended > 3
