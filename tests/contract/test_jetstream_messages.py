"""Messages in and out of streams while nothing fails."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker
from ems_worker.core.wire import Message
from tests.support import broker as support
from tests.support import servers, wait


@pytest.fixture
async def broker(server: servers.NatsServer) -> AsyncIterator[Broker]:
    async with support.connected(server.url) as connected:
        yield connected


async def _events(broker: Broker, count: int) -> list[Message]:
    events: list[Message] = []

    async def enough() -> bool:
        events.extend(await broker.events())
        return len(events) >= count

    await wait.until(enough, what=f"{count} events")
    return events


async def test_a_message_arrives_with_its_metadata(broker: Broker, server: servers.NatsServer) -> None:
    """It has its stream, the stream's creation time, sequence, subject, headers, deliveries and time of publishing."""
    async with support.plain(server) as (_, js):
        await js.publish("ems.experiment.submit.evo", b"plan", headers={"Content-Type": "application/yaml"})
        stored_at = (await js.get_msg("EMS_PLANS", 1)).time

    (message,) = await broker.plans()

    identity = (await broker.streams())["EMS_PLANS"]
    assert (message.stream, message.stream_created_ns) == ("EMS_PLANS", identity.created_ns)
    assert (message.seq, message.subject, message.data) == (1, "ems.experiment.submit.evo", b"plan")
    assert message.headers["Content-Type"] == "application/yaml"
    assert message.delivered == 1
    assert stored_at is not None
    assert message.published_ms == int(stored_at.timestamp() * 1000)


async def test_a_fetch_ends_empty_without_messages(broker: Broker) -> None:
    """Fetching from an empty stream returns instead of waiting for a message."""
    assert list(await broker.plans()) == []
    assert list(await broker.events(0.0)) == []


async def test_a_backlog_comes_once_and_in_order(broker: Broker, server: servers.NatsServer) -> None:
    """It comes in batches of at most 500, and acknowledged messages never come again."""
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


async def test_an_event_is_delivered_without_another_request(broker: Broker, server: servers.NatsServer) -> None:
    """An idle fetch has a request waiting at the server, so the server sends an event as soon as it is published."""
    async with support.plain(server) as (client, js):
        requests = await client.subscribe("$JS.API.CONSUMER.MSG.NEXT.SIM_EVENTS.ems-worker-events")
        await support.subscribed(client)

        async def waits() -> bool:
            return bool((await js.consumer_info("SIM_EVENTS", "ems-worker-events")).num_waiting == 1)

        for number in range(5):
            assert list(await broker.events(0.0)) == []
            waiting = asyncio.create_task(_events(broker, 1))
            await wait.until(waits, what="the request to wait at the server")
            before = requests.delivered
            await broker.publish([("sim.run_started", b"{}", f"n{number}")])
            await broker.ack(await waiting)
            await client.flush()
            assert requests.delivered == before


async def test_a_postponed_message_is_redelivered_after_the_delay(broker: Broker, server: servers.NatsServer) -> None:
    """The worker asks the server for the delay, and the message comes again as its second delivery."""
    await broker.publish([("sim.run_failed", b"x", "1")])
    (first,) = await _events(broker, 1)
    async with support.plain(server) as (client, _):
        acknowledgements = await client.subscribe(first.token.decode())
        await support.subscribed(client)
        await broker.later([first], 0.2)
        assert (await acknowledgements.next_msg(timeout=5)).data == b'-NAK {"delay":200000000}'

    (second,) = await _events(broker, 1)

    assert (second.seq, second.delivered) == (first.seq, 2)


async def test_a_delay_is_never_zero(broker: Broker, server: servers.NatsServer) -> None:
    """Without a delay the server would redeliver the message thousands of times a second."""
    await broker.publish([("sim.run_failed", b"x", "1")])
    (first,) = await _events(broker, 1)
    async with support.plain(server) as (client, _):
        acknowledgements = await client.subscribe(first.token.decode())
        await support.subscribed(client)
        await broker.later([first], 0.0)
        assert (await acknowledgements.next_msg(timeout=5)).data == b'-NAK {"delay":50000000}'


async def test_working_on_a_message_postpones_its_redelivery(broker: Broker, server: servers.NatsServer) -> None:
    """The worker tells the server that it is still processing the message, without acknowledging it."""
    await broker.publish([("sim.run_failed", b"x", "1")])
    (message,) = await _events(broker, 1)
    async with support.plain(server) as (client, js):
        acknowledgements = await client.subscribe(message.token.decode())
        await support.subscribed(client)
        await broker.working([message])
        assert (await acknowledgements.next_msg(timeout=5)).data == b"+WPI"
        assert (await js.consumer_info("SIM_EVENTS", "ems-worker-events")).num_ack_pending == 1


