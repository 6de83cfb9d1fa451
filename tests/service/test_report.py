"""Results, points and statuses are published from the manifest, once and in order."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.service import outcomes
from ems_worker.service.ledger.live import Live
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan


async def test_a_result_describes_its_job(tmp_path: Path) -> None:
    """It has the state and the metrics of the current attempt, and the parameters and labels of the job."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, labels={"who": "me"}))
        names = await desk.launch(live)
        await desk.complete(names, [7])
        await desk.report("reef")
        [result] = desk.broker.of("result")
        assert result["schema"] == "ems.result.v1"
        assert (result["simulation_id"], result["state"]) == (names[0], "completed")
        assert (result["params"], result["labels"]) == ({"food": 0}, {"who": "me"})
        assert (result["metrics"], result["job_revision"], result["seq"]) == ({"population": 7.0}, 1, 1)


async def test_a_point_is_published_when_all_its_replicates_have_ended(tmp_path: Path) -> None:
    """It has their counts and aggregates."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2))
        names = await desk.launch(live)
        await desk.complete(names[:3], [2, 4, 9])
        await desk.report("reef")
        [point] = desk.broker.of("point")
        assert (point["point"], point["counts"]["completed"], point["ended"]) == (0, 2, True)
        assert (point["metrics"]["population"]["mean"], point["metrics"]["population"]["n"]) == (3.0, 2)
        await desk.complete(names[3:], [11])
        await desk.report("reef")
        assert [point["point"] for point in desk.broker.of("point")] == [0, 1]


async def test_the_replicates_of_a_point_are_read_once_it_is_complete(tmp_path: Path) -> None:
    """They are not read at the end of each job, since a point may have a million replicates."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=3))
        names = await desk.launch(live)
        with patch.object(desk.manifest, "points", wraps=desk.manifest.points) as points:
            for number, name in enumerate(names):
                await desk.hear("completed", name, metrics={"population": 1.0})
                await desk.report("reef")
                assert points.call_count == (number + 1) // 3
        assert [point["point"] for point in desk.broker.of("point")] == [0, 1]


async def test_results_with_long_parameters_are_published_in_small_batches(tmp_path: Path) -> None:
    """This bounds the memory that they take. Each is published once and in order."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10, replicates=2))
        await desk.complete(await desk.launch(live), [1] * 20)
        with (
            patch.object(outcomes, "_PAGE_BYTES", 1500),
            patch.object(desk.broker, "publish", wraps=desk.broker.publish) as publish,
        ):
            assert (await desk.report("reef"))["state"] == "completed"
        assert [result["seq"] for result in desk.broker.of("result")] == list(range(1, 21))
        assert [point["point"] for point in desk.broker.of("point")] == list(range(10))
        assert publish.call_count >= 7


async def test_revisions_increase_and_unchanged_statuses_are_not_published(tmp_path: Path) -> None:
    """A worker publishes nothing while nothing changes."""
    async with Desk.open(tmp_path) as desk:
        async with background(desk.reporter.run()):
            live = await desk.begin(plan(points=3))
            await wait.until(lambda: desk.broker.statuses)
            names = await desk.launch(live)
            await desk.complete(names, [1, 2, 3])
            await wait.until(lambda: desk.broker.statuses[-1]["state"] == "completed")
            await wait.until(lambda: not desk.ledger.experiments())
            revisions = [status["revision"] for status in desk.broker.statuses]
            assert revisions == sorted(set(revisions))
            desk.reporter.notify(live.key)
            await wait.until(lambda: not desk.reporter.has_news(live.key))
            assert len(desk.broker.statuses) == len(revisions)


async def test_a_status_is_published_while_jobs_keep_ending(tmp_path: Path) -> None:
    """The reporter doesn't wait until there are no more results to publish."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=50))
        names = await desk.launch(live)
        publish = desk.broker.publish
        remaining = iter(names[1:])

        async def publish_and_end_another(items: Any, traceparent: str | None = None) -> None:
            await publish(items)
            if (name := next(remaining, None)) is not None:
                await desk.hear("completed", name)

        await desk.complete(names[:1], [1])
        with patch.object(desk.broker, "publish", publish_and_end_another):
            await desk.reporter.report(live)
        assert len(desk.broker.statuses) == 1
        assert desk.broker.statuses[0]["state"] == "running"


