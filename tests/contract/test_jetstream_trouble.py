"""What the broker does when the server goes away, comes back, or has lost something."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker, connection
from tests.support import broker as support
from tests.support import link, servers, wait


async def _one_event(broker: Broker) -> bytes:
    async def some() -> bytes:
        for message in await broker.events():
            await broker.ack([message])
            return message.data
        return b""

    return await wait.until(some, what="an event")


async def _trouble(broker: Broker) -> str:
    """The words with which fetching events fails, within some seconds."""

    async def refused() -> str:
        try:
            await broker.events()
        except errors.BrokerMisconfigured as error:
            return str(error)
        return ""

    return await wait.until(refused, what="BrokerMisconfigured")


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restarted_server_is_found_again(server: servers.NatsServer, crash: bool) -> None:
    """Events and plans flow as before, the callbacks tell of it, and nothing had to be called for that."""
    heard = support.Heard()
    async with support.connected(server.url, heard) as broker:
        fetching = asyncio.create_task(_one_event(broker))
        await server.restart(crash=crash)
        await wait.until(lambda: broker.connected, what="reconnection")
        await broker.publish([("sim.run_started", b"after", "1")])

        assert await fetching == b"after"
        assert (heard.disconnected, heard.reconnected) == (1, 1)
        async with support.plain(server) as (_, js):
            await js.publish("ems.experiment.submit", b"plan")
        assert [message.data for message in await broker.plans()] == [b"plan"]


async def test_fetching_waits_while_the_server_is_away(server: servers.NatsServer) -> None:
    """An outage is no error for those who wait: they get nothing, a second at a time."""
    async with support.connected(server.url) as broker:
        await server.kill()
        await wait.until(lambda: not broker.connected, what="the loss")
        fetching = asyncio.ensure_future(broker.events())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not fetching.done()
        async with asyncio.timeout(20):
            assert list(await fetching) == []


@pytest.mark.parametrize("kind", ["events", "streams"])
async def test_a_connection_that_closes_slowly_leaves_the_loop_to_others(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """nats-py counts as closed before it says so, for as long as its transport takes: with TLS, half a second.

    Those who fetch or ask in a loop meanwhile wait; a loop that never yields would keep the connection from being
    replaced, for ever.
    """

    async def slowly(transport: TcpTransport) -> None:
        await asyncio.sleep(0.5)

    monkeypatch.setattr(TcpTransport, "wait_closed", slowly)
    calls = 0
    async with support.connected(server.url) as broker:

        async def loop() -> None:
            nonlocal calls
            while True:
                calls += 1
                assert calls < 10_000, "the loop turns without waiting"
                with contextlib.suppress(errors.BrokerUnavailable):
                    await (broker.events(0.01) if kind == "events" else broker.streams())

        looping = asyncio.create_task(loop())
        await server.restart(crash=True)
        await wait.until(lambda: looping.done() or broker.connected, what="reconnection")
        looping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looping


async def test_publishing_outlives_a_crash_of_the_server(server: servers.NatsServer) -> None:
    """What is published while the server is killed and comes back is stored, each message once."""
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


async def test_the_latest_stays_the_latest_over_a_restart(server: servers.NatsServer) -> None:
    """A server that has forgotten message ids still refuses an old status."""
    async with support.connected(server.url) as first, support.connected(server.url) as second:
        assert await first.publish_latest("ems.experiment.status.x", b'{"revision": 1}', 1)
        assert await second.publish_latest("ems.experiment.status.x", b'{"revision": 2}', 2)
        await server.restart(crash=True)
        assert not await first.publish_latest("ems.experiment.status.x", b'{"revision": 2, "mine": true}', 2)
        assert await first.publish_latest("ems.experiment.status.x", b'{"revision": 3}', 3)
        async with support.plain(server) as (_, js):
            stored = await js.get_last_msg("EMS_STATUS", "ems.experiment.status.x")
            assert json.loads(stored.data or b"") == {"revision": 3}


async def test_publishing_fails_in_the_end_without_a_server(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while without any acknowledgement the caller is told."""
    monkeypatch.setattr("ems_worker.adapters.jetstream.publish._GIVE_UP_SECONDS", 0.5)
    monkeypatch.setattr("ems_worker.adapters.jetstream.publish._ACK_SECONDS", 0.5)
    async with support.connected(server.url) as broker:
        await server.kill()
        with pytest.raises(errors.BrokerUnavailable, match="acknowledge"):
            await broker.publish([("ems.experiment.result.x", b"1", "a")])
        with pytest.raises(errors.BrokerUnavailable, match="acknowledge"):
            await broker.publish_latest("ems.experiment.status.x", b"{}", 1)
        await broker.reply("_INBOX.gone", b"lost")
        await broker.ack([])


async def test_a_deleted_consumer_is_reported_and_not_made_again(server: servers.NatsServer) -> None:
    """Until `ensure` is called: then events flow again."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        assert list(await broker.events()) == []
        await js.delete_consumer("SIM_EVENTS", "ems-worker-events")
        assert "consumer ems-worker-events of stream SIM_EVENTS was deleted" in await _trouble(broker)
        assert not await js.consumers_info("SIM_EVENTS")

        await broker.ensure(support.OWNER)
        await broker.publish([("sim.run_started", b"again", "1")])
        assert await _one_event(broker) == b"again"


async def test_a_deleted_stream_is_reported_and_not_made_again(server: servers.NatsServer) -> None:
    """Both to those who fetch and to those who publish."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        assert list(await broker.events()) == []
        await js.delete_stream("SIM_EVENTS")
        assert "stream SIM_EVENTS was deleted" in await _trouble(broker)
        assert "SIM_EVENTS" not in {info.config.name for info in await js.streams_info()}


