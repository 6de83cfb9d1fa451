"""The proxy causes the faults that the other tests rely on."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support import proxy, wait

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@pytest.fixture
async def between() -> AsyncIterator[proxy.Proxy]:
    """A proxy in front of a server that echoes."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxy.Proxy(lambda: int(server.sockets[0].getsockname()[1])) as running:
        yield running


async def dial(target: proxy.Proxy) -> Connection:
    return await asyncio.open_connection("127.0.0.1", target.port)


async def send(connection: Connection, data: bytes, timeout: float = 5.0) -> bytes | None:
    """The echo; None if none arrived in time, empty at the end of the connection."""
    reader, writer = connection
    writer.write(data)
    try:
        async with asyncio.timeout(timeout):
            return await reader.read(100)
    except TimeoutError:
        return None


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_stalled_direction_delivers_everything_once_it_is_healed(between: proxy.Proxy, way: str) -> None:
    """Nothing arrives before that."""
    connection = await dial(between)
    assert await send(connection, b"one") == b"one"
    getattr(between, way).stall()
    assert await send(connection, b"two", 0.05) is None
    between.heal()
    assert await send(connection, b"") == b"two"
    connection[1].close()


@pytest.mark.parametrize("way", ["up", "down"])
async def test_connections_never_recover_from_a_dropped_direction(between: proxy.Proxy, way: str) -> None:
    """Neither end notices, and new connections work."""
    connection = await dial(between)
    getattr(between, way).drop()
    assert await send(connection, b"one", 0.05) is None
    between.heal()
    assert await send(connection, b"two", 0.05) is None
    other = await dial(between)
    assert await send(other, b"three") == b"three"
    for _, writer in (connection, other):
        writer.close()


async def test_each_direction_has_its_own_delay(between: proxy.Proxy) -> None:
    """An echo takes at least the sum of both."""
    connection = await dial(between)
    between.up.delay(0.05)
    between.down.delay(0.05)
    before = asyncio.get_running_loop().time()
    assert await send(connection, b"one") == b"one"
    assert asyncio.get_running_loop().time() - before >= 0.1
    connection[1].close()


async def test_a_cut_ends_the_connection_at_its_receiver(between: proxy.Proxy) -> None:
    """If both directions are cut, each end sees a broken connection."""
    connection = await dial(between)
    assert await send(connection, b"one") == b"one"
    between.down.cut()
    assert await send(connection, b"two") == b""
    connection[1].close()
    other = await dial(between)
    assert await send(other, b"three") == b"three"
    between.cut()
    with pytest.raises(ConnectionError):
        assert await send(other, b"four")
    await wait.until(lambda: between.open == 0, what="both connections to end")


async def test_a_connection_to_an_absent_server_breaks() -> None:
    """It does so as without the proxy."""
    async with proxy.Proxy(lambda: 1) as running:
        with pytest.raises(ConnectionError):
            assert await send(await dial(running), b"one")
