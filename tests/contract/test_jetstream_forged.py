"""Forged messages in the worker's inboxes, and forged metadata in the object store."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker import errors, nats_access
from ems_worker.adapters.jetstream import Broker, connection, consumers, objects, pull, streams
from ems_worker.adapters.jetstream.refusals import Refusals
from ems_worker.core.wire import Message
from tests.support import broker as support
from tests.support import servers, wait

ACK = "$JS.ACK.EMS_PLANS.ems-worker-plans.1.1.1.1700000000000000000.0"
BUCKET = "EMS_PLAN_OBJECTS"
MAX_BYTES = 2**24


async def _reply_subjects(client: Client, subject: str) -> "asyncio.Queue[str]":
    """The reply subjects of messages on a subject, as any client sees them that may subscribe to it."""
    replies: asyncio.Queue[str] = asyncio.Queue()

    async def spy(message: Msg) -> None:
        await replies.put(message.reply)

    await client.subscribe(subject, cb=spy)
    await support.subscribed(client)
    return replies


async def _fetching(broker: Broker, client: Client) -> tuple["asyncio.Task[Sequence[Message]]", str]:
    """A fetch of plans in progress, and the inbox that it waits on."""
    replies = await _reply_subjects(client, "$JS.API.CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans")
    fetching = asyncio.create_task(broker.plans())
    async with asyncio.timeout(5):
        return fetching, await replies.get()


@pytest.mark.parametrize(
    "reply",
    [
        ACK,
        "$JS.ACK.hub.hash.EMS_PLANS.ems-worker-plans.1.1.1.1700000000000000000.0.x",
        "$JS.ACK.EMS_PLANS.other.1.1.1.1700000000000000000.0",
        "$JS.API.STREAM.DELETE.EMS_RESULTS",
        "$JS.ACK.EMS_PLANS.ems-worker-plans.a.b.c.d.e",
        "sim.run_completed",
        "x",
    ],
)
async def test_a_message_forged_into_the_pull_inbox_is_ignored(server: servers.NatsServer, reply: str) -> None:
    """A client that learns the worker's inbox can publish there, but the worker ignores it and reports it once.

    The worker doesn't publish to the forged reply subject either, as it does to acknowledge a real message.
    """
    callbacks = support.Callbacks()
    async with support.connected(server.url, callbacks) as broker, support.plain(server) as (client, js):
        fetching, inbox = await _fetching(broker, client)
        for _ in range(3):
            await client.publish(inbox, b"forged", reply=reply)
        assert await fetching == []
        await js.publish("ems.experiment.submit", b"real")

        async def plans() -> list[bytes]:
            return [message.data for message in await broker.plans()]

        assert await wait.until(plans, what="the real plan") == [b"real"]
        if not reply.startswith("$JS.ACK."):  # newer servers don't accept such a reply subject from a client
            assert [type(error) for error in callbacks.errors] == [errors.Unreadable]
            assert "EMS_NATS_INBOX_PREFIX" in str(callbacks.errors[0])
        assert (await js.stream_info("EMS_RESULTS")).config.name == "EMS_RESULTS"


class _Inbox:
    """A connection whose messages the test delivers: a server that lets any client publish to any inbox."""

    inbox = "_INBOX.worker"

    def __init__(self) -> None:
        self.deliver: Any = None
        self.refusals = Refusals()
        self.errors: list[Exception] = []

    def new_inbox(self) -> str:
        return f"{self.inbox}.x"

    async def subscribe_raw(self, subject: str, receiver: Any) -> None:
        self.deliver = receiver

    async def until_connected(self, timeout: float) -> bool:
        return False

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.mark.parametrize(
    ("subject", "reply", "counts"),
    [
        ("ems.experiment.submit", ACK, True),
        ("ems.experiment.submit.evolution", ACK, True),
        ("ems.experiment.submit", "$JS.ACK.hub.h.EMS_PLANS.ems-worker-plans.1.1.1.17.0.x", True),
        ("ems.experiment.submit.a.b", ACK, False),
        ("_INBOX.worker.x.s1", ACK, False),
        ("sim.run_completed", ACK, False),
        ("ems.experiment.submit", "$JS.ACK.SIM_EVENTS.ems-worker-plans.1.1.1.17.0", False),
        ("ems.experiment.submit", "$JS.ACK.EMS_PLANS.other.1.1.1.17.0", False),
        ("ems.experiment.submit", "$JS.ACK.EMS_PLANS.ems-worker-plans.1.x.1.17.0", False),
        ("ems.experiment.submit", "$JS.API.STREAM.DELETE.EMS_PLANS", False),
    ],
)
async def test_a_message_counts_only_from_our_consumer_on_a_subject_of_its_stream(
    subject: str, reply: str, counts: bool
) -> None:
    """The pull checks both subjects itself, because old servers accept any reply subject from any client."""
    inbox = _Inbox()
    link, client = cast(connection.Connection, inbox), cast(nats_access.Client, inbox)
    plans = pull.Pull(link, consumers.PLANS, streams.PLAN_SUBJECTS, 8)
    plans.bind("EMS_PLANS", 1)
    await plans.connected(client)
    inbox.deliver(subject.encode(), reply.encode(), b"x", b"")
    assert [message.data for message in await plans.fetch(0.0)] == ([b"x"] if counts else [])
    assert len(inbox.errors) == (0 if counts else 1)


@pytest.mark.parametrize("answer", [b"lots", b"[]", b'"x"', b"{}", b'{"seq": "1"}', b'{"error": 5}'])
async def test_a_forged_acknowledgement_is_ignored(server: servers.NatsServer, answer: bytes) -> None:
    """The real acknowledgement counts, even if a malformed one comes before it."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, js):
        replies = await _reply_subjects(client, "ems.experiment.result.first")
        await broker.publish([("ems.experiment.result.first", b"{}", "first")])
        inbox = (await replies.get()).rpartition(".")[0]
        forging = [client.publish(f"{inbox}.{number}", answer) for number in range(1, 50)]
        await asyncio.gather(broker.publish([("ems.experiment.result.x", b"{}", f"{n}") for n in range(20)]), *forging)
        assert (await js.stream_info("EMS_RESULTS")).state.messages == 21


