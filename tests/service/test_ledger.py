"""The ledger: claims and events change runs exactly once, in memory and in the manifest."""

import asyncio
import gc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Signal, StopReason
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from tests.support import wait
from tests.support.desk import Clock, Desk, plan

COMPLETE = Signal(RunEvent.COMPLETE, metrics={"population": 1.0})
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "silent")


async def committing(desk: Desk) -> None:
    """Returns in the first turn of the event loop in which a commit is under way."""
    while not desk.ledger.uncommitted:  # noqa: ASYNC110 - a later turn would be too late
        await asyncio.sleep(0)


async def test_a_claimed_run_is_on_disk_as_submitting(tmp_path: Path) -> None:
    """It has the digest of its configuration."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [(run, _)] = await desk.claim(live, 10)
        row = await desk.row("reef-p000000-r000-a1")
        assert row.run.state is RunState.SUBMITTING
        assert row.run == run
        assert row.run.config_sha == live.template.config_sha({"food": 0}, run.seed)


async def test_two_claims_at_once_claim_no_run_twice(tmp_path: Path) -> None:
    """Neither claims more runs than it may."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10))
        first, second = await asyncio.gather(desk.claim(live, 4), desk.claim(live, 4))
        points = [run.point for run, _ in [*first, *second]]
        assert len(set(points)) == len(points)
        assert len(first) == 4
        assert len(second) <= 4
        assert live.open == len(points)


@pytest.mark.parametrize("state", [state for state in ExperimentState if state is not ExperimentState.RUNNING])
async def test_runs_are_claimed_only_of_a_running_experiment(tmp_path: Path, state: ExperimentState) -> None:
    """In every other state a claim returns no run, and the runs stay pending."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        if state is ExperimentState.PAUSED:
            await desk.steer("pause")
        else:
            await desk.ledger.records.move(live, state)
        assert await desk.claim(live, 10) == []
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.PENDING


async def test_the_first_completed_attempt_wins_and_the_other_is_stopped(tmp_path: Path) -> None:
    """The result of the other attempt is recorded on its row only."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [first] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        desk.clock.seconds += 10
        [second] = await desk.launch(live)
        assert second == "reef-p000000-r000-a2"
        await desk.hear("completed", first, metrics={"population": 1})
        assert (await desk.row(second)).run.stop_reason is StopReason.SUPERSEDED
        await desk.limits.check()
        assert desk.orchestrator.stops == [second]
        await desk.hear("completed", second, metrics={"population": 2})
        assert (await desk.row(first)).run.current
        loser = (await desk.row(second)).run
        assert (loser.current, loser.state, loser.metrics) == (False, RunState.COMPLETED, {"population": 2.0})
        status = await desk.report("reef")
        assert (status["state"], status["metrics"]["population"]["mean"]) == ("completed", 1.0)
        assert [result["simulation_id"] for result in desk.broker.of("result")] == [first]


async def test_the_tally_in_memory_agrees_with_the_rows(tmp_path: Path) -> None:
    """It does so after retries, losses, late ends and cancellations."""
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


async def test_a_failed_commit_ends_the_worker_even_if_its_caller_was_cancelled(tmp_path: Path) -> None:
    """A caller that still waits gets the error; after a cancellation there is no exception that is never retrieved."""
    unretrieved: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        go_on = asyncio.Event()

        async def fail(*_: object) -> None:
            await go_on.wait()
            raise errors.ManifestUnusable("disk full")

        with patch.object(desk.manifest, "save", fail):
            hearing = asyncio.create_task(desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.START))]))
            await wait.until(lambda: desk.ledger.uncommitted)
            hearing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hearing
            go_on.set()
            with pytest.raises(errors.ManifestUnusable, match="disk full"):
                await desk.ledger.hear([((live.key, 0, 0, 1), COMPLETE)])
        with pytest.raises(errors.ManifestUnusable, match="disk full"):
            await desk.ledger.until_broken()
        assert not desk.ledger.uncommitted
    gc.collect()
    assert unretrieved == []


async def test_a_decision_is_recorded_even_if_its_caller_was_cancelled(tmp_path: Path) -> None:
    """Memory has changed already, and later decisions depend on it, as in the middle of an orderly shutdown."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live, 2)
        for work in (
            desk.claim(live, 1),
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


async def test_a_retry_starts_when_it_is_due(tmp_path: Path) -> None:
    """It has another simulation id, and the same seed and configuration."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [first] = await desk.launch(live)
        await desk.hear("failed", first, error_kind="infrastructure", message="node gone")
        assert await desk.launch(live) == []
        clock.seconds += 2
        [second] = await desk.launch(live)
        before, after = desk.orchestrator.calls[0][0], desk.orchestrator.calls[-1][0]
        assert (before.seed, before.config_sha, before.config) == (after.seed, after.config_sha, after.config)
        assert (await desk.row(first)).run.error_message == "node gone"
        assert not (await desk.row(first)).run.current
        await desk.hear("completed", second)
        assert (await desk.report("reef"))["state"] == "completed"
