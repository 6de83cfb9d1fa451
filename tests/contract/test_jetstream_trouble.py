"""What the broker does when the server goes away, comes back, or has lost a stream or a consumer."""

import asyncio
import contextlib
import json

import pytest
from nats.aio.transport import TcpTransport

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker, connection, publish
from tests.support import broker as support
from tests.support import link, servers, wait


async def _one_event(broker: Broker) -> bytes:
    async def some() -> bytes:
        for message in await broker.events():
            await broker.ack([message])
            return message.data
        return b""

    return await wait.until(some, what="an event")


async def _failure(broker: Broker) -> str:
    """The message of the error with which fetching events fails, once it does."""

    async def refused() -> str:
        try:
            await broker.events()
        except errors.BrokerMisconfigured as error:
            return str(error)
        return ""

    return await wait.until(refused, what="BrokerMisconfigured")


@pytest.mark.parametrize("crash", [False, True])
async def test_the_broker_reconnects_to_a_restarted_server(server: servers.NatsServer, crash: bool) -> None:
    """Events and plans flow as before without any call, and the callbacks report the loss and the reconnection."""
    callbacks = support.Callbacks()
    async with support.connected(server.url, callbacks) as broker:
        fetching = asyncio.create_task(_one_event(broker))
        await server.restart(crash=crash)
        await wait.until(lambda: broker.connected, what="reconnection")
        await broker.publish([("sim.run_started", b"after", "1")])

        assert await fetching == b"after"
        assert (callbacks.disconnected, callbacks.reconnected) == (1, 1)
        async with support.plain(server) as (_, js):
            await js.publish("ems.experiment.submit", b"plan")
        assert [message.data for message in await broker.plans()] == [b"plan"]


async def test_a_fetch_waits_while_the_server_is_away(server: servers.NatsServer) -> None:
    """A fetch that begins in an outage returns nothing at its end, and an event if one comes before that."""
    async with support.connected(server.url) as broker:
        await server.kill()
        await wait.until(lambda: not broker.connected, what="the loss")
        assert list(await broker.events(0.1)) == []
        fetching = asyncio.create_task(broker.events(60))
        await server.start()
        await broker.publish([("sim.run_started", b"after", "1")])
        assert [message.data for message in await fetching] == [b"after"]