# --- objects


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    started = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield started
    asyncio.run(started.stop())


@pytest.fixture
async def broker(shared_server: servers.NatsServer) -> AsyncIterator[Broker]:
    async with support.connected(shared_server.url) as connected:
        yield connected


async def _put_metadata(server: servers.NatsServer, name: str, metadata: bytes) -> None:
    async with support.plain(server) as (_, js):
        await js.publish(f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}", metadata)


GOOD = {"nuid": "abc", "size": 3, "chunks": 1, "digest": "SHA-256=x"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (b"[]", "can't be used"),
        (b"5", "can't be used"),
        (b"null", "can't be used"),
        (b"not json", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        ({}, "nuid: Field required"),
        ({**GOOD, "size": "lots"}, "size: Input should be a valid integer"),
        ({**GOOD, "size": -1}, "size"),
        ({**GOOD, "size": True}, "size"),
        ({**GOOD, "size": 1.5}, "size"),
        ({**GOOD, "size": 10**40}, "size"),
        ({**GOOD, "size": None}, "size"),
        ({**GOOD, "size": 2**40}, "takes 16,777,216 at most"),
        ({**GOOD, "chunks": "1"}, "chunks"),
        ({**GOOD, "chunks": -1}, "chunks"),
        ({**GOOD, "chunks": [1]}, "chunks"),
        ({**GOOD, "chunks": 2**50}, "in larger chunks"),
        ({**GOOD, "chunks": 2}, "in larger chunks"),
        ({**GOOD, "nuid": ">"}, "nuid"),
        ({**GOOD, "nuid": "*"}, "nuid"),
        ({**GOOD, "nuid": ""}, "nuid"),
        ({**GOOD, "nuid": "a.b"}, "nuid"),
        ({**GOOD, "nuid": "abc\n"}, "nuid"),
        ({**GOOD, "nuid": "x" * 65}, "nuid"),
        ({**GOOD, "nuid": 7}, "nuid"),
        ({**GOOD, "digest": {"a": 1}}, "digest"),
        ({**GOOD, "digest": "x" * 1000}, "digest"),
        ({**GOOD, "deleted": "no"}, "deleted"),
        ({**GOOD, "options": []}, "options"),
    ],
)
async def test_an_object_with_unusable_metadata_is_refused(
    broker: Broker, shared_server: servers.NatsServer, metadata: bytes | dict[str, Any], message: str
) -> None:
    """The error names the field that can't be used."""
    data = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    await _put_metadata(shared_server, "unusable", data)
    with pytest.raises(errors.RequestRefused, match=message):
        await broker.plan_object("unusable", MAX_BYTES)


