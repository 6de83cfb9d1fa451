"""The ledger: what is heard of runs becomes state, exactly once, in step with the manifest."""

import asyncio
import gc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import Bucket, ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Signal, StopReason
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan

COMPLETE = Signal(RunEvent.COMPLETE, metrics={"population": 1.0})
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "silent")
ONCE: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 1}}


async def committing(desk: Desk) -> None:
    """Returns when a commit is under way."""
    while not desk.ledger.uncommitted:  # noqa: ASYNC110 - the very next turn is what it is about
        await asyncio.sleep(0)


async def test_a_run_is_on_disk_as_submitting_before_its_command_leaves(tmp_path: Path) -> None:
    """With the digest of its configuration."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [(run, _)] = await desk.ledger.claim(live.key, 10)
        row = await desk.row("reef-p000000-r000-a1")
        assert row.run.state is RunState.SUBMITTING
        assert row.run == run
        assert row.run.config_sha == live.template.config_sha({"food": 0}, run.seed)


async def test_a_claim_takes_no_more_than_asked_and_nothing_twice(tmp_path: Path) -> None:
    """Also when two claims are made at once."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10))
        one, other = await asyncio.gather(desk.ledger.claim(live.key, 4), desk.ledger.claim(live.key, 4))
        points = [run.point for run, _ in [*one, *other]]
        assert len(set(points)) == len(points)
        assert len(one) <= 4
        assert live.open == len(points)


@pytest.mark.parametrize("state", [state for state in ExperimentState if state is not ExperimentState.RUNNING])
async def test_runs_are_claimed_only_of_a_running_experiment(tmp_path: Path, state: ExperimentState) -> None:
    """In every other state a claim gets nothing, and its runs stay pending."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.ledger.records.move(live, state)
        assert await desk.ledger.claim(live.key, 10) == []
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.PENDING


async def test_a_late_completion_of_a_lost_run_revises_its_result(tmp_path: Path) -> None:
    """After the experiment had ended, was told and let go: a new revision of the result, and a new status."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, **ONCE))
        first, second = await desk.launch(live)
        await desk.hear("completed", first, metrics={"population": 5})
        await desk.ledger.hear([((live.key, 1, 0, 1), LOSE)])
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["lost"], status["counts"]["completed"]) == ("completed", 1, 1)
        assert desk.ledger.experiments() == []

        await desk.hear("completed", second, metrics={"population": 9})
        revived = desk.ledger.live("reef")
        assert revived is not None
        after = await desk.report("reef")
        assert after["revision"] > status["revision"]
        assert (after["state"], after["counts"]["lost"], after["counts"]["completed"]) == ("completed", 0, 2)
        assert after["best"]["point"] == 1
        results = [(one["point"], one["job_revision"], one["state"]) for one in desk.broker.of("result")]
        assert results == [(0, 1, "completed"), (1, 1, "lost"), (1, 2, "completed")]
        assert desk.ledger.experiments() == []
        await desk.ledger.count_time()
        assert desk.ledger.jobs() == set()


