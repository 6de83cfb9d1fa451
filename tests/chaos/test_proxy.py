"""The proxy makes the faults that it is told to make: else the tests that use it would prove nothing."""

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
    """In front of a server that echoes."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxy.Proxy(lambda: int(server.sockets[0].getsockname()[1])) as one:
        yield one


async def dial(one: proxy.Proxy) -> Connection:
    return await asyncio.open_connection("127.0.0.1", one.port)


async def say(connection: Connection, word: bytes, within: float = 5.0) -> bytes | None:
    """The echo; None where none came in time, empty at the end of the connection."""
    reader, writer = connection
    writer.write(word)
    try:
        async with asyncio.timeout(within):
            return await reader.read(100)
    except TimeoutError:
        return None


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_stalled_way_delivers_once_it_is_healed(between: proxy.Proxy, way: str) -> None:
    """Nothing is lost."""
    connection = await dial(between)
    assert await say(connection, b"one") == b"one"
    getattr(between, way).stall()
    assert await say(connection, b"two", 0.05) is None
    between.heal()
    assert await say(connection, b"") == b"two"
    connection[1].close()


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_dropped_way_ruins_its_connections_for_good(between: proxy.Proxy, way: str) -> None:
    """Without a word to either end; new ones work."""
    connection = await dial(between)
    getattr(between, way).drop()
    assert await say(connection, b"one", 0.05) is None
    between.heal()
    assert await say(connection, b"two", 0.05) is None
    other = await dial(between)
    assert await say(other, b"three") == b"three"
    for one in (connection, other):
        one[1].close()


async def test_a_delay_holds_for_each_way(between: proxy.Proxy) -> None:
    """Nothing arrives before both have passed."""
    connection = await dial(between)
    between.up.delay(0.05)
    between.down.delay(0.05)
    before = asyncio.get_running_loop().time()
    assert await say(connection, b"one") == b"one"
    assert asyncio.get_running_loop().time() - before >= 0.1
    connection[1].close()


async def test_a_cut_is_heard_at_the_end_that_it_is_for(between: proxy.Proxy) -> None:
    """One way: its receiver sees an end. Both: each end sees a broken connection."""
    connection = await dial(between)
    assert await say(connection, b"one") == b"one"
    between.down.cut()
    assert await say(connection, b"two") == b""
    connection[1].close()
    other = await dial(between)
    assert await say(other, b"three") == b"three"
    between.cut()
    with pytest.raises(ConnectionError):
        assert await say(other, b"four")
    await wait.until(lambda: between.open == 0, what="both connections to end")


async def test_a_server_that_is_away_refuses_through_the_proxy() -> None:
    """As it does without one."""
    async with proxy.Proxy(lambda: 1) as one:
        with pytest.raises(ConnectionError):
            assert await say(await dial(one), b"one")
