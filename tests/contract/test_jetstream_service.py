"""The NATS service `ems` as its clients see it."""

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker
from tests.support import broker as support
from tests.support import servers, wait


async def _echo(data: bytes) -> bytes:
    return b"echo " + data


async def _fail(data: bytes) -> bytes:
    raise {
        b"missing": errors.NotFound("there is no experiment reef"),
        b"bad": errors.RequestRefused("limit has to be\na number"),
        b"plan": errors.PlanRejected([errors.Problem("unknown_key", "x", "isn't known")]),
        b"conflict": errors.ManifestConflict("it moved on"),
        b"away": errors.OrchestratorUnavailable("nobody there"),
        b"long": errors.RequestRefused("x" * 100_000),
        b"bug": KeyError("a secret of the code"),
    }[data]


async def _large(_: bytes) -> bytes:
    return b"x" * 2_000_000


async def _serve(broker: Broker) -> None:
    await support.serve(broker, {"echo": _echo, "fail": _fail, "large": _large})


async def _ask(client: Client, verb: str, data: bytes = b"") -> Msg:
    return await client.request(f"ems.api.{verb}", data, timeout=5)


async def test_a_request_gets_its_reply(server: servers.NatsServer) -> None:
    """A request on ems.api.VERB gets the handler's bytes, and no stream answers in its place."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, _):
        await _serve(broker)
        reply = await _ask(client, "echo", b"hello")
        assert (reply.data, reply.headers) == (b"echo hello", None)


async def test_the_service_can_be_discovered(server: servers.NatsServer) -> None:
    """`nats service ls` finds it by name and version, as ADR-32 says."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, _):
        await _serve(broker)
        reply = await client.request("$SRV.INFO.ems", timeout=5)
        assert b'"version": "1.2.3"' in reply.data
        assert b'"subject": "ems.api.echo"' in reply.data


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (b"missing", "404", "there is no experiment reef"),
        (b"bad", "400", "limit has to be a number"),
        (b"plan", "400", "x: isn't known [unknown_key]"),
        (b"conflict", "503", "it moved on"),
        (b"away", "503", "nobody there"),
        (b"long", "400", "x" * 4000),
    ],
)
async def test_our_errors_become_codes_and_messages(
    server: servers.NatsServer, request_: bytes, code: str, message: str
) -> None:
    """The headers of the reply have a code and the reason."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, _):
        await _serve(broker)
        headers = (await _ask(client, "fail", request_)).headers or {}
        assert headers["Nats-Service-Error-Code"] == code
        assert headers["Nats-Service-Error"] == message


async def test_a_bug_in_a_handler_is_reported_and_not_shown(server: servers.NatsServer) -> None:
    """The client gets a 500 without internals, the worker gets the exception, and the service continues."""
    callbacks = support.Callbacks()
    async with support.connected(server.url, callbacks) as broker, support.plain(server) as (client, _):
        await _serve(broker)
        headers = (await _ask(client, "fail", b"bug")).headers or {}
        assert headers["Nats-Service-Error-Code"] == "500"
        assert "secret" not in headers["Nats-Service-Error"]
        assert [type(error) for error in callbacks.errors] == [KeyError]
        assert (await _ask(client, "echo", b"!")).data == b"echo !"


async def test_requests_of_one_verb_do_not_wait_for_each_other(server: servers.NatsServer) -> None:
    """The first reply takes as long as it takes; sixteen requests are worked on, and the next one follows."""
    may_end = asyncio.Event()

    async def slow_first(data: bytes) -> bytes:
        if data == b"slow":
            await may_end.wait()
        return data

    async with support.connected(server.url) as broker, support.plain(server) as (client, _):
        await support.serve(broker, {"echo": slow_first})
        first = asyncio.create_task(_ask(client, "echo", b"slow"))
        for _ in range(40):
            assert (await _ask(client, "echo", b"quick")).data == b"quick"
        others = [asyncio.create_task(_ask(client, "echo", b"slow")) for _ in range(30)]
        await asyncio.sleep(0)
        may_end.set()
        assert [(await task).data for task in (first, *others)] == [b"slow"] * 31


async def test_requests_that_are_being_answered_end_with_the_worker(server: servers.NatsServer) -> None:
    """What a handler needs is closed next."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def forever(_: bytes) -> bytes:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async with support.plain(server) as (client, _):
        async with support.connected(server.url) as broker:
            await support.serve(broker, {"echo": forever})
            await client.publish("ems.api.echo", reply="_INBOX.nobody")
            await client.flush()
            async with asyncio.timeout(5):
                await began.wait()
        assert ended.is_set()


async def test_a_reply_that_is_too_large_is_a_413(server: servers.NatsServer) -> None:
    """The client gets an error, because sending the reply would cut the worker's connection."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, _):
        await _serve(broker)
        headers = (await _ask(client, "large")).headers or {}
        assert headers["Nats-Service-Error-Code"] == "413"
        assert broker.connected


async def test_the_service_is_back_after_a_restart_of_the_server(server: servers.NatsServer) -> None:
    """It is served as soon as the broker has reconnected, and only once."""
    async with support.connected(server.url) as broker:
        await _serve(broker)
        await server.restart(crash=True)
        await wait.until(lambda: broker.connected, what="reconnection")
        async with support.plain(server) as (client, _):
            assert (await _ask(client, "echo", b"again")).data == b"echo again"
            inbox = await client.subscribe("_INBOX.count")
            await client.publish("$SRV.PING.ems", reply="_INBOX.count")
            await inbox.next_msg(timeout=5)
            await client.flush()
            assert inbox.pending_msgs == 0