async def test_a_late_completion_found_after_a_restart_revises_its_result(tmp_path: Path) -> None:
    """Though the worker never had the experiment in memory."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, **ONCE))
        [name] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        await desk.report("reef")
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.experiments() == []
        await desk.hear("completed", name, metrics={"population": 9})
        assert (await desk.report("reef"))["counts"]["completed"] == 1
        assert [one["job_revision"] for one in desk.broker.of("result")] == [2]


async def test_events_that_change_nothing_revive_nothing(tmp_path: Path) -> None:
    """A duplicate after the end leaves the experiment where it is."""
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


async def test_metrics_that_come_again_revive_nothing(tmp_path: Path) -> None:
    """Delivery is at least once, and nobody would let go of an experiment of which there is no news."""
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


async def test_late_metrics_of_a_run_that_stands_for_no_job_leave_nothing_behind(tmp_path: Path) -> None:
    """They are on its row; there is nothing to report, after which the experiment would be let go."""
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


async def test_others_go_on_while_a_large_experiment_is_taken_up_again(tmp_path: Path) -> None:
    """Claims, events in the same batch and in others; who wants it too waits for the same reading."""
    async with Desk.open(tmp_path) as desk:
        [late] = await desk.launch(await desk.begin(plan("large", points=1)))
        await desk.hear("completed", late)
        await desk.report("large")
        old = (await desk.ledger.find([late]))[late]
        busy = await desk.begin(plan("busy", points=4))
        one, other = await desk.launch(busy, 2)
        held, tally, reads = asyncio.Event(), desk.manifest.tally, 0

        async def slowly(key: int) -> Any:
            nonlocal reads
            reads += 1
            await held.wait()
            return await tally(key)

        with patch.object(desk.manifest, "tally", slowly):
            measure = Signal(RunEvent.MEASURE, metrics={"x": 1.0})
            batch = [(old, measure), ((busy.key, 0, 0, 1), COMPLETE), (old, Signal(RunEvent.COMPLETE))]
            hearing = asyncio.create_task(desk.ledger.hear(batch))
            twin = asyncio.create_task(desk.ledger.hear([(old, measure)]))

            async def completed() -> bool:
                return (await desk.row(one)).run.state is RunState.COMPLETED

            # The twin may be the one who has the large experiment read, before this is on disk.
            await wait.until(completed)
            await desk.hear("completed", other)
            assert len(await desk.ledger.claim(busy.key, 1)) == 1
            assert desk.ledger.live("large") is None
            held.set()
            heard, [again] = await asyncio.gather(hearing, twin)
        assert reads == 1
        assert {heard[0], again} == {Effect.NOTE, Effect.DUPLICATE}
        assert heard[1:] == [Effect.APPLY, Effect.DUPLICATE]
        await desk.reporter.flush()
        assert desk.ledger.live("large") is None


async def test_an_end_on_its_way_to_disk_keeps_the_experiment(tmp_path: Path) -> None:
    """Let go in that moment, it would end untold."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, **ONCE))
        first, _ = await desk.launch(live)
        await desk.ledger.hear([((live.key, 1, 0, 1), LOSE)])
        await desk.hear("completed", first)
        save, unload, held = desk.manifest.save, desk.ledger.unload, asyncio.Event()
        late: list[asyncio.Task[Any]] = []

        async def slowly(*given: Any) -> None:
            await held.wait()
            await save(*given)

        async def overtaken(key: int) -> None:
            late.append(asyncio.create_task(desk.ledger.hear([((key, 1, 0, 1), COMPLETE)])))
            await wait.until(lambda: desk.ledger.uncommitted)
            await unload(key)
            held.set()

        with patch.object(desk.manifest, "save", slowly), patch.object(desk.ledger, "unload", overtaken):
            await desk.reporter.report_news(live)
            assert len(late) == 1
            await late[0]
        assert (await desk.report("reef"))["counts"]["completed"] == 2
        assert [one["job_revision"] for one in desk.broker.of("result")] == [1, 1, 2]


async def test_a_job_is_not_forgotten_while_another_is_looked_up(tmp_path: Path) -> None:
    """The commit of its end may come back in the midst of the next batch, which is about it too."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await desk.launch(live, 1)
        key = (live.key, 0, 0, 1)
        held, save, jobs = asyncio.Event(), desk.manifest.save, desk.manifest.jobs
        saved = asyncio.Event()

        async def slowly(*given: Any) -> None:
            await held.wait()
            await save(*given)
            saved.set()

        async def look_up(*given: Any) -> Any:
            found = await jobs(*given)
            held.set()
            await saved.wait()
            await wait.until(lambda: not desk.ledger.uncommitted)
            return found

        with patch.object(desk.manifest, "save", slowly), patch.object(desk.manifest, "jobs", look_up):
            first = asyncio.create_task(desk.ledger.hear([(key, COMPLETE)]))
            await asyncio.sleep(0)
            other = (live.key, 1, 0, 1)
            heard = await desk.ledger.hear([(key, COMPLETE), (other, Signal(RunEvent.ACCEPT))])
            assert heard == [Effect.DUPLICATE, Effect.LATE]
            await first


async def test_memory_keeps_only_jobs_with_an_open_run(tmp_path: Path) -> None:
    """Whatever was asked for, known or not."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live, 2)
        await desk.hear("completed", names[0])
        await desk.hear("started", "reef-p000002-r000-a7")
        await desk.hear("started", "reef-p000099-r000-a1")
        await desk.ledger.count_time()
        assert desk.ledger.jobs() == {(live.key, 1, 0)}


