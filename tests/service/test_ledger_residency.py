"""Which experiments and jobs are in memory: loaded when an event changes them, unloaded once nothing is left to do."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState
from tests.support import wait
from tests.support.desk import Desk, plan

COMPLETE = Signal(RunEvent.COMPLETE, metrics={"population": 1.0})
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "silent")
ONCE: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 1}}


async def test_a_late_completion_of_a_lost_run_revises_its_result(tmp_path: Path) -> None:
    """The experiment has ended and was unloaded. It gets a new revision of the result, and a new status."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, **ONCE))
        first, second = await desk.launch(live)
        await desk.hear("completed", first, metrics={"population": 5})
        await desk.ledger.hear([((live.key, 1, 0, 1), LOSE)])
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["lost"], status["counts"]["completed"]) == ("completed", 1, 1)
        assert desk.ledger.experiments() == []

        await desk.hear("completed", second, metrics={"population": 9})
        assert desk.ledger.live("reef") is not None
        after = await desk.report("reef")
        assert after["revision"] > status["revision"]
        assert (after["state"], after["counts"]["lost"], after["counts"]["completed"]) == ("completed", 0, 2)
        assert after["best"]["point"] == 1
        results = [(result["point"], result["job_revision"], result["state"]) for result in desk.broker.of("result")]
        assert results == [(0, 1, "completed"), (1, 1, "lost"), (1, 2, "completed")]
        assert desk.ledger.experiments() == []
        await desk.ledger.count_time()
        assert desk.ledger.jobs() == set()


async def test_a_late_completion_after_a_restart_revises_its_result(tmp_path: Path) -> None:
    """It does so even if this worker never had the experiment in memory."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, **ONCE))
        [name] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        await desk.report("reef")
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.experiments() == []
        await desk.hear("completed", name, metrics={"population": 9})
        assert (await desk.report("reef"))["counts"]["completed"] == 1
        assert [result["job_revision"] for result in desk.broker.of("result")] == [2]


async def test_an_event_that_changes_nothing_does_not_load_its_experiment(tmp_path: Path) -> None:
    """Duplicate and late events after the end are only counted."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name)
        await desk.report("reef")
        await desk.hear("completed", name)
        await desk.hear("started", name)
        assert desk.ledger.experiments() == []
        assert desk.count("ems_events_total", verdict="duplicate") == 1
        assert desk.count("ems_events_total", verdict="late") == 1


async def test_redelivered_metrics_do_not_load_their_experiment(tmp_path: Path) -> None:
    """Only a report unloads an experiment, and no report follows if there is no news."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1, "x": 2})
        await desk.report("reef")
        with patch.object(desk.manifest, "tally", AssertionError):
            await desk.hear("metrics", name, metrics={"x": 2})
        assert desk.ledger.experiments() == []
        await desk.hear("metrics", name, metrics={"y": 3})
        assert (await desk.report("reef"))["state"] == "completed"
        assert (await desk.row(name)).run.metrics == {"population": 1.0, "x": 2.0, "y": 3.0}
        assert desk.ledger.experiments() == []


async def test_an_experiment_is_unloaded_after_late_metrics_of_an_attempt_that_did_not_win(tmp_path: Path) -> None:
    """The metrics are recorded, but there is nothing to report."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [first] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        desk.clock.seconds += 10
        [second] = await desk.launch(live)
        await desk.hear("completed", first, metrics={"population": 1})
        await desk.hear("completed", second, metrics={"population": 2})
        await desk.report("reef")
        assert desk.ledger.experiments() == []
        await desk.hear("metrics", second, metrics={"x": 1})
        assert (await desk.row(second)).run.metrics == {"population": 2.0, "x": 1.0}
        assert desk.ledger.experiments() == []


async def test_other_experiments_continue_while_a_large_one_is_loaded(tmp_path: Path) -> None:
    """Claims and events of others don't wait, and a second task that needs the large one shares its loading."""
    async with Desk.open(tmp_path) as desk:
        [late] = await desk.launch(await desk.begin(plan("large", points=1)))
        await desk.hear("completed", late)
        await desk.report("large")
        old = (await desk.ledger.find([late]))[late]
        busy = await desk.begin(plan("busy", points=4))
        first, other = await desk.launch(busy, 2)
        go_on, tally, reads = asyncio.Event(), desk.manifest.tally, 0

        async def slowly(key: int) -> Any:
            nonlocal reads
            reads += 1
            await go_on.wait()
            return await tally(key)

        with patch.object(desk.manifest, "tally", slowly):
            measure = Signal(RunEvent.MEASURE, metrics={"x": 1.0})
            batch = [(old, measure), ((busy.key, 0, 0, 1), COMPLETE), (old, Signal(RunEvent.COMPLETE))]
            hearing = asyncio.create_task(desk.ledger.hear(batch))
            twin = asyncio.create_task(desk.ledger.hear([(old, measure)]))

            async def completed() -> bool:
                return (await desk.row(first)).run.state is RunState.COMPLETED

            # Which of the two tasks starts the loading doesn't matter: the busy experiment's event is applied first.
            await wait.until(completed)
            await desk.hear("completed", other)
            assert len(await desk.claim(busy, 1)) == 1
            assert desk.ledger.live("large") is None
            go_on.set()
            effects, [twin_effect] = await asyncio.gather(hearing, twin)
        assert reads == 1
        assert {effects[0], twin_effect} == {Effect.NOTE, Effect.DUPLICATE}
        assert effects[1:] == [Effect.APPLY, Effect.DUPLICATE]
        await desk.reporter.flush()
        assert desk.ledger.live("large") is None


