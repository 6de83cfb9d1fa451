"""Documents that are too large for the server are shortened; one that can't be shortened delays no other."""

import json
from collections.abc import AsyncIterator

import pytest

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker
from ems_worker.core.documents import documents, results, truncate
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import JobRow, PointRecord
from tests.support import broker as support
from tests.support import servers, whole

WIDE = {f"p{i}": "x" * 3900 for i in range(300)}
RESULT = "ems.experiment.result.wide"
STATUS = "ems.experiment.status.wide"


@pytest.fixture
async def broker(server: servers.NatsServer) -> AsyncIterator[Broker]:
    async with support.connected(server.url) as connected:
        yield connected


def result(seq: int) -> bytes:
    """A result document; the one with sequence 2 is too large for the server."""
    run = Run(seq, 0, 1, 7, state=RunState.COMPLETED, metrics={"population": 1.0}, job_revision=1, ended_seq=seq)
    return documents.encode(results.result("wide", JobRow(PointRecord(seq, WIDE if seq == 2 else {}), run)))


def status(revision: int, state: str, values: int = 300) -> bytes:
    """A status document of `values` times 3.9 KB."""
    params = dict(list(WIDE.items())[:values])
    return json.dumps({"revision": revision, "state": state, "best": {"params": params}}).encode()


async def test_a_document_that_is_too_large_is_stored_shortened(broker: Broker, server: servers.NatsServer) -> None:
    """The documents before and after it are stored whole."""
    assert len(result(2)) > 1_048_576
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    await broker.publish([(RESULT, result(seq), f"wide-{seq}") for seq in (1, 2, 3)], trace)
    first, second, third = await whole.stored(server.url, RESULT)
    assert (first, third) == (json.loads(result(1)), json.loads(result(3)))
    assert second["params"]["p0"]["bytes"] == 3902
    assert second.pop(truncate.MARK) == ["params"]
    assert second | {"params": WIDE} == json.loads(result(2))


async def test_a_shortened_status_is_recognized_as_the_latest(broker: Broker, server: servers.NatsServer) -> None:
    """Publishing the same status again counts as stored, also by a worker that didn't send it."""
    for by in (broker, broker):
        assert await by.publish_latest(STATUS, status(7, "completed"), 7)
    async with support.connected(server.url) as other:
        assert await other.publish_latest(STATUS, status(7, "completed"), 7)
        assert not await other.publish_latest(STATUS, status(7, "failed"), 7)
    [stored] = await whole.stored(server.url, STATUS)
    assert (stored["revision"], stored["state"], stored[truncate.MARK]) == (7, "completed", ["best.params"])


async def test_a_message_that_can_not_be_shortened_does_not_stop_the_others(
    broker: Broker, server: servers.NatsServer
) -> None:
    """The error names its subject and the remedy, and the other messages are stored."""
    items = [(RESULT, result(1), "a"), ("ems.experiment.point.wide", b"x" * 1_048_576, "b"), (RESULT, result(3), "c")]
    with pytest.raises(errors.BrokerMisconfigured, match=r"ems\.experiment\.point\.wide.*max_payload"):
        await broker.publish(items)
    assert len(await whole.stored(server.url, RESULT)) == 2


async def test_a_reply_that_is_too_large_is_shortened(broker: Broker, server: servers.NatsServer) -> None:
    """A decision that quotes a hundred problems at length."""
    wrong = [{"code": "bad", "path": "a", "line": 1, "column": 1, "message": "x" * 20_000}] * 100
    async with support.plain(server) as (client, _):
        subscription = await client.subscribe("_INBOX.someone")
        await support.subscribed(client)
        await broker.reply("_INBOX.someone", json.dumps({"errors": wrong}).encode())
        answer = json.loads((await subscription.next_msg(timeout=5)).data)
    assert answer[truncate.MARK] == ["errors"]
    assert 45 < len(answer["errors"]) < 55


async def test_the_message_limit_of_a_stream_is_respected(broker: Broker, server: servers.NatsServer) -> None:
    """Documents are shortened to the limit that an operator set, and dead letters are stored by reference.

    Once the limit is gone, documents are stored whole again from the next connection on.
    """

    async def limit(max_bytes: int) -> None:
        async with support.plain(server) as (_, js):
            for name in ("EMS_RESULTS", "EMS_STATUS", "EMS_DLQ"):
                config = (await js.stream_info(name)).config
                await js.update_stream(config, max_msg_size=max_bytes)

    await limit(50_000)
    await broker.publish([(RESULT, result(seq), f"wide-{seq}") for seq in (1, 2, 3)])
    assert ["shortened" in document for document in await whole.stored(server.url, RESULT)] == [False, True, False]
    # Within the limit of the server, so that only the refusal by the stream reveals its limit.
    assert len(status(7, "completed", values=200)) < 1_000_000
    for _ in range(2):
        assert await broker.publish_latest(STATUS, status(7, "completed", values=200), 7)
    [stored] = await whole.stored(server.url, STATUS)
    assert (stored["revision"], "shortened" in stored) == (7, True)
    async with support.plain(server) as (client, js):
        await client.publish("sim.run_started", b"x" * 60_000)
        await client.flush()
        (message,) = await broker.events()
        await broker.dead_letter(message, "too much", "event")
        letter = await (await js.subscribe("ems.dlq.event")).next_msg(timeout=5)
        assert (letter.data, (letter.headers or {})["Ems-By-Reference"]) == (b"", "true")
    await limit(-1)
    await server.restart()
    assert await broker.publish_latest(STATUS, status(8, "completed", values=200), 8)
    [stored] = await whole.stored(server.url, STATUS)
    assert (stored["revision"], "shortened" in stored) == (8, False)
