"""Messages in and out of streams while all is well."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator

import pytest

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker
from ems_worker.core.wire import Message
from tests.support import broker as support
from tests.support import servers, wait


@pytest.fixture
async def broker(server: servers.NatsServer) -> AsyncIterator[Broker]:
    async with support.connected(server.url) as one:
        yield one


async def _events(broker: Broker, count: int) -> list[Message]:
    found: list[Message] = []

    async def enough() -> bool:
        found.extend(await broker.events())
        return len(found) >= count

    await wait.until(enough, what=f"{count} events")
    return found


async def test_a_message_arrives_with_all_that_is_known_of_it(broker: Broker, server: servers.NatsServer) -> None:
    """Stream, its creation time, sequence, subject, headers, deliveries and time of publishing."""
    before_ms = time.time_ns() // 1_000_000
    async with support.plain(server) as (_, js):
        await js.publish("ems.experiment.submit.evo", b"plan", headers={"Content-Type": "application/yaml"})

    (message,) = await broker.plans()

    identity = (await broker.streams())["EMS_PLANS"]
    assert (message.stream, message.stream_created_ns) == ("EMS_PLANS", identity.created_ns)
    assert (message.seq, message.subject, message.data) == (1, "ems.experiment.submit.evo", b"plan")
    assert message.headers["Content-Type"] == "application/yaml"
    assert message.delivered == 1
    assert before_ms <= message.published_ms <= time.time_ns() // 1_000_000


async def test_idle_fetches_end_empty(broker: Broker) -> None:
    """A fetch from an empty stream returns; it doesn't wait for a message."""
    async with asyncio.timeout(20):
        assert list(await broker.plans()) == []


async def test_everything_comes_once_and_in_order(broker: Broker, server: servers.NatsServer) -> None:
    """A backlog comes in batches of at most 500; acknowledged messages never come again."""
    await broker.publish([("sim.run_started", str(n).encode(), f"id-{n}") for n in range(1200)])
    numbers: list[int] = []
    while len(numbers) < 1200:
        batch = await broker.events()
        assert 0 < len(batch) <= 500
        numbers += [int(message.data) for message in batch]
        await broker.ack(batch)
    assert numbers == list(range(1200))

    async with support.plain(server) as (_, js):

        async def settled() -> bool:
            return bool((await js.consumer_info("SIM_EVENTS", "ems-worker-events")).num_ack_pending == 0)

        await wait.until(settled, what="all acknowledgements")
    assert list(await broker.events()) == []


async def test_an_event_is_delivered_at_once(broker: Broker) -> None:
    """A fetch that waits ends with the event, not at its own end: these fetches would take a minute."""
    assert list(await broker.events()) == []
    async with asyncio.timeout(30):
        for number in range(15):
            waiting = asyncio.create_task(broker.events(60.0))
            await asyncio.sleep(0)
            await broker.publish([("sim.run_started", b"{}", f"n{number}")])
            await broker.ack(await waiting)


async def test_later_means_later(broker: Broker) -> None:
    """A message that is put off comes again after the delay, behind one that came meanwhile, and has a higher count."""
    await broker.publish([("sim.run_failed", b"x", "1")])
    (first,) = await _events(broker, 1)
    await broker.later([first], 2)
    await broker.publish([("sim.run_failed", b"y", "2")])

    (other,) = await _events(broker, 1)
    (again,) = await _events(broker, 1)

    assert (other.seq, other.delivered) == (first.seq + 1, 1)
    assert (again.seq, again.delivered) == (first.seq, 2)


async def test_large_plans_come_through(broker: Broker, server: servers.NatsServer) -> None:
    """Plans near the server's limit arrive whole, a few at a time."""
    plans = [bytes([65 + n]) * 1_000_000 for n in range(12)]
    async with support.plain(server) as (_, js):
        for plan in plans:
            await js.publish("ems.experiment.submit", plan)
    found: list[bytes] = []
    while len(found) < len(plans):
        batch = await broker.plans()
        assert 0 < len(batch) <= 8
        found += [message.data for message in batch]
        await broker.working(batch)
        await broker.ack(batch)
    assert found == plans


async def test_what_was_not_fetched_is_given_back_at_the_end(server: servers.NatsServer) -> None:
    """A message that came in while nobody fetched is there for the next worker at once, not after 30 seconds."""
    async with support.connected(server.url) as first:
        assert list(await first.events()) == []
        await first.publish([("sim.run_started", b"kept", "1")])
        async with support.plain(server) as (_, js):

            async def delivered() -> bool:
                return bool((await js.consumer_info("SIM_EVENTS", "ems-worker-events")).num_ack_pending == 1)

            await wait.until(delivered, what="delivery to the first")
    async with support.connected(server.url) as second:
        async with asyncio.timeout(20):
            assert [message.data for message in await _events(second, 1)] == [b"kept"]


