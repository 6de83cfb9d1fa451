"""Every way into NATS, for the worker and for the client, against real servers that ask for it."""

import asyncio
import contextlib
import dataclasses
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client, errors, nats_access
from ems_worker.adapters.jetstream import Broker
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


async def lets_in(access: Access) -> None:
    """The worker makes its streams there, the client stores a plan."""
    async with Broker.connect(access, name="test", timeout=5) as broker:
        await broker.ensure("test")
        async with client.EmsClient(access) as ems:
            assert (await ems.publish(b"plan")).seq == 1
        [message] = await broker.plans()
        assert message.data == b"plan"


async def keeps_out(access: Access, why: str) -> None:
    """Both say why, and no secret."""
    with pytest.raises(errors.BrokerUnavailable, match=why) as of_worker:
        async with Broker.connect(access, name="test", timeout=5):
            pass
    with pytest.raises(errors.BrokerUnavailable, match=why) as of_client:
        async with client.EmsClient(access, connect_timeout=1):
            pass
    assert PASSWORD not in f"{of_worker.value} {of_client.value} {access!r}"


async def says(access: Access, words: str, *, timeout: float = 1) -> None:
    """The client tells what to do about it, and not to start a server that is there."""
    with pytest.raises(errors.BrokerUnavailable, match=words) as told:
        async with client.EmsClient(access, connect_timeout=timeout):
            pass
    assert "start one" not in str(told.value)