@pytest.mark.parametrize("kind", ["events", "streams"])
async def test_a_connection_that_closes_slowly_leaves_the_loop_to_others(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Callers that fetch or query in a loop wait meanwhile, instead of starving the task that reconnects.

    A client of nats-py is closed before it calls back, for as long as its transport takes: with TLS, half a second.
    """

    async def slowly(transport: TcpTransport) -> None:
        await wait.let_pass(0.5)

    monkeypatch.setattr(TcpTransport, "wait_closed", slowly)
    calls = 0
    async with support.connected(server.url) as broker:

        async def loop() -> None:
            nonlocal calls
            while True:
                calls += 1
                assert calls < 10_000, "the loop runs without waiting"
                with contextlib.suppress(errors.BrokerUnavailable):
                    await (broker.events(0.01) if kind == "events" else broker.streams())

        looping = asyncio.create_task(loop())
        await server.restart(crash=True)
        await wait.until(lambda: looping.done() or broker.connected, what="reconnection")
        looping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looping


async def test_publishing_survives_a_crash_of_the_server(server: servers.NatsServer) -> None:
    """All messages that are published while the server crashes and restarts are stored, each once."""
    async with support.connected(server.url) as broker:
        await broker.publish([("ems.experiment.result.x", b"0", "warm")])
        items = [("ems.experiment.result.x", str(n).encode(), f"id-{n}") for n in range(30_000)]
        publishing = asyncio.create_task(broker.publish(items))
        async with support.plain(server) as (_, js):

            async def begun() -> bool:
                return (await js.stream_info("EMS_RESULTS")).state.messages > 1000

            await wait.until(begun, what="the first thousand")
        await server.restart(crash=True)
        await publishing
        async with support.plain(server) as (_, js):
            assert (await js.stream_info("EMS_RESULTS")).state.messages == 30_001


async def test_an_old_status_is_refused_after_a_restart(server: servers.NatsServer) -> None:
    """A restarted server has forgotten message ids, but still refuses to replace a newer status."""
    async with support.connected(server.url) as first, support.connected(server.url) as second:
        assert await first.publish_latest("ems.experiment.status.x", b'{"revision": 1}', 1)
        assert await second.publish_latest("ems.experiment.status.x", b'{"revision": 2}', 2)
        await server.restart(crash=True)
        assert not await first.publish_latest("ems.experiment.status.x", b'{"revision": 2, "mine": true}', 2)
        assert await first.publish_latest("ems.experiment.status.x", b'{"revision": 3}', 3)
        async with support.plain(server) as (_, js):
            stored = await js.get_last_msg("EMS_STATUS", "ems.experiment.status.x")
            assert json.loads(stored.data or b"") == {"revision": 3}


async def test_publishing_without_a_server_fails(server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without any acknowledgement the caller gets an error; replies and acknowledgements get lost."""
    monkeypatch.setattr(publish, "GIVE_UP_SECONDS", 0.5)
    monkeypatch.setattr(publish, "ACK_SECONDS", 0.5)
    async with support.connected(server.url) as broker:
        await server.kill()
        with pytest.raises(errors.BrokerUnavailable, match="acknowledge"):
            await broker.publish([("ems.experiment.result.x", b"1", "a")])
        with pytest.raises(errors.BrokerUnavailable, match="acknowledge"):
            await broker.publish_latest("ems.experiment.status.x", b"{}", 1)
        await broker.reply("_INBOX.gone", b"lost")
        await broker.ack([])


async def test_a_deleted_consumer_is_reported_and_not_recreated(server: servers.NatsServer) -> None:
    """Only `ensure` recreates it, and then events flow again."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        assert list(await broker.events()) == []
        await js.delete_consumer("SIM_EVENTS", "ems-worker-events")
        assert "consumer ems-worker-events of stream SIM_EVENTS was deleted" in await _failure(broker)
        assert not await js.consumers_info("SIM_EVENTS")

        await broker.ensure(support.OWNER)
        await broker.publish([("sim.run_started", b"again", "1")])
        assert await _one_event(broker) == b"again"


async def test_a_deleted_stream_is_reported_and_not_recreated(server: servers.NatsServer) -> None:
    """Fetching from it fails with an error that names the stream."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        assert list(await broker.events()) == []
        await js.delete_stream("SIM_EVENTS")
        assert "stream SIM_EVENTS was deleted" in await _failure(broker)
        assert "SIM_EVENTS" not in {info.config.name for info in await js.streams_info()}


async def test_publishing_to_a_deleted_stream_is_reported(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the subject that no stream takes, once JetStream has had time to start."""
    monkeypatch.setattr(publish, "GIVE_UP_SECONDS", 0.3)
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await js.delete_stream("EMS_RESULTS")
        with pytest.raises(errors.BrokerMisconfigured, match=r"no stream takes ems\.experiment\.result\.x"):
            await broker.publish([("ems.experiment.result.x", b"1", "a")])


async def test_a_recreated_stream_is_reported(server: servers.NatsServer) -> None:
    """Fetching from it fails, because messages of the old stream may be missing."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        assert list(await broker.events()) == []
        config = (await js.stream_info("SIM_EVENTS")).config
        await js.delete_stream("SIM_EVENTS")
        await js.add_stream(config)
        assert "stream SIM_EVENTS was deleted and recreated" in await _failure(broker)


async def test_publishing_to_a_full_stream_is_reported(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the server's message about the limit."""
    monkeypatch.setattr(publish, "GIVE_UP_SECONDS", 0.3)
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await js.update_stream((await js.stream_info("EMS_PLANS")).config, max_msgs=1)
        with pytest.raises(errors.BrokerUnavailable, match="maximum messages"):
            await broker.publish([("ems.experiment.submit", b"1", "a"), ("ems.experiment.submit", b"2", "b")])


async def test_a_half_open_connection_is_replaced(server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unanswered pings reveal that a link swallows everything, and the broker connects again."""
    monkeypatch.setattr(connection, "PING_SECONDS", 0.3)
    callbacks = support.Callbacks()
    async with link.Link(server.port) as half, support.connected(f"nats://{half.address}", callbacks) as broker:
        fetching = asyncio.create_task(_one_event(broker))
        await asyncio.sleep(0)
        half.freeze()
        await wait.until(lambda: callbacks.reconnected == 1, what="a new connection")
        await broker.publish([("sim.run_started", b"after", "1")])
        assert await fetching == b"after"