async def test_the_first_completed_attempt_wins_and_the_other_is_stopped(tmp_path: Path) -> None:
    """What the other brings stays on its row."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [first] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        desk.clock.seconds += 10
        [second] = await desk.launch(live)
        assert second == "reef-p000000-r000-a2"
        await desk.hear("completed", first, metrics={"population": 1})
        assert (await desk.row(second)).run.stop_reason is StopReason.UNWANTED
        await desk.limits.check()
        assert desk.orchestrator.stops == [second]
        await desk.hear("completed", second, metrics={"population": 2})
        assert (await desk.row(first)).run.current
        loser = (await desk.row(second)).run
        assert (loser.current, loser.state, loser.metrics) == (False, RunState.COMPLETED, {"population": 2.0})
        status = await desk.report("reef")
        assert (status["state"], status["metrics"]["population"]["mean"]) == ("completed", 1.0)
        assert [one["simulation_id"] for one in desk.broker.of("result")] == [first]


FAST: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 0, "fail_fast": True}}


async def test_fail_fast_cancels_what_waits_and_stops_what_runs(tmp_path: Path) -> None:
    """Then the experiment has failed."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=6, **FAST))
        names = await desk.launch(live, 3)
        await desk.hear("failed", names[0], error_kind="simulation", message="no fish")
        assert live.failing_fast
        assert await desk.ledger.claim(live.key, 10) == []
        await desk.limits.check()
        assert sorted(desk.orchestrator.stops) == names[1:]
        await desk.hear("failed", names[1], error_kind="stopped")
        await desk.hear("completed", names[2], metrics={"population": 1})
        status = await desk.report("reef")
        assert (status["state"], status["reason"]) == ("failed", "too many jobs failed")
        counts = {name: count for name, count in status["counts"].items() if count}
        assert counts == {"failed": 1, "cancelled": 4, "completed": 1}


async def test_an_experiment_that_stopped_early_is_no_success_though_the_lost_run_had_completed(tmp_path: Path) -> None:
    """Nearly nothing of it was run, and it says so."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=100, **FAST))
        [lost, other] = await desk.launch(live, 2)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        await desk.limits.check()
        await desk.hear("completed", lost, metrics={"population": 1})
        await desk.hear("failed", other, error_kind="stopped")
        status = await desk.report("reef")
        assert status["state"] == "failed"
        assert status["reason"] == "99 jobs were cancelled because too many failed"


@pytest.mark.parametrize(
    ("allowed", "failures", "state"),
    [
        (0, 0, "completed"),
        (0, 1, "failed"),
        (2, 2, "completed"),
        (2, 3, "failed"),
        ("50%", 2, "completed"),
        ("50%", 3, "failed"),
    ],
)
async def test_more_failures_than_allowed_fail_the_experiment(
    tmp_path: Path, allowed: Any, failures: int, state: str
) -> None:
    """A number, or a part of all jobs; judged when all have ended."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, limits={"max_failed": allowed}))
        names = await desk.launch(live)
        for index, name in enumerate(names):
            await desk.hear("failed" if index < failures else "completed", name)
        assert (await desk.report("reef"))["state"] == state


async def test_infeasible_jobs_are_counted_apart_and_are_no_failures(tmp_path: Path) -> None:
    """Nor are they tried again."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        one, other = await desk.launch(live)
        await desk.hear("failed", one, error_kind="infeasible")
        await desk.hear("completed", other)
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["infeasible"], status["counts"]["failed"]) == ("completed", 1, 0)


async def test_tally_in_memory_is_what_the_rows_say(tmp_path: Path) -> None:
    """Through retries, losses, late ends and cancellations."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=6))
        names = await desk.launch(live, 5)
        await desk.hear("failed", names[0], error_kind="infrastructure")
        await desk.hear("completed", names[1], metrics={"population": 3})
        await desk.hear("completed", names[2], metrics={"other": 3})
        await desk.hear("failed", names[3], error_kind="simulation")
        await desk.hear("started", names[4])
        await desk.ledger.hear([((live.key, 4, 0, 1), LOSE)])
        await desk.hear("completed", names[4], metrics={"population": 7})
        stored = await desk.manifest.tally(live.key)
        assert live.recorded == live.tally
        assert live.tally.by_bucket == stored.by_bucket
        assert live.tally.by_bucket[Bucket.COMPLETED] == 3
        assert live.tally.metrics["population"].n == stored.metrics["population"].n == 2
        assert live.tally.metrics["population"].mean == stored.metrics["population"].mean == 5.0
        assert live.tally.metrics["population"].missing == 1