async def test_an_experiment_is_not_unloaded_while_an_end_is_being_committed(tmp_path: Path) -> None:
    """Otherwise the end would not be published."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, **ONCE))
        first, _ = await desk.launch(live)
        await desk.ledger.hear([((live.key, 1, 0, 1), LOSE)])
        await desk.hear("completed", first)
        save, unload, go_on = desk.manifest.save, desk.ledger.unload, asyncio.Event()
        late: list[asyncio.Task[Any]] = []

        async def slowly(*given: Any) -> None:
            await go_on.wait()
            await save(*given)

        async def overtaken(key: int) -> None:
            late.append(asyncio.create_task(desk.ledger.hear([((key, 1, 0, 1), COMPLETE)])))
            await wait.until(lambda: desk.ledger.uncommitted)
            await unload(key)
            go_on.set()

        with patch.object(desk.manifest, "save", slowly), patch.object(desk.ledger, "unload", overtaken):
            await desk.reporter.report_news(live)
            assert len(late) == 1
            await late[0]
        assert (await desk.report("reef"))["counts"]["completed"] == 2
        assert [result["job_revision"] for result in desk.broker.of("result")] == [1, 1, 2]


async def test_a_job_stays_in_memory_during_a_turn_that_uses_it(tmp_path: Path) -> None:
    """The commit of its end may finish in the middle of the next batch, while another job is loaded."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await desk.launch(live, 1)
        key = (live.key, 0, 0, 1)
        go_on, save, jobs = asyncio.Event(), desk.manifest.save, desk.manifest.jobs
        saved = asyncio.Event()

        async def slowly(*given: Any) -> None:
            await go_on.wait()
            await save(*given)
            saved.set()

        async def look_up(*given: Any) -> Any:
            loaded = await jobs(*given)
            go_on.set()
            await saved.wait()
            await wait.until(lambda: not desk.ledger.uncommitted)
            return loaded

        with patch.object(desk.manifest, "save", slowly), patch.object(desk.manifest, "jobs", look_up):
            first = asyncio.create_task(desk.ledger.hear([(key, COMPLETE)]))
            await asyncio.sleep(0)
            other = (live.key, 1, 0, 1)
            effects = await desk.ledger.hear([(key, COMPLETE), (other, Signal(RunEvent.ACCEPT))])
            assert effects == [Effect.DUPLICATE, Effect.LATE]
            await first


async def test_memory_keeps_only_jobs_with_an_open_run(tmp_path: Path) -> None:
    """Jobs that were loaded for an event, and events of unknown runs, leave nothing in memory."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live, 2)
        await desk.hear("completed", names[0])
        await desk.hear("started", "reef-p000002-r000-a7")
        await desk.hear("started", "reef-p000099-r000-a1")
        await desk.ledger.count_time()
        assert desk.ledger.jobs() == {(live.key, 1, 0)}


async def test_an_experiment_is_not_unloaded_while_late_metrics_are_being_committed(tmp_path: Path) -> None:
    """Loaded again, it would be older than the manifest after the commit."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [first] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        desk.clock.seconds += 10
        [second] = await desk.launch(live)
        await desk.hear("completed", first, metrics={"population": 1})
        await desk.hear("completed", second, metrics={"population": 2})
        await desk.report("reef")
        assert desk.ledger.experiments() == []
        save, go_on = desk.manifest.save, asyncio.Event()

        async def slowly(*given: Any) -> None:
            await go_on.wait()
            await save(*given)

        with patch.object(desk.manifest, "save", slowly):
            hearing = asyncio.create_task(desk.hear("metrics", second, metrics={"x": 1}))
            await wait.until(lambda: desk.ledger.uncommitted)
            await desk.ledger.unload(live.key)
            assert desk.ledger.live("reef") is not None
            go_on.set()
            await hearing
        assert desk.ledger.live("reef") is None
