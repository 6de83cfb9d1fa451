"""What the stream of results tells about the past of an experiment."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ems_worker.adapters.jetstream import Broker
from ems_worker.core.documents import documents
from ems_worker.core.wire import PublishedResult
from tests.support import broker as support
from tests.support import servers

CREATED_MS = 1_760_000_000_000


@pytest.fixture
async def broker(server: servers.NatsServer) -> AsyncIterator[Broker]:
    async with support.connected(server.url) as connected:
        yield connected


async def publish(broker: Broker, kind: str, name: str, **content: Any) -> None:
    """Publishes a document about the experiment `reef`."""
    document = {"schema": f"ems.{kind}.v1", "experiment_id": "reef"} | content
    await broker.publish([(f"ems.experiment.{kind}.reef", json.dumps(document).encode(), name)])


async def test_the_last_settled_round_is_known(broker: Broker) -> None:
    """Rounds of an older experiment of the same name don't count. Nor does anything that isn't such a document."""
    assert await broker.settled_round("reef", CREATED_MS) is None
    for number in (1, 2):
        at = documents.timestamp(CREATED_MS + number)
        await publish(broker, "settled", f"reef-settled-{number}", round=number, settled_at=at)
    assert await broker.settled_round("reef", CREATED_MS) == 2
    assert await broker.settled_round("reef", CREATED_MS + 2) == 2
    assert await broker.settled_round("reef", CREATED_MS + 3) is None
    assert await broker.settled_round("other", CREATED_MS) is None
    at = documents.timestamp(CREATED_MS)
    wrongs: tuple[dict[str, Any], ...] = (
        {"round": "3", "settled_at": at},
        {"round": 3},
        {"round": 3, "settled_at": at, "experiment_id": "other"},
        {"round": 3, "settled_at": at, "schema": 1},
    )
    for name, wrong in enumerate(wrongs):
        await publish(broker, "settled", f"wrong-{name}", **wrong)
        assert await broker.settled_round("reef", CREATED_MS) is None
    rounds = await broker.rounds(0)
    # Of the wrong ones, two have a round, and the time at which it settled isn't asked for.
    assert [(settled.experiment_id, settled.number) for settled in rounds] == [("reef", 1), ("reef", 2), ("reef", 3)]
    assert [settled.number for settled in await broker.rounds(rounds[1].seq)] == [3]


async def test_changes_are_read_in_the_order_in_which_they_were_published(broker: Broker) -> None:
    """Those after a position, with the time at which they were stored; other documents are passed over."""
    for number in range(3):
        await publish(broker, "change", f"change-{number}", request_id=f"r-{number}", request={"number": number})
        await publish(broker, "settled", f"settled-{number}", round=number)
    await publish(broker, "change", "change-wrong", request_id=7, request={})
    found = await broker.changes(0)
    assert [change.document["request_id"] for change in found] == ["r-0", "r-1", "r-2"]
    assert {change.experiment_id for change in found} == {"reef"}
    assert all(change.stored_ms > CREATED_MS for change in found)
    assert [change.document["request_id"] for change in await broker.changes(2)] == ["r-1", "r-2"]
    assert list(await broker.changes(99)) == []


async def test_results_are_read_in_the_order_in_which_they_were_published(broker: Broker) -> None:
    """Those after a position; what isn't a result of its subject is passed over."""
    content: dict[str, Any] = {"job_revision": 2, "state": "lost", "error": None, "excluded": "wrong"}
    names = [f"reef-p00000{number}-r000-a1" for number in range(3)]
    for name in names:
        await publish(broker, "result", name, simulation_id=name, **content)
        await publish(broker, "settled", f"settled-{name}", round=1)
    wrongs: list[dict[str, Any]] = [{"simulation_id": 7}, {"job_revision": "2"}, {"state": None}, {"schema": 1}]
    for number, wrong in enumerate(wrongs):
        document = {**content, "simulation_id": "reef-p000009-r000-a1", **wrong}
        await publish(broker, "result", f"wrong-{number}", **document)
    await broker.publish([("ems.experiment.result.reef", b"[]", "list"), ("ems.experiment.result.reef", b"{", "torn")])
    found = [result async for result in broker.results(0)]
    assert found == [PublishedResult(name, 2, "lost", "wrong") for name in names]
    assert [result async for result in broker.results(2)] == found[1:]
    assert [result async for result in broker.results(99)] == []
