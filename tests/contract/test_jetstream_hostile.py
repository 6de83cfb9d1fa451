"""Messages that the server accepts and nats-py fails on: none of them costs a connection, or another message."""

import asyncio

import pytest

from ems_worker.adapters.jetstream import Broker
from ems_worker.core.wire import Message
from tests.support import broker as support
from tests.support import servers, wait

# Appended to a subject: bytes that aren't UTF-8, and characters that only nats-py takes for white space.
ENDINGS = [b"\xff", b"\xed\xa0\x80", b"a\x0bb", b"\x0b", b"a\x0c1", b"a\x0cb\x0bc\x0cd"]
# Header blocks that the protocol doesn't define.
HEADERS = [
    b"N",
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0 404 \xff\r\n\r\n",
    b"NATS/1.0 100 \xff\r\nA: b\r\n\r\n",
    b"NATS/1.0\r\n\xff: \xff\r\n\r\n",
]


async def publish(server: servers.NatsServer, *lines: bytes) -> None:
    """Publishes protocol lines that a client library would refuse to send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"protocol":1}\r\n')
    writer.writelines([*lines, b"PING\r\n"])
    async with asyncio.timeout(5):
        assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()


async def fetch(broker: Broker, kind: str, count: int) -> list[Message]:
    """Fetches until so many messages have come."""
    messages: list[Message] = []

    async def enough() -> bool:
        messages.extend(await (broker.events(0.2) if kind == "event" else broker.plans()))
        return len(messages) >= count

    await wait.until(enough, timeout=8, what=f"{count} messages")
    return messages


@pytest.mark.parametrize("subject", [b"sim.run_started.", b"ems.experiment.submit."])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_message_on_a_subject_that_is_not_text_is_read_like_any_other(
    server: servers.NatsServer, subject: bytes, ending: bytes
) -> None:
    """The connection survives it, the message can become a dead letter, and the next message is read."""
    callbacks = support.Callbacks()
    kind = "event" if subject.startswith(b"sim") else "plan"
    async with support.connected(server.url, callbacks) as broker:
        await publish(server, b"PUB " + subject + ending + b" 2\r\n{}\r\n", b"PUB " + subject + b"good 2\r\n{}\r\n")
        hostile, good = await fetch(broker, kind, 2)
        assert good.subject == f"{subject.decode()}good"
        assert hostile.subject == (subject + ending).decode("utf-8", "backslashreplace")
        await broker.dead_letter(hostile, "its subject", kind)
        await broker.ack([good])
        assert callbacks == support.Callbacks()
        async with support.plain(server) as (_, js):
            letter = await js.get_last_msg("EMS_DLQ", f"ems.dlq.{kind}")
            assert (letter.headers or {})["Ems-Sequence"] == str(hostile.seq)


@pytest.mark.parametrize("block", HEADERS)
async def test_malformed_headers_are_ignored(server: servers.NatsServer, block: bytes) -> None:
    """A message with malformed headers is delivered with its data, and the next message is read."""
    callbacks = support.Callbacks()
    async with support.connected(server.url, callbacks) as broker:
        await publish(
            server,
            b"HPUB sim.run_started %d %d\r\n%s{}\r\n" % (len(block), len(block) + 2, block),
            b"PUB sim.run_started 4\r\ngood\r\n",
        )
        hostile, good = await fetch(broker, "event", 2)
        assert (hostile.data, good.data) == (b"{}", b"good")
        await broker.ack([hostile, good])
        assert callbacks == support.Callbacks()


async def test_a_request_with_a_hostile_reply_subject_costs_no_connection(server: servers.NatsServer) -> None:
    """A request whose reply subject isn't text gets no reply, and the next request gets its own."""
    callbacks = support.Callbacks()

    async def answer(_: bytes) -> bytes:
        return b"{}"

    async with support.connected(server.url, callbacks) as broker:
        await support.serve(broker, {"list": answer})
        await publish(server, b"PUB ems.api.list _INBOX.\xff 2\r\n{}\r\n", b"PUB $SRV.PING.ems a.\x0bb 0\r\n\r\n")
        async with support.plain(server) as (plain, _):
            assert (await plain.request("ems.api.list", b"{}", timeout=5)).data == b"{}"
        assert callbacks == support.Callbacks()