async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a nats-server does to a stranger whose PING comes too late to be read: its reason, then a reset."""
    writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true}\r\n')
    await reader.readuntil(b"PING\r\n")
    writer.write(b"-ERR 'Authorization Violation'\r\n")
    await writer.drain()
    without_waiting = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, without_waiting)
    writer.transport.abort()


async def test_a_reset_hides_no_reason() -> None:
    async with await asyncio.start_server(refuses, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        await keeps_out(Access((f"nats://{host}:{port}",), user="worker", password="wrong"), "(?i)authorization")


async def test_user_and_password(tmp_path: Path) -> None:
    """As settings, or in the address; a wrong password and no name are kept out."""
    async with listening(tmp_path, USERS) as server:
        bare = Access((server.url,))
        await lets_in(dataclasses.replace(bare, user="worker", password=PASSWORD))
        async with client.EmsClient(server.url.replace("//", f"//worker:{PASSWORD}@")):
            pass
        await keeps_out(bare, "(?i)authorization")
        await keeps_out(dataclasses.replace(bare, user="other", password=PASSWORD), "(?i)authorization")
        await says(bare, "refused the connection .*: the credentials are missing or wrong; .*EMS_NATS_CREDS")
        await says(Access((server.url.replace("nats://", "tls://"),)), "the server offers no TLS")


async def test_token(tmp_path: Path) -> None:
    """One word instead of two."""
    async with listening(tmp_path, TOKEN) as server:
        await lets_in(Access((server.url,), token=PASSWORD))
        await keeps_out(Access((server.url,), token="other"), "(?i)authorization")


async def test_nkey(tmp_path: Path) -> None:
    """The server knows the public key; the seed signs and is never sent."""
    key, stranger = security.user_key(), security.user_key()
    config = f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}\n"
    mine = security.private(tmp_path / "mine.nk", key.seed + b"\n")
    other = security.private(tmp_path / "other.nk", stranger.seed)
    async with listening(tmp_path, config) as server:
        await lets_in(Access((server.url,), nkey=mine))
        await keeps_out(Access((server.url,), nkey=other), "(?i)authorization")


async def test_creds(tmp_path: Path) -> None:
    """A user of an account of an operator, by the file that nsc makes."""
    config, creds = security.operator_mode(tmp_path)
    _, stranger = security.operator_mode(tmp_path_of(tmp_path, "other"))
    async with listening(tmp_path, config) as server:
        await lets_in(Access((server.url,), creds=creds))
        await keeps_out(Access((server.url,), creds=stranger), "(?i)authorization")


def tmp_path_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


async def test_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """With the CA that is given, by name and by number; an unknown CA keeps us away from the server."""
    async with listening(tmp_path, security.server_tls(certificates)) as server:
        await lets_in(Access((server.url.replace("nats://", "tls://"),), ca=certificates.ca))
        async with client.EmsClient(Access((f"tls://localhost:{server.port}",), ca=certificates.ca)):
            pass
        await keeps_out(Access((server.url,), ca=certificates.other_ca), "(?i)certificate verify failed")
        await says(Access((server.url,), ca=certificates.other_ca), "isn't trusted .*; set EMS_NATS_CA")
        await keeps_out(Access((server.url.replace("nats://", "tls://"),)), "(?i)certificate verify failed")


async def test_mutual_tls(tmp_path: Path, certificates: security.Certificates) -> None:
    """The server lets in who has a certificate of its CA, and nobody else."""
    async with listening(tmp_path, security.server_tls(certificates, verify=True)) as server:
        bare = Access((server.url,), ca=certificates.ca)
        await lets_in(dataclasses.replace(bare, cert=certificates.client_cert, key=certificates.client_key))
        for access in (bare, dataclasses.replace(bare, cert=certificates.other_cert, key=certificates.other_key)):
            with pytest.raises(errors.BrokerUnavailable):
                async with Broker.connect(access, name="test", timeout=5):
                    pass
            await says(access, "the TLS handshake with NATS at .* failed .*EMS_NATS_CERT", timeout=3)


async def test_tls_first(tmp_path: Path, certificates: security.Certificates) -> None:
    """A server that says nothing before the handshake."""
    async with listening(tmp_path, security.server_tls(certificates, first=True)) as server:
        await lets_in(Access((server.url,), ca=certificates.ca, tls_first=True))


@pytest.mark.parametrize("address", ["tls://127.0.0.1", "nats://127.0.0.1"])
async def test_nothing_is_sent_in_plaintext_where_tls_was_asked_for(
    certificates: security.Certificates, address: str
) -> None:
    """A server that offers none, or somebody who stands before it and says so, gets no password."""
    heard = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "x", "max_payload": 1048576, "auth_required": true, "headers": true}\r\n')
        with contextlib.suppress(ConnectionError):
            heard.extend(await reader.read(1000))
        writer.close()

    listener = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        access = Access((f"{address}:{port}",), ca=certificates.ca, user="worker", password=PASSWORD)
        await keeps_out(access, "offers no TLS")
    assert bytes(heard) == b""


async def test_credentials_that_are_replaced_are_read_at_the_next_connection(
    tmp_path: Path, certificates: security.Certificates
) -> None:
    """A certificate that runs out is replaced on disk: no restart of the worker is needed for it."""
    async with listening(tmp_path, security.server_tls(certificates, verify=True)) as server:
        cert = security.private(tmp_path / "our.pem", certificates.client_cert.read_bytes())
        key = security.private(tmp_path / "our.key", certificates.client_key.read_bytes())
        access = Access((server.url,), ca=certificates.ca, cert=cert, key=key)
        said: list[str] = []
        async with Broker.connect(
            access, name="test", timeout=5, on_error=lambda error: said.append(str(error))
        ) as broker:
            security.private(key, b"being replaced")
            await server.restart()
            await wait.until(lambda: any("can't be used" in words for words in said), what="the broken key to be said")
            assert not broker.connected
            security.private(key, certificates.client_key.read_bytes())
            await wait.until(lambda: broker.connected, what="a connection with the new key")


async def test_an_attempt_that_fails_leaves_no_connection_open() -> None:
    """A client that comes back to a server which refuses it closes each connection before it tries the next."""
    begun: list[bytes] = []
    ended: list[bytes] = []

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(b"")
        with contextlib.suppress(OSError):
            writer.write(b'INFO {"server_id": "x", "auth_required": true, "max_payload": 1000, "proto": 1}\r\n')
            await reader.readline()
            if len(begun) == 1:
                await reader.readline()  # its PING
                writer.write(b"PONG\r\n")
            else:
                writer.write(b"-ERR 'Authorization Violation'\r\n")
                await reader.read()
            writer.close()
            await writer.wait_closed()
        ended.append(b"")

    async def ignored(_: Exception) -> None:
        """nats-py would log it."""

    async with await asyncio.start_server(refusing, "127.0.0.1", 0) as server:
        access = Access((f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",))
        one = nats_access.client(access)
        options = nats_access.options(access)
        # It gives up by itself: to close it between two attempts may be what nats-py takes no notice of.
        await one.connect(**options, error_cb=ignored, max_reconnect_attempts=3, reconnect_time_wait=0)
        await wait.until(lambda: one.is_closed, what="the client to give up")
        await wait.until(lambda: len(ended) == len(begun), what="the last connection to end")
        assert len(ended) > 3
