"""Messages that somebody puts into the worker's inboxes, and metadata that somebody writes into the object store."""

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

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker, connection, consumers, objects, pull, streams
from ems_worker.adapters.jetstream.refusals import Refusals
from ems_worker.core.wire import Message
from tests.support import broker as support
from tests.support import servers, wait

ACK = "$JS.ACK.EMS_PLANS.ems-worker-plans.1.1.1.1700000000000000000.0"
BUCKET = "EMS_PLAN_OBJECTS"
MOST = 2**24


async def _fetching(broker: Broker, client: Client) -> tuple["asyncio.Task[Sequence[Message]]", str]:
    """A fetch of plans under way, and the inbox that it waits on, as anyone sees who may read the request for it."""
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def spy(message: Msg) -> None:
        await asked.put(message.reply)

    await client.subscribe("$JS.API.CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans", cb=spy)
    await client.flush()
    fetching = asyncio.create_task(broker.plans())
    async with asyncio.timeout(5):
        return fetching, await asked.get()


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
async def test_a_plan_put_into_the_pull_inbox_is_no_plan(server: servers.NatsServer, reply: str) -> None:
    """Whoever can read others' inboxes learns the worker's; what he publishes there is ignored, and said once.

    Nor is its reply subject published to, as that of a real message is with its acknowledgement.
    """
    heard = support.Heard()
    async with support.connected(server.url, heard) as broker, support.plain(server) as (client, js):
        fetching, inbox = await _fetching(broker, client)
        for _ in range(3):
            await client.publish(inbox, b"forged", reply=reply)
        assert await fetching == []
        await js.publish("ems.experiment.submit", b"real")

        async def plans() -> list[bytes]:
            return [message.data for message in await broker.plans()]

        assert await wait.until(plans, what="the real plan") == [b"real"]
        if not reply.startswith("$JS.ACK."):  # which newer servers refuse to take from a client
            assert [type(error) for error in heard.errors] == [errors.Unreadable]
            assert "EMS_NATS_INBOX_PREFIX" in str(heard.errors[0])
        assert (await js.stream_info("EMS_RESULTS")).config.name == "EMS_RESULTS"


class _Inbox:
    """A connection whose messages the test delivers, as a server can that lets everybody write to every inbox."""

    inbox = "_INBOX.worker"

    def __init__(self) -> None:
        self.deliver: Any = None
        self.refusals = Refusals()
        self.errors: list[Exception] = []

    def new_inbox(self) -> str:
        return f"{self.inbox}.x"

    async def subscribe(self, subject: str, cb: Any) -> None:
        self.deliver = cb

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
    """Whatever reaches the inbox: old servers take an acknowledgement's subject as reply subject from anyone."""
    inbox = _Inbox()
    link, client = cast(connection.Connection, inbox), cast(Client, inbox)
    plans = pull.Pull(link, consumers.PLANS, streams.PLAN_SUBJECTS, 8)
    plans.bind("EMS_PLANS", 1)
    await plans.connected(client)
    await inbox.deliver(Msg(client, subject=subject, reply=reply, data=b"x"))
    assert [message.data for message in await plans.fetch(0.0)] == ([b"x"] if counts else [])
    assert len(inbox.errors) == (0 if counts else 1)


@pytest.mark.parametrize("answer", [b"lots", b"[]", b'"x"', b"{}", b'{"seq": "1"}', b'{"error": 5}'])
async def test_a_forged_acknowledgement_that_is_none_is_ignored(server: servers.NatsServer, answer: bytes) -> None:
    """The real one counts, whenever it comes."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, js):
        for number in range(1, 50):
            await client.publish(f"{broker._publisher._inbox}.{number}", answer)
        await client.flush()
        forging = [client.publish(f"{broker._publisher._inbox}.{number}", answer) for number in range(1, 50)]
        await asyncio.gather(broker.publish([("ems.experiment.result.x", b"{}", f"{n}") for n in range(20)]), *forging)
        assert (await js.stream_info("EMS_RESULTS")).state.messages == 20


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
    ("metadata", "words"),
    [
        (b"[]", "can't be used"),
        (b"5", "can't be used"),
        (b"null", "can't be used"),
        (b"not json", "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
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
async def test_metadata_that_makes_no_sense_refuses_the_plan(
    broker: Broker, shared_server: servers.NatsServer, metadata: bytes | dict[str, Any], words: str
) -> None:
    """With the field that is wrong; the worker goes on."""
    data = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    await _put_metadata(shared_server, "odd", data)
    with pytest.raises(errors.RequestRefused, match=words):
        await broker.plan_object("odd", MOST)


@pytest.mark.parametrize("change", [{"deleted": True}, {"options": {"link": {"bucket": "B", "name": "n"}}}])
async def test_a_deleted_object_and_a_link_are_not_there(
    broker: Broker, shared_server: servers.NatsServer, change: dict[str, Any]
) -> None:
    """A link is not followed: it may lead to any bucket that the worker can read."""
    await _put_metadata(shared_server, "away", json.dumps({**GOOD, **change}).encode())
    with pytest.raises(errors.NotFound, match="only its link"):
        await broker.plan_object("away", MOST)


@pytest.mark.parametrize("name", ["x" * 1025, "é" * 600, "x" * 900_000])
async def test_an_endless_name_is_refused(broker: Broker, name: str) -> None:
    """Asked for, it would exceed what a message may have, and be asked for again for ever."""
    with pytest.raises(errors.RequestRefused, match="1,024 is the limit"):
        await broker.plan_object(name, MOST)


async def test_a_name_that_is_no_text_is_not_there(broker: Broker) -> None:
    """Headers may have bytes that are no UTF-8."""
    with pytest.raises(errors.NotFound):
        await broker.plan_object("\udcff", MOST)


@pytest.mark.parametrize("sequence", [b"lots", b"-5", b"0", b"9" * 5000, "٣".encode()])
async def test_a_chunk_with_a_sequence_of_its_own_is_no_way_in(
    broker: Broker, shared_server: servers.NatsServer, sequence: bytes
) -> None:
    """The server adds its header to the publisher's of the same name; whichever counts, nothing but an error comes."""
    async with support.plain(shared_server) as (_, js):
        nuid = f"n{len(sequence)}{sequence[0]}"
        for part in (b"ab", b"cd"):
            await js.publish(f"$O.{BUCKET}.C.{nuid}", part, headers={"Nats-Sequence": sequence.decode()})
    await _put_metadata(shared_server, "chunked", json.dumps({**GOOD, "nuid": nuid, "size": 4}).encode())
    with pytest.raises((errors.RequestRefused, errors.NotFound)):
        await broker.plan_object("chunked", MOST)


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
def test_no_metadata_raises_anything_but_an_error_of_ours(metadata: bytes) -> None:
    """Bytes, JSON of any shape, and mappings with the right keys and any values: parsed or refused."""
    try:
        info = objects._info(metadata, "name")
    except errors.RequestRefused as error:
        said = str(error)
    else:
        said = ""
        assert info.size >= 0
        assert info.chunks >= 0
    assert len(said) < 1000