async def test_publishing_to_a_deleted_stream_is_reported(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nobody takes the subject is told as what it is, after JetStream had time to come up."""
    monkeypatch.setattr("ems_worker.adapters.jetstream.publish._GIVE_UP_SECONDS", 0.3)
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await js.delete_stream("EMS_RESULTS")
        with pytest.raises(errors.BrokerMisconfigured, match=r"no stream takes ems\.experiment\.result\.x"):
            await broker.publish([("ems.experiment.result.x", b"1", "a")])


async def test_a_stream_that_was_created_anew_is_reported(server: servers.NatsServer) -> None:
    """Messages of the old one may be missing: nobody goes on as if nothing had happened."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        assert list(await broker.events()) == []
        config = (await js.stream_info("SIM_EVENTS")).config
        await js.delete_stream("SIM_EVENTS")
        await js.add_stream(config)
        assert "stream SIM_EVENTS was deleted and created anew" in await _trouble(broker)


async def test_a_full_stream_says_so(server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's words about its limit reach the caller."""
    monkeypatch.setattr("ems_worker.adapters.jetstream.publish._GIVE_UP_SECONDS", 0.3)
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await js.update_stream((await js.stream_info("EMS_PLANS")).config, max_msgs=1)
        with pytest.raises(errors.BrokerUnavailable, match="maximum messages"):
            await broker.publish([("ems.experiment.submit", b"1", "a"), ("ems.experiment.submit", b"2", "b")])


async def test_a_half_open_connection_is_noticed(server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that swallows everything is given up after the unanswered pings, and a new one taken."""
    monkeypatch.setattr(connection, "_PING_SECONDS", 0.3)
    heard = support.Heard()
    async with link.Link(server.port) as half, support.connected(f"nats://{half.address}", heard) as broker:
        fetching = asyncio.create_task(_one_event(broker))
        await asyncio.sleep(0)
        half.freeze()
        await wait.until(lambda: heard.reconnected == 1, what="a new connection")
        await broker.publish([("sim.run_started", b"after", "1")])
        assert await fetching == b"after"


async def test_without_a_server_connecting_fails_soon(server: servers.NatsServer) -> None:
    """With a timeout every server is tried once; the error says where, without the password."""
    await server.stop()
    url = f"nats://user:secret@127.0.0.1:{server.port}"
    with pytest.raises(errors.BrokerUnavailable) as caught:
        async with asyncio.timeout(60), Broker.connect([url], name="test", timeout=600):
            pytest.fail("connected to nobody")
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_server_that_never_greets_is_not_waited_for(tmp_path: Path) -> None:
    """The timeout holds where something listens and says nothing."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{mute.sockets[0].getsockname()[1]}"
    with pytest.raises(errors.BrokerUnavailable, match="within 1 s"):
        async with Broker.connect([url], name="test", timeout=1):
            pytest.fail("connected to a mute")
    mute.close()
    await mute.wait_closed()


async def test_without_a_timeout_connecting_waits_for_the_server(server: servers.NatsServer) -> None:
    """A worker may be started before its server."""
    await server.stop()

    async def connected() -> bool:
        async with Broker.connect([server.url], name="test") as broker:
            return broker.connected

    waiting = asyncio.create_task(connected())
    await asyncio.sleep(0)
    await server.start()
    assert await asyncio.wait_for(waiting, 10)


async def test_closing_waits_for_no_server(server: servers.NatsServer) -> None:
    """Without a server, and with fetches under way, closing doesn't wait for what will never be sent (30 s)."""
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(support.connected(server.url))
        fetches = [asyncio.create_task(broker.events()), asyncio.create_task(broker.plans())]
        await asyncio.sleep(0)
        await server.kill()
        async with asyncio.timeout(20):
            await stack.aclose()
        await asyncio.gather(*fetches)


async def test_closing_ends_an_attempt_that_swallows_its_cancellation() -> None:
    """As nats-py does now and then while it lets go of a connection."""
    link_ = connection.Connection(["nats://127.0.0.1:1"], name="test")
    dialing = asyncio.Event()

    async def deaf() -> Client:
        dialing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise errors.BrokerUnavailable("not there")

    link_._dial = deaf  # type: ignore[method-assign]  # the moment is too short to be met with a real one
    waiting = asyncio.create_task(link_.open(None))
    await dialing.wait()
    waiting.cancel()
    await asyncio.wait_for(link_.close(), 2)


async def test_what_is_no_nats_server_is_no_server() -> None:
    """Something else on the port is told as an unreachable server, not as a traceback; an outage is told once."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO 7\r\n")
        try:
            await reader.read()
        finally:
            writer.close()

    other = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{other.sockets[0].getsockname()[1]}"
    with pytest.raises(errors.BrokerUnavailable, match="no NATS server answers"):
        async with Broker.connect([url], name="test", timeout=5):
            pytest.fail("connected to something else")
    other.close()
    await other.wait_closed()

    heard = support.Heard()
    link_ = connection.Connection([url], name="test", on_error=heard.errors.append)
    dials = 0
    real = link_._dial

    async def counted() -> Client:
        nonlocal dials
        dials += 1
        return await real()

    link_._dial = counted  # type: ignore[method-assign]  # to see that it goes on trying
    waiting = asyncio.create_task(link_.open(None))
    await wait.until(lambda: dials >= 3, what="more attempts")
    assert len(heard.errors) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await link_.close()
