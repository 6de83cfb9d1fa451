"""An extension that is interrupted, by a death of the worker or by a restore, ends as if it had not been."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ems_worker.service.base import crash
from ems_worker.service.steering import extend, matching
from tests.support.desk import Broker, Clock, Desk, plan
from tests.support.world import DiedError

OPEN = "reef-p000001-r000-a1"


def of_food(*values: int, replicates: int = 1) -> dict[str, Any]:
    """A plan with these points."""
    document = plan(replicates=replicates)
    document["parameter_space"]["food"] = list(values)
    return document


async def begin(desk: Desk) -> None:
    """Six points: one has completed, one runs."""
    if await desk.manifest.experiment("reef") is None:
        live = await desk.begin(of_food(0, 1, 2, 3, 4, 5))
        completed, _ = await desk.launch(live, 2)
        await desk.ledger.flush()
        await desk.complete([completed], [9])


async def withdraw(desk: Desk) -> None:
    """Half of the points go, four come, and each gets another replicate."""
    wanted = of_food(9, 8, 3, 7, 6, 5, 4, replicates=2)
    await desk.steer("extend", plan=wanted, withdraw=True, request_id="r-1")


async def put_back(desk: Desk) -> None:
    """The points return, and one more comes."""
    await desk.steer("extend", plan=of_food(5, 4, 3, 2, 1, 0, 10, replicates=2), request_id="r-2")


async def stop(desk: Desk) -> None:
    """The run that was open is out."""
    await desk.hear("failed", OPEN, error_kind="stopped")


async def finish(desk: Desk) -> None:
    """Everything is carried out and published."""
    for live in desk.ledger.experiments():
        await desk.services.executor.finish(live)
    await desk.services.executor.publisher.publish()


STORY: tuple[Callable[[Desk], Awaitable[None]], ...] = (begin, withdraw, put_back, stop, finish)


async def state(desk: Desk) -> dict[str, Any]:
    """All that is recorded of the experiment, and the last document of each change."""
    record = await desk.manifest.experiment("reef")
    assert record is not None
    last = {}
    for request_id in ("r-1", "r-2"):
        change = await desk.manifest.change_from(request_id, record.key)
        assert change is not None
        last[request_id] = (change.counts, change.added, change.withdrawn, change.unchanged, change.changed)
        assert change.applied_ms is not None
        assert change.published == 2
    spec = record.spec
    return {
        "rows": await desk.rows("reef"),
        "size": (spec.points, spec.jobs, spec.replicates, record.expanded_points, record.plan_version, spec.plan_sha),
        "standing": record.standing,
        "tally": (await desk.manifest.tally(record.key)).by_bucket,
        "changes": last,
    }


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase takes several steps."""
    monkeypatch.setattr(matching, "_POINTS", 4)
    monkeypatch.setattr(matching, "_RUNS", 6)
    monkeypatch.setattr(extend, "_JOBS", 3)


async def test_a_death_at_any_point_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the worker dies, the requests are sent again, and all ends as without the death."""
    left, passed = 0, set()

    def point(name: str, about: str = "") -> None:
        nonlocal left
        if name.startswith(("extend.", "steering.")):
            passed.add(name)
            left -= 1
            if left == 0:
                raise DiedError(name)

    monkeypatch.setattr(crash, "point", point)
    expected, deaths = None, 0
    for number in range(200):
        left = number
        directory, clock, broker = tmp_path / str(number), Clock(), Broker()
        directory.mkdir()
        steps, died = list(STORY), False
        while steps:
            async with Desk.open(directory, clock, broker) as desk:
                try:
                    while steps:
                        await steps[0](desk)
                        del steps[0]
                    found = await state(desk)
                except DiedError:
                    died = True
        expected = expected or found
        assert found == expected, f"death {number}"
        deaths += died
        if number and not died:
            break
    assert deaths > 20
    assert passed >= {name for name in crash.POINTS if name.startswith("extend.")}


async def test_what_the_story_does(tmp_path: Path) -> None:
    """The points that return have their numbers, and the new ones those that follow."""
    async with Desk.open(tmp_path) as desk:
        for step in STORY:
            await step(desk)
        found = await state(desk)
        assert found["size"][:5] == (11, 22, 2, 11, 3)
        assert [row.point.params["food"] for row in found["rows"] if row.run.replicate == 0 and row.run.current] == [
            *range(6),
            *(9, 8, 7, 6, 10),
        ]
        _, *numbers, changed = found["changes"]["r-1"]
        assert (numbers, changed) == ([4, 3, 3], True)
        _, *numbers, changed = found["changes"]["r-2"]
        assert (numbers, changed) == ([1, 0, 10], True)


async def test_a_backup_from_before_is_brought_up_to_date_by_the_published_changes(tmp_path: Path) -> None:
    """They are applied again in their order; once applied, they are not applied again."""
    original, restored = tmp_path / "original", tmp_path / "restored"
    original.mkdir()
    restored.mkdir()
    clock, broker = Clock(), Broker()
    async with Desk.open(original, clock, broker) as desk:
        await begin(desk)
    shutil.copy(original / "manifest.db", restored / "manifest.db")
    async with Desk.open(original, clock, broker) as desk:
        for step in STORY[1:]:
            await step(desk)
        expected = await state(desk)
    published = {document["request_id"]: document for document in reversed(broker.of("change"))}
    async with Desk.open(restored, clock) as desk:
        replayed = desk.services.replay.changes
        for request_id in ("r-1", "r-2"):
            assert await replayed.apply("reef", published[request_id], documents=2)
            assert not await replayed.apply("reef", published[request_id], documents=2)
        await stop(desk)
        await finish(desk)
        assert await state(desk) == expected
        assert desk.broker.of("change") == []