async def test_large_plans_arrive_whole(broker: Broker, server: servers.NatsServer) -> None:
    """Plans near the server's limit come a few at a time."""
    plans = [bytes([65 + n]) * 1_000_000 for n in range(12)]
    async with support.plain(server) as (_, js):
        for plan in plans:
            await js.publish("ems.experiment.submit", plan)
    received: list[bytes] = []
    while len(received) < len(plans):
        batch = await broker.plans()
        assert 0 < len(batch) <= 8
        received += [message.data for message in batch]
        await broker.working(batch)
        await broker.ack(batch)
    assert received == plans


async def test_a_delivered_message_that_was_not_fetched_is_returned_at_the_end(server: servers.NatsServer) -> None:
    """The next worker gets it at once, instead of 30 seconds later, when the server would redeliver it."""
    async with support.connected(server.url) as first:
        assert list(await first.events()) == []
        await first.publish([("sim.run_started", b"kept", "1")])
        async with support.plain(server) as (_, js):

            async def delivered() -> bool:
                return bool((await js.consumer_info("SIM_EVENTS", "ems-worker-events")).num_ack_pending == 1)

            await wait.until(delivered, what="delivery to the first")
    async with support.connected(server.url) as second:
        # `_events` waits for less than the 30 seconds.
        assert [message.data for message in await _events(second, 1)] == [b"kept"]


async def test_a_message_id_is_stored_once(broker: Broker, server: servers.NatsServer) -> None:
    """Publishing again under the same message id changes nothing."""
    for _ in range(2):
        await broker.publish([("ems.experiment.result.x", b"1", "a"), ("ems.experiment.result.x", b"2", "b")])
    async with support.plain(server) as (_, js):
        assert (await js.stream_info("EMS_RESULTS")).state.messages == 2


async def test_a_latest_message_is_never_overwritten_by_an_older_one(
    broker: Broker, server: servers.NatsServer
) -> None:
    """Only a higher revision replaces a stored one, whichever worker stored it."""
    subject = "ems.experiment.status.reef"

    async def put(by: Broker, revision: int, worker_id: str = "one") -> bool:
        document = {"revision": revision, "worker_id": worker_id}
        return await by.publish_latest(subject, json.dumps(document).encode(), revision)

    assert await put(broker, 1)
    assert await put(broker, 3)
    assert await put(broker, 3), "the same document is stored already"
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
        others = (
            b"something else",
            b'{"revision": 9223372036854775807}',
            b'{"revision": 99, "experiment_id": "other"}',
            b"[]",
        )
        for revision, foreign in enumerate(others, 6):
            await js.publish(subject, foreign)
            assert await put(broker, revision), "a message that isn't a status of ours is replaced"


async def test_a_removed_latest_message_is_forgotten_once_it_is_looked_up(
    broker: Broker, server: servers.NatsServer
) -> None:
    """After the look-up, a lower revision than the removed one can be stored."""
    subject = "ems.experiment.status.reef"
    assert await broker.publish_latest(subject, b'{"revision": 5}', 5)
    assert await broker.published_revision(subject) == 5
    async with support.plain(server) as (_, js):
        await js.purge_stream("EMS_STATUS")
    assert await broker.published_revision(subject) is None
    assert await broker.publish_latest(subject, b'{"revision": 1}', 1)


async def test_a_message_that_the_server_cannot_take_is_refused_before_it_is_sent(broker: Broker) -> None:
    """The server would cut the connection at such a message; the error names the server's limit instead."""
    with pytest.raises(errors.BrokerMisconfigured, match="max_payload"):
        await broker.publish([("ems.experiment.result.x", b"x" * 1_048_576, "a")])
    await broker.publish([("ems.experiment.result.x", b"small", "b")])


async def test_a_dead_letter_has_its_reason_and_origin(broker: Broker, server: servers.NatsServer) -> None:
    """It has the original bytes, is stored once even if it is sent twice, and its original is acknowledged."""
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


async def test_the_reason_of_a_dead_letter_is_cut(broker: Broker, server: servers.NatsServer) -> None:
    """A long reason, which may quote the message, must not make the headers too large."""
    await broker.publish([("sim.run_failed.x", b"garbage", "1")])
    (message,) = await _events(broker, 1)
    await broker.dead_letter(message, "x" * 100_000, "event")
    async with support.plain(server) as (_, js):
        letter = await js.get_last_msg("EMS_DLQ", "ems.dlq.event")
        assert (letter.headers or {})["Ems-Reason"] == "x" * 2000
        assert letter.data == b"garbage"


async def test_a_dead_letter_that_is_too_large_is_stored_by_reference(
    broker: Broker, server: servers.NatsServer
) -> None:
    """A message as large as the server allows leaves no room for headers, so only its origin and digest are stored."""
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
    """A client that waits on an inbox gets the bytes of the reply."""
    async with support.plain(server) as (client, _):
        subscription = await client.subscribe("_INBOX.someone")
        await support.subscribed(client)
        await broker.reply("_INBOX.someone", b"decision")
        assert (await subscription.next_msg(timeout=5)).data == b"decision"
