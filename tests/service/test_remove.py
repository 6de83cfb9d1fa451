"""Removing an experiment: it is gone at once, nothing brings it back, and a crash or a restore changes nothing."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from tests.support import deaths, schema_checks
from tests.support.desk import Desk, plan

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick() -> Any:
    """Rows are deleted without pauses, a few at a time."""
    with (
        patch("ems_worker.service.steering.remove._PAUSE_SECONDS", 0),
        patch("ems_worker.service.steering.remove._ROWS", 3),
    ):
        yield


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.open(tmp_path) as opened:
        yield opened


async def ended(desk: Desk, experiment_id: str = "reef") -> dict[str, Any]:
    """An experiment of eight jobs that has ended; its plan."""
    sent = plan(experiment_id, points=4, replicates=2)
    names = await desk.launch(await desk.begin(sent))
    await desk.complete(names, [1.0] * len(names))
    await desk.report(experiment_id)
    assert desk.ledger.live(experiment_id) is None
    return sent


async def remove(desk: Desk, experiment_id: str = "reef", **request: Any) -> dict[str, Any]:
    """Requests a removal as a client does."""
    body = {"request_id": "r-1", "experiment_id": experiment_id, **request}
    document: dict[str, Any] = json.loads(await desk.services.remover.handlers()["remove"](json.dumps(body).encode()))
    return document


async def left(desk: Desk) -> dict[str, int]:
    """How many rows each table has."""
    counts = {}
    for table in ("experiments", "changes", "plans", "statuses", "points", "runs", "point_metrics"):
        rows = await desk.manifest._reports.connection.execute_fetchall(f"SELECT count(*) FROM {table}")
        [(counts[table],)] = rows
    return counts


async def ask(desk: Desk, verb: str, **request: Any) -> dict[str, Any]:
    """The reply to a query."""
    document: dict[str, Any] = json.loads(await desk.services.queries.handlers()[verb](json.dumps(request).encode()))
    return document


async def test_a_removed_experiment_is_gone(desk: Desk) -> None:
    """From the moment of the reply no query finds it; then its rows are deleted, and the change is published again."""
    await ended(desk)
    await ended(desk, "other")
    document = await remove(desk, reason="a mistake")
    schema_checks.check(document)
    assert (document["verb"], document["changed"], document["applied"]) == ("remove", True, False)
    assert [each["experiment_id"] for each in (await ask(desk, "list"))["experiments"]] == ["other"]
    for verb in ("get", "jobs", "points", "results", "plan"):
        with pytest.raises(errors.NotFound, match=r"reef was removed at 20"):
            await ask(desk, verb, experiment_id="reef")
    with pytest.raises(errors.NotFound, match=r"reef was removed at 20"):
        await desk.steer("retry")
    await desk.services.remover.purge()
    await desk.services.executor.publisher.publish()
    assert await left(desk) == {
        **dict.fromkeys(("experiments",), 2),
        **dict.fromkeys(("plans", "statuses", "changes"), 1),
        "points": 4,
        "runs": 8,
        "point_metrics": 4,
    }
    first, last = desk.broker.of("change")
    assert (first["applied"], last["applied"], last["request"]["reason"]) == (False, True, "a mistake")


async def test_an_open_experiment_is_not_removed(desk: Desk) -> None:
    """It says what to do; and what doesn't exist can't be removed either."""
    await desk.begin(plan())
    with pytest.raises(errors.RequestRefused, match=r"reef is open \(running\): cancel it first"):
        await remove(desk)
    with pytest.raises(errors.NotFound, match="there is no experiment other"):
        await remove(desk, "other")
    assert desk.broker.of("change") == []


async def test_a_dry_run_removes_nothing(desk: Desk) -> None:
    """It says the same as the removal."""
    await ended(desk)
    document = await remove(desk, dry_run=True)
    assert (document["changed"], document["dry_run"]) == (True, True)
    assert (await ask(desk, "get", experiment_id="reef"))["state"] == "completed"


async def test_a_repeated_request_is_carried_out_once(desk: Desk) -> None:
    """It gets the same answer, also when everything is deleted; another request with its id is refused."""
    await ended(desk)
    first = await remove(desk)
    await desk.services.remover.purge()
    again = await remove(desk)
    assert again == {**first, "applied": True, "applied_at": again["applied_at"]}
    with pytest.raises(errors.RequestRefused, match="was used for another change"):
        await remove(desk, reason="another")
    with pytest.raises(errors.NotFound, match="was removed at"):
        await remove(desk, request_id="r-2")


async def test_an_expected_revision_is_compared(desk: Desk) -> None:
    """A request that saw another status is refused."""
    await ended(desk)
    with pytest.raises(errors.RequestRefused, match="expect_revision: reef has revision"):
        await remove(desk, expect_revision=0)


async def test_neither_the_id_nor_the_plan_comes_back(desk: Desk) -> None:
    """A plan with the id is rejected, the same bytes too; a message that was decided before gets its decision."""
    sent = json.dumps(await ended(desk)).encode()
    await remove(desk)
    for stage in ("removed", "deleted"):
        for data in (sent, sent + b" ", json.dumps(plan(points=7)).encode()):
            decision = await desk.submit(data)
            assert decision["decision"] == "rejected", stage
            assert decision["errors"][0]["code"] == "removed_experiment"
        await desk.services.remover.purge()
    redelivered = await desk.submit(sent, seq=1)
    assert redelivered["decision"] == "accepted"
    with pytest.raises(errors.NotFound):
        await ask(desk, "get", experiment_id="reef")


async def test_a_late_event_of_a_removed_experiment_is_parked(desk: Desk) -> None:
    """Like that of any run that isn't known."""
    await ended(desk)
    await remove(desk)
    await desk.hear("completed", "reef-p000000-r000-a1", metrics={"population": 2.0})
    assert len(await desk.manifest.parked()) == 1


@pytest.mark.parametrize("point", ["remove.recorded", "remove.purging", "remove.purging:3"])
async def test_a_removal_survives_a_crash_at_any_moment(tmp_path: Path, point: str) -> None:
    """The next worker deletes the rest, and the request has its answer."""

    name, _, passage = point.partition(":")
    async with Desk.open(tmp_path) as desk:
        await ended(desk)
        with deaths.at(name, int(passage or 1)) as fate:
            await remove(desk)
            await desk.services.remover.purge()
        assert fate.died
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.live("reef") is None
        assert (await remove(desk))["changed"] is True
        await desk.services.remover.purge()
        assert (await remove(desk))["applied"] is True
        assert {name: count for name, count in (await left(desk)).items() if count} == {"experiments": 1, "changes": 1}


@pytest.mark.parametrize("open_runs", [False, True])
async def test_a_published_removal_is_applied_again_after_a_restore(desk: Desk, open_runs: bool) -> None:
    """Also if runs that had ended at a time limit are open in the backup."""
    if open_runs:
        await desk.launch(await desk.begin(plan()))
    else:
        await ended(desk)
    published = {"verb": "remove", "request_id": "r-9", "request": {"request_id": "r-9", "experiment_id": "reef"}}
    assert await desk.services.replay.changes.apply("reef", published, documents=2) is True
    assert await desk.services.replay.changes.apply("reef", published, documents=2) is False
    await desk.services.remover.purge()
    assert desk.ledger.open == 0
    with pytest.raises(errors.NotFound, match="was removed"):
        await ask(desk, "get", experiment_id="reef")
    decision = await desk.submit(plan())
    assert decision["errors"][0]["code"] == "removed_experiment"
