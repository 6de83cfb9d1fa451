"""Servers that answer late, or with what no client can read."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import nats.errors
import pytest

from ems_worker import nats_access
from ems_worker.adapters.jetstream import connection
from ems_worker.settings import Access
from tests.support import wait

INFO = b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"headers":true,"proto":1}\r\n'

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Access]:
    """A server that answers the pings of each connection, counted from 1, as a function does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pings = 0
        writer.write(INFO)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    pings += 1
                    await answer(pings, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield Access((f"nats://{host}:{port}",))


async def test_an_answer_that_comes_too_late_costs_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    """nats-py stops reading when the answer to a ping comes that it no longer waits for."""
    released = asyncio.Event()

    async def late(pings: int, writer: asyncio.StreamWriter) -> None:
        if pings == 2:
            await released.wait()
        writer.write(b"PONG\r\n")

    async with answering(late) as access:
        client = nats_access.client(access)
        await client.connect(**nats_access.options(access), allow_reconnect=False)
        with pytest.raises(nats.errors.Error):
            await client.flush(timeout=0.01)  # type: ignore[arg-type]  # it takes fractions of a second too
        released.set()
        await client.flush(timeout=5)
        await client.flush(timeout=5)
        await client.close()
    assert not caplog.records


@pytest.mark.parametrize(
    "line", [b"INFO {\r\n", b"INFO []\r\n", b"-ERR \r\n", b"-ERR '\xff'\r\n", b"MSG a " + b"1" * 5000 + b" 0\r\n\r\n"]
)
async def test_a_line_that_nobody_can_read_is_answered_by_a_new_connection(
    line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-py stops reading, and the connection would only be noticed as lost after three pings."""
    reconnected = 0
    caplog.set_level(logging.ERROR)

    async def unreadable(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"PONG\r\n" + (b"" if reconnected else line))

    def count() -> None:
        nonlocal reconnected
        reconnected += 1

    async with answering(unreadable) as access:
        link = connection.Connection(access, name="test", on_reconnected=count)
        await link.open(5)
        await wait.until(lambda: reconnected > 0 and link.connected, what="a new connection")
        await link.close()
    assert not caplog.records
