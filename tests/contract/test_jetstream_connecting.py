"""Opening and closing the broker's connection, whatever is or isn't at the address."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors, nats_access
from ems_worker.adapters.jetstream import Broker, connection
from tests.support import broker as support
from tests.support import servers, wait


async def test_connecting_fails_once_every_server_was_tried(server: servers.NatsServer) -> None:
    """With a timeout, connecting doesn't wait for it to pass, and the error names the address without the password."""
    await server.stop()
    url = f"nats://user:secret@127.0.0.1:{server.port}"
    with pytest.raises(errors.BrokerUnavailable, match="no NATS server answers at") as caught:
        async with Broker.connect([url], name="test", timeout=60):
            pytest.fail("connected to nothing")
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_connecting_to_a_silent_server_ends_at_the_timeout(tmp_path: Path) -> None:
    """A program that accepts connections and never sends a greeting doesn't delay the timeout."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{mute.sockets[0].getsockname()[1]}"
    with pytest.raises(errors.BrokerUnavailable, match="within 1 s"):
        async with Broker.connect([url], name="test", timeout=1):
            pytest.fail("connected to a silent server")
    mute.close()
    await mute.wait_closed()


async def test_without_a_timeout_connecting_waits_for_the_server(server: servers.NatsServer) -> None:
    """A worker can be started before its server."""
    await server.stop()

    async def connected() -> bool:
        async with Broker.connect([server.url], name="test") as broker:
            return broker.connected

    waiting = asyncio.create_task(connected())
    await asyncio.sleep(0)
    await server.start()
    assert await asyncio.wait_for(waiting, 10)


async def test_closing_does_not_wait_for_a_server_that_is_gone(server: servers.NatsServer) -> None:
    """Closing ends without a server, and with fetches in progress."""
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(support.connected(server.url))
        fetches = [asyncio.create_task(broker.events()), asyncio.create_task(broker.plans())]
        await asyncio.sleep(0)
        await server.kill()
        async with asyncio.timeout(10):
            await stack.aclose()
        await asyncio.gather(*fetches)


async def test_closing_ends_an_attempt_that_swallows_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py sometimes swallows a cancellation while it closes a connection."""
    dialing = asyncio.Event()

    async def deaf(client: nats_access.Client, **options: Any) -> None:
        dialing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise OSError("not there")

    monkeypatch.setattr(nats_access.Client, "connect", deaf)
    link = connection.Connection(["nats://127.0.0.1:1"], name="test")
    waiting = asyncio.create_task(link.open(None))
    await dialing.wait()
    waiting.cancel()
    await asyncio.wait_for(link.close(), 10)


async def test_a_program_that_is_not_nats_counts_as_an_unreachable_server() -> None:
    """Connecting to it with a timeout fails; without one it is retried, and the outage is reported once."""
    greetings = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greetings
        greetings += 1
        writer.write(b"INFO 7\r\n")
        try:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        finally:
            writer.close()

    other = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{other.sockets[0].getsockname()[1]}"
    with pytest.raises(errors.BrokerUnavailable, match="no NATS server answers"):
        async with Broker.connect([url], name="test", timeout=5):
            pytest.fail("connected to something else")

    callbacks = support.Callbacks()
    link = connection.Connection([url], name="test", on_error=callbacks.errors.append)
    waiting = asyncio.create_task(link.open(None))
    before = greetings
    # Each attempt connects twice at most.
    await wait.until(lambda: greetings > before + 6, what="more attempts")
    assert len(callbacks.errors) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await link.close()
    other.close()
    await other.wait_closed()