async def test_a_message_id_is_stored_once(broker: Broker, server: servers.NatsServer) -> None:
    """Publishing again under the same id changes nothing."""
    for _ in range(2):
        await broker.publish([("ems.experiment.result.x", b"1", "a"), ("ems.experiment.result.x", b"2", "b")])
    async with support.plain(server) as (_, js):
        assert (await js.stream_info("EMS_RESULTS")).state.messages == 2


async def test_the_latest_is_never_overwritten_by_an_older_one(broker: Broker, server: servers.NatsServer) -> None:
    """Only a higher revision replaces what is stored, whoever stored it and whatever was remembered."""
    subject = "ems.experiment.status.reef"

    async def put(by: Broker, revision: int, by_whom: str = "one") -> bool:
        document = {"revision": revision, "worker_id": by_whom}
        return await by.publish_latest(subject, json.dumps(document).encode(), revision)

    assert await put(broker, 1)
    assert await put(broker, 3)
    assert await put(broker, 3), "the same once more is there"
    assert not await put(broker, 3, "another")
    assert not await put(broker, 2)
    async with support.connected(server.url) as other:
        assert not await put(other, 3, "another")
        assert await put(other, 3)
        assert await put(other, 4, "another")
    assert not await put(broker, 4)
    assert await put(broker, 5)
    async with support.plain(server) as (_, js):
        stored = await js.get_last_msg("EMS_STATUS", subject, direct=True)
        assert json.loads(stored.data or b"") == {"revision": 5, "worker_id": "one"}
        assert (await js.stream_info("EMS_STATUS")).state.messages == 1
        for revision, odd in enumerate((b"something else", b'{"revision": 9223372036854775807}', b"[]"), 6):
            await js.publish(subject, odd)
            assert await put(broker, revision), "what isn't a status of ours doesn't stand in the way"


async def test_a_message_that_the_server_cannot_take_is_refused_before_it_is_sent(broker: Broker) -> None:
    """The server would cut the connection; so the refusal names its limit, and the connection lives on."""
    with pytest.raises(errors.BrokerMisconfigured, match="max_payload"):
        await broker.publish([("ems.experiment.result.x", b"x" * 1_048_576, "a")])
    await broker.publish([("ems.experiment.result.x", b"small", "b")])


async def test_a_dead_letter_says_why_and_from_where(broker: Broker, server: servers.NatsServer) -> None:
    """It has the original bytes, is stored once however often it is sent, and its original is acknowledged."""
    await broker.publish([("sim.run_failed.x", b"\xff\x00garbage", "1")])
    (message,) = await _events(broker, 1)
    await broker.dead_letter(message, "neither JSON\nnor protobuf: ümlaut", "event")
    await broker.dead_letter(message, "again", "event")

    async with support.plain(server) as (_, js):
        assert (await js.stream_info("EMS_DLQ")).state.messages == 1
        letter = await (await js.subscribe("ems.dlq.event")).next_msg(timeout=5)
        assert (letter.subject, letter.data) == ("ems.dlq.event", b"\xff\x00garbage")
        headers = letter.headers or {}
        assert headers["Ems-Reason"] == "neither JSON nor protobuf: ümlaut"
        assert headers["Ems-Stream"] == "SIM_EVENTS"
        assert headers["Ems-Sequence"] == str(message.seq)
        assert headers["Ems-Subject"] == "sim.run_failed.x"
        assert headers["Ems-Delivered"] == "1"
        assert (await js.consumer_info("SIM_EVENTS", "ems-worker-events")).num_ack_pending == 0


async def test_a_dead_letter_that_is_too_large_goes_by_reference(broker: Broker, server: servers.NatsServer) -> None:
    """A message as large as the server allows leaves no room for headers: stream, sequence and digest stand for it."""
    body = b"x" * 1_048_576
    async with support.plain(server) as (client, js):
        await client.publish("ems.experiment.submit", body)
        await client.flush()
        (message,) = await broker.plans()
        await broker.dead_letter(message, "too much", "plan")

        letter = await (await js.subscribe("ems.dlq.plan")).next_msg(timeout=5)
        headers = letter.headers or {}
        assert not letter.data
        assert (letter.subject, headers["Ems-By-Reference"]) == ("ems.dlq.plan", "true")
        assert headers["Ems-Sha256"] == hashlib.sha256(body).hexdigest()
        assert (headers["Ems-Stream"], headers["Ems-Sequence"]) == ("EMS_PLANS", str(message.seq))


async def test_a_reply_reaches_an_inbox(broker: Broker, server: servers.NatsServer) -> None:
    """Those who wait on an inbox get the bytes."""
    async with support.plain(server) as (client, _):
        subscription = await client.subscribe("_INBOX.someone")
        # Twice: the first may overtake the subscription in nats-py's queue.
        await client.flush()
        await client.flush()
        await broker.reply("_INBOX.someone", b"decision")
        assert (await subscription.next_msg(timeout=5)).data == b"decision"
