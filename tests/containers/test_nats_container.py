"""A broker in a container: cut off the network while it runs, and restarted."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from testcontainers.core.network import Network

from ems_worker.adapters.jetstream import Broker, connection
from tests.support import broker as support
from tests.support import containers, wait


@pytest.fixture
async def server(network: Network) -> AsyncIterator[containers.NatsServer]:
    """A nats-server in a container."""
    async with containers.NatsServer(network) as server:
        yield server


async def _next_event(broker: Broker) -> bytes:
    """Waits for an event and acknowledges it; returns its content."""

    async def fetched() -> bytes:
        for message in await broker.events():
            await broker.ack([message])
            return message.data
        return b""

    return await wait.until(fetched, what="an event")


async def test_an_outage_of_the_network_loses_no_message(
    server: containers.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the outage a fetch waits and a publish is retried; afterwards each message has arrived exactly once."""
    monkeypatch.setattr(connection, "PING_SECONDS", 0.3)
    heard = support.Callbacks()
    async with support.connected(server.url, heard) as broker:
        await broker.publish([("sim.run_started", b"before", "1")])
        assert await _next_event(broker) == b"before"

        await server.disconnect()
        await wait.until(lambda: not broker.connected, what="the loss to be noticed")
        assert server.running
        fetching = asyncio.create_task(_next_event(broker))
        publishing = asyncio.create_task(broker.publish([("sim.run_started", b"during", "2")]))
        assert list(await broker.plans()) == []
        assert not fetching.done()
        assert not publishing.done()

        await server.reconnect()
        await publishing
        assert await fetching == b"during"
        assert heard.reconnected == 1
        async with support.plain(server) as (_, js):
            assert (await js.stream_info("SIM_EVENTS")).state.messages == 2


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restarted_container_keeps_its_port_and_streams(server: containers.NatsServer, crash: bool) -> None:
    """After a stop or a crash, the client reconnects and finds the same streams and messages."""
    async with support.connected(server.url) as broker:
        await broker.publish([("sim.run_started", b"kept", "1")])
        before = await broker.streams()
        await server.restart(crash=crash)
        await wait.until(lambda: broker.connected, what="reconnection")
        assert await broker.streams() == before
        assert await _next_event(broker) == b"kept"