async def test_a_status_has_throughput_and_remaining_time(tmp_path: Path) -> None:
    """Both are computed from the recent past, of which a limited number of samples is kept."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=8))
        names = await desk.launch(live)
        await desk.report("reef")
        clock.seconds += 2
        await desk.complete(names[:4], [1, 2, 3, 4])
        status = await desk.report("reef")
        assert (status["throughput"], status["eta_seconds"], status["progress"]) == (2.0, 2.0, 0.5)
        clock.seconds += 1000
        desk.reporter.notify(live.key)
        assert (await desk.report("reef"))["throughput"] == 0.0
        for _ in range(70):
            desk.reporter.notify(live.key)
            await desk.report("reef")
        assert len(live.samples) <= 60


@pytest.mark.parametrize(("goal", "best"), [("maximize", 2), ("minimize", 0)])
async def test_the_best_point_has_the_best_mean(tmp_path: Path, goal: str, best: int) -> None:
    """A restarted worker chooses the same point."""
    tracked = [{"name": "population", "goal": goal}]
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, metrics_to_track=tracked))
        names = await desk.launch(live)
        await desk.complete(names[:3], [1, 5, 9])
        assert (await desk.report("reef"))["best"]["point"] == best
    async with Desk.open(tmp_path) as desk:
        again = desk.ledger.live("reef")
        assert again is not None
        assert again.best is not None
        assert again.best.point.point == best


async def test_the_best_point_changes_when_a_late_result_makes_it_worse(tmp_path: Path) -> None:
    """The best of the other points is read from the manifest."""
    limits: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 4}}
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2, **limits))
        names = await desk.launch(live)
        await desk.complete(names[:1], [10])
        await desk.ledger.hear([((live.key, 0, 1, 1), Signal(RunEvent.LOSE, ErrorKind.LOST))])
        await desk.complete(names[2:], [6, 6])
        assert (await desk.report("reef"))["best"]["point"] == 0
        await desk.complete(names[1:2], [-10])
        assert (await desk.report("reef"))["best"]["point"] == 1


async def test_the_end_of_an_experiment_is_reported_before_the_interval_is_over(tmp_path: Path) -> None:
    """Programs wait for the terminal status; only the others are published at intervals."""
    async with Desk.open(tmp_path) as desk:
        desk.reporter._interval = 1000.0
        live = await desk.begin(plan(points=2))
        async with background(desk.reporter.run()):
            await wait.until(lambda: desk.broker.statuses)
            first, second = await desk.launch(live)
            await desk.complete([first], [1])
            await desk.complete([second], [2])
            await wait.until(lambda: desk.broker.statuses[-1]["state"] == "completed")
        assert len(desk.broker.statuses) == 2


async def test_the_end_of_an_experiment_that_cannot_be_published_is_not_tried_without_a_pause(tmp_path: Path) -> None:
    """The broker is given time to come back."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])
        tried: list[int] = []

        async def fail(*_: object) -> None:
            tried.append(live.key)
            raise errors.BrokerUnavailable("away")

        with patch.object(desk.broker, "publish", fail):
            desk.reporter.notify(live.key)
            async with background(desk.reporter.run()):
                await wait.until(lambda: tried)
                await wait.let_pass(0.3)
        assert len(tried) <= 2


async def test_an_end_that_cannot_be_published_yet_leaves_the_event_loop_to_others(tmp_path: Path) -> None:
    """Its results may be decided and not recorded yet, which others have to do."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])
        looks = 0

        async def find_nothing(_: Live) -> None:
            nonlocal looks
            looks += 1

        desk.reporter._interval = 1000.0
        with patch.object(desk.reporter._outcomes, "publish", find_nothing):
            desk.reporter.notify(live.key)
            async with background(desk.reporter.run()):
                await wait.until(lambda: looks)
                await wait.let_pass(0.1)
        assert looks <= 2
