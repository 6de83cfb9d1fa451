"""What only a container can show: a broker that is cut off the network while it runs."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from testcontainers.core.network import Network

from ems_worker.adapters.jetstream import Broker, connection
from tests.support import broker as support
from tests.support import containers, wait


@pytest.fixture
async def server(network: Network) -> AsyncIterator[containers.NatsServer]:
    async with containers.NatsServer(network) as one:
        yield one


async def _event(broker: Broker) -> bytes:
    async def some() -> bytes:
        for message in await broker.events():
            await broker.ack([message])
            return message.data
        return b""

    return await wait.until(some, what="an event")


async def test_a_network_cut_is_survived(server: containers.NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it lasts, those who fetch wait and those who publish try again; after it each message is there once."""
    monkeypatch.setattr(connection, "PING_SECONDS", 0.3)
    heard = support.Callbacks()
    async with support.connected(server.url, heard) as broker:
        await broker.publish([("sim.run_started", b"before", "1")])
        assert await _event(broker) == b"before"

        await server.cut()
        await wait.until(lambda: not broker.connected, what="the loss to be noticed")
        assert server.running
        fetching = asyncio.create_task(_event(broker))
        publishing = asyncio.create_task(broker.publish([("sim.run_started", b"during", "2")]))
        assert list(await broker.plans()) == []
        assert not fetching.done()
        assert not publishing.done()

        await server.mend()
        await publishing
        assert await fetching == b"during"
        assert heard.reconnected == 1
        async with support.plain(server) as (_, js):
            assert (await js.stream_info("SIM_EVENTS")).state.messages == 2


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restarted_container_has_its_streams(server: containers.NatsServer, crash: bool) -> None:
    """Stopped or killed and started again, at the same port and with everything that was stored."""
    async with support.connected(server.url) as broker:
        await broker.publish([("sim.run_started", b"kept", "1")])
        before = await broker.streams()
        await server.restart(crash=crash)
        await wait.until(lambda: broker.connected, what="reconnection")
        assert await broker.streams() == before
        assert await _event(broker) == b"kept"