@pytest.mark.parametrize("change", [{"deleted": True}, {"options": {"link": {"bucket": "B", "name": "n"}}}])
async def test_a_deleted_object_and_a_link_are_not_found(
    broker: Broker, shared_server: servers.NatsServer, change: dict[str, Any]
) -> None:
    """The worker doesn't follow a link, which may lead to any bucket that it can read."""
    await _put_metadata(shared_server, "away", json.dumps({**GOOD, **change}).encode())
    with pytest.raises(errors.NotFound, match="only its link"):
        await broker.plan_object("away", MAX_BYTES)


@pytest.mark.parametrize("name", ["x" * 1025, "é" * 600, "x" * 900_000])
async def test_a_name_that_is_too_long_is_refused(broker: Broker, name: str) -> None:
    """A request for such a name would exceed the size of a message, and would be retried without end."""
    with pytest.raises(errors.RequestRefused, match="1,024 is the limit"):
        await broker.plan_object(name, MAX_BYTES)


async def test_a_name_that_is_not_utf_8_is_not_found(broker: Broker) -> None:
    """A header may name an object with bytes that aren't UTF-8; no object has such a name."""
    with pytest.raises(errors.NotFound):
        await broker.plan_object("\udcff", MAX_BYTES)


@pytest.mark.parametrize("sequence", [b"lots", b"-5", b"0", b"9" * 5000, "٣".encode()])
async def test_a_chunk_with_a_forged_sequence_makes_the_object_unusable(
    broker: Broker, shared_server: servers.NatsServer, sequence: bytes
) -> None:
    """Whether the server's header counts or the publisher's of the same name, the object is refused or not found."""
    async with support.plain(shared_server) as (_, js):
        nuid = f"n{len(sequence)}{sequence[0]}"
        for part in (b"ab", b"cd"):
            await js.publish(f"$O.{BUCKET}.C.{nuid}", part, headers={"Nats-Sequence": sequence.decode()})
    await _put_metadata(shared_server, "chunked", json.dumps({**GOOD, "nuid": nuid, "size": 4}).encode())
    with pytest.raises((errors.RequestRefused, errors.NotFound)):
        await broker.plan_object("chunked", MAX_BYTES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
METADATA = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={key: JSON | st.just(value) for key, value in {**GOOD, "deleted": False, "options": {}}.items()},
    ).map(lambda value: json.dumps(value).encode()),
)


@given(metadata=METADATA)
def test_any_metadata_is_parsed_or_refused(metadata: bytes) -> None:
    """Neither arbitrary bytes nor JSON of any shape raise anything but RequestRefused, and its message is short."""
    message = ""
    try:
        info = objects.parse_info(metadata, "name")
    except errors.RequestRefused as error:
        message = str(error)
    else:
        assert info.size >= 0
        assert info.chunks >= 0
    assert len(message) < 1000
