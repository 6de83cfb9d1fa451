"""Points are published as they end, also when their last jobs were cancelled before these started, or are excluded."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.support import deaths, schema_checks
from tests.support.desk import Broker, Desk, plan

OPEN_ENDED: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": "100%"}}


async def finish(desk: Desk) -> None:
    """Carries out all changes, and publishes all news."""
    for live in desk.ledger.experiments():
        desk.reporter.notify(live.key)
        await desk.services.executor.finish(live)
    await desk.reporter.flush()


def published(desk: Desk) -> list[tuple[int, int, int]]:
    """The number of each published point, with its completed and its cancelled jobs, in order.

    A repetition has the same message id, by which the broker drops it.
    """
    points = {name: document for subject, document, name in desk.broker.published if ".point." in subject}.values()
    for point in points:
        schema_checks.check(point)
        assert point["ended"]
    return [(point["point"], point["counts"]["completed"], point["counts"]["cancelled"]) for point in points]


async def test_a_point_ends_with_jobs_that_never_started(tmp_path: Path) -> None:
    """They have no results of their own. Points none of whose jobs has one are only counted."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, replicates=2))
        await desk.complete(await desk.launch(live, 3), [1, 2, 3])
        await desk.report("reef")
        assert published(desk) == [(0, 2, 0)]
        await desk.steer("cancel")
        await finish(desk)
        assert published(desk) == [(0, 2, 0), (1, 1, 1)]
        assert len(desk.broker.of("result")) == 3
        assert desk.broker.statuses[-1]["counts"]["cancelled"] == 5
        assert desk.broker.statuses[-1]["best"]["point"] == 1
        points = await desk.manifest.points_page(live.key, -1, 10)
        assert [point.ended_seq for point in points] == [2, 3, 0, 0]


async def test_a_point_waits_for_its_open_job_after_a_cancellation(tmp_path: Path) -> None:
    """It ends with the result of that job."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2))
        names = await desk.launch(live, 3)
        await desk.complete(names[:2], [1, 2])
        await desk.steer("cancel", drain=True)
        await finish(desk)
        assert published(desk) == [(0, 2, 0)]
        await desk.complete(names[2:], [7])
        await finish(desk)
        assert published(desk) == [(0, 2, 0), (1, 1, 1)]


async def test_jobs_that_a_condition_cancels_end_their_points(tmp_path: Path) -> None:
    """Other points go on."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3, replicates=2))
        names = await desk.launch(live, 3)
        await desk.complete(names, [1, 2, 3])
        await desk.steer("cancel", where="replicate == 1 and food > 0")
        await finish(desk)
        assert published(desk) == [(0, 2, 0), (1, 1, 1)]
        [last] = await desk.launch(live)
        await desk.complete([last], [4])
        await finish(desk)
        assert published(desk) == [(0, 2, 0), (1, 1, 1), (2, 1, 1)]
        assert desk.broker.statuses[-1]["state"] == "completed"


@pytest.mark.parametrize("point", ["report.results", "report.cursor", "report.points", "steering.judged"])
async def test_points_are_published_after_a_death(tmp_path: Path, point: str) -> None:
    """A repetition is the same message, and no point is left out."""
    for passage in itertools.count(1):
        directory, broker = tmp_path / str(passage), Broker()
        async with Desk.open(directory, broker=broker) as desk:
            live = await desk.begin(plan(points=3, replicates=2))
            await desk.complete(await desk.launch(live, 3), [1, 2, 3])
            with deaths.at(point, passage) as fate:
                await desk.reporter.flush()
                await desk.steer("cancel")
                await finish(desk)
        if not fate.died:
            assert passage > 1
            return
        async with Desk.open(directory, broker=broker) as desk:
            await finish(desk)
            await desk.steer("cancel")
            await finish(desk)
            assert desk.ledger.experiments() == []
            assert {number: rest for number, *rest in published(desk)} == {0: [2, 0], 1: [1, 1]}
        names = {(name, str(document)) for subject, document, name in broker.published if ".point." in subject}
        assert len(names) == 2


async def test_excluded_jobs_leave_a_point(tmp_path: Path) -> None:
    """A point is excluded when all its jobs are, with the reason; then it isn't ranked."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2))
        await desk.complete(await desk.launch(live), [1, 3, 8, 20])
        await desk.reporter.flush()
        assert desk.broker.statuses[-1]["best"]["point"] == 1
        await desk.steer("exclude", where="point == 1 and replicate == 1", reason="a leak")
        await finish(desk)
        last = desk.broker.of("point")[-1]
        assert (last["point"], last["excluded"], last["counts"]["completed"]) == (1, None, 2)
        assert (last["metrics"]["population"]["mean"], last["metrics"]["population"]["n"]) == (8, 1)
        await desk.steer("exclude", where="point == 1", reason="a leak")
        await finish(desk)
        last = desk.broker.of("point")[-1]
        assert (last["point"], last["excluded"], last["metrics"]["population"]["n"]) == (1, "a leak", 0)
        assert desk.broker.statuses[-1]["best"]["point"] == 0
        await desk.steer("include")
        await finish(desk)
        last = desk.broker.of("point")[-1]
        assert (last["point"], last["excluded"], last["metrics"]["population"]["mean"]) == (1, None, 14)
        assert desk.broker.statuses[-1]["best"]["point"] == 1
        revisions = [point["revision"] for point in desk.broker.of("point")]
        assert revisions == sorted(set(revisions))


async def test_a_point_with_failed_jobs_is_published_again_after_their_retry(tmp_path: Path) -> None:
    """Its later revision has the new counts."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, replicates=2, **OPEN_ENDED))
        first, second = await desk.launch(live)
        await desk.complete([first], [5])
        await desk.hear("failed", second, error_kind="simulation")
        await finish(desk)
        await desk.steer("retry")
        await finish(desk)
        again = desk.ledger.live("reef")
        assert again is not None
        await desk.complete(await desk.launch(again), [7])
        await finish(desk)
        before, after = desk.broker.of("point")
        assert (before["counts"]["failed"], after["counts"]["failed"], after["counts"]["completed"]) == (1, 0, 2)
        assert after["revision"] > before["revision"]