async def test_what_could_not_be_recorded_is_told_even_if_nobody_waits(tmp_path: Path) -> None:
    """The caller gets the error; one that was cancelled leaves a line in the log, not an unheard exception."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        held = asyncio.Event()

        async def fail(*_: object) -> None:
            await held.wait()
            raise errors.ManifestUnusable("disk full")

        with patch.object(desk.manifest, "save", fail):
            hearing = asyncio.create_task(desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.START))]))
            await wait.until(lambda: desk.ledger.uncommitted)
            hearing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hearing
            held.set()
            with pytest.raises(errors.ManifestUnusable, match="disk full"):
                await desk.ledger.hear([((live.key, 0, 0, 1), COMPLETE)])
        # The worker ends with it.
        with pytest.raises(errors.ManifestUnusable, match="disk full"):
            await desk.ledger.until_broken()
        assert not desk.ledger.uncommitted
    gc.collect()
    assert unheard == []


async def test_what_was_decided_is_recorded_though_its_caller_was_cancelled(tmp_path: Path) -> None:
    """As in the midst of an orderly end: memory has changed already, and what follows relies on that."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live, 2)
        for work in (
            desk.ledger.claim(live.key, 1),
            desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.START))]),
            desk.ledger.hear([((live.key, 1, 0, 1), COMPLETE)]),
            desk.ledger.ask_to_stop([((live.key, 0, 0, 1), StopReason.TIMEOUT)]),
        ):
            await wait.until(lambda: not desk.ledger.uncommitted)
            task = asyncio.ensure_future(work)
            await committing(desk)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        desk.clock.seconds += 1
        await desk.ledger.count_time()
        first = (await desk.row(names[0])).run
        assert (first.state, first.stop_reason) == (RunState.RUNNING, StopReason.TIMEOUT)
        assert (await desk.row(names[1])).run.state is RunState.COMPLETED
        assert (await desk.row("reef-p000002-r000-a1")).run.state is RunState.SUBMITTING


async def test_experiment_states_are_moved_once(tmp_path: Path) -> None:
    """Though several batches see that all has ended."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        await desk.launch(live)
        moved: list[ExperimentState] = []
        move = desk.manifest.move_experiment

        async def note(key: int, expected: ExperimentState, to: ExperimentState, **rest: Any) -> None:
            moved.append(to)
            await move(key, expected, to, **rest)

        with patch.object(desk.manifest, "move_experiment", note):
            await asyncio.gather(
                *(desk.ledger.hear([((live.key, point, 0, 1), COMPLETE)]) for point in range(4)),
                *(desk.ledger.records.conclude(live) for _ in range(3)),
            )
        assert moved == [ExperimentState.COMPLETED]


async def test_a_retry_waits_for_its_time(tmp_path: Path) -> None:
    """And has the same seed and configuration under another name."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [first] = await desk.launch(live)
        await desk.hear("failed", first, error_kind="infrastructure", message="node gone")
        assert await desk.launch(live) == []
        clock.seconds += 2
        [second] = await desk.launch(live)
        one, other = desk.orchestrator.calls[0][0], desk.orchestrator.calls[-1][0]
        assert (one.seed, one.config_sha, one.config) == (other.seed, other.config_sha, other.config)
        assert (await desk.row(first)).run.error_message == "node gone"
        assert not (await desk.row(first)).run.current
        await desk.hear("completed", second)
        assert (await desk.report("reef"))["state"] == "completed"


async def test_background_work_of_a_desk_ends_with_it(tmp_path: Path) -> None:
    """Nothing that the services start outlives them."""
    async with Desk.open(tmp_path) as desk:
        async with background(desk.reporter.run()), background(desk.limits.run()):
            await desk.begin(plan())
        assert not desk.ledger.uncommitted
