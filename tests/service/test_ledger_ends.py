"""How experiments end: after failures, infeasible jobs, and when they fail fast."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.core.records import Experiment
from tests.support.desk import Desk, plan

COMPLETE = Signal(RunEvent.COMPLETE, metrics={"population": 1.0})
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "silent")
FAST: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 0, "fail_fast": True}}


async def test_an_experiment_that_fails_fast_cancels_pending_runs_and_stops_open_ones(tmp_path: Path) -> None:
    """It fails when these have ended."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=6, **FAST))
        names = await desk.launch(live, 3)
        await desk.hear("failed", names[0], error_kind="simulation", message="no fish")
        assert live.failing_fast
        assert await desk.claim(live, 10) == []
        await desk.limits.check()
        assert sorted(desk.orchestrator.stops) == names[1:]
        await desk.hear("failed", names[1], error_kind="stopped")
        await desk.hear("completed", names[2], metrics={"population": 1})
        status = await desk.report("reef")
        assert (status["state"], status["reason"]) == ("failed", "too many jobs failed")
        counts = {name: count for name, count in status["counts"].items() if count}
        assert counts == {"failed": 1, "cancelled": 4, "completed": 1}


async def test_an_experiment_that_failed_fast_stays_failed_if_its_lost_run_completes_late(tmp_path: Path) -> None:
    """The reason is that its other jobs were cancelled."""
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
    """`max_failed` is a number or a percentage of all jobs, and counts when all jobs have ended."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, limits={"max_failed": allowed}))
        names = await desk.launch(live)
        for index, name in enumerate(names):
            await desk.hear("failed" if index < failures else "completed", name)
        assert (await desk.report("reef"))["state"] == state


async def test_infeasible_jobs_have_a_count_of_their_own_and_are_no_failures(tmp_path: Path) -> None:
    """They aren't retried."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        first, other = await desk.launch(live)
        await desk.hear("failed", first, error_kind="infeasible")
        await desk.hear("completed", other)
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["infeasible"], status["counts"]["failed"]) == ("completed", 1, 0)


async def test_an_experiment_is_concluded_once(tmp_path: Path) -> None:
    """Several batches may notice at the same time that all jobs have ended."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        await desk.launch(live)
        moved: list[ExperimentState] = []
        save = desk.manifest.save_experiment

        async def note(before: Experiment, after: Experiment) -> None:
            moved.append(after.state)
            await save(before, after)

        with patch.object(desk.manifest, "save_experiment", note):
            await asyncio.gather(
                *(desk.ledger.hear([((live.key, point, 0, 1), COMPLETE)]) for point in range(4)),
                *(desk.ledger.records.conclude(live) for _ in range(3)),
            )
        assert moved == [ExperimentState.COMPLETED]


async def test_no_job_is_retried_while_its_experiment_fails_fast(tmp_path: Path) -> None:
    """A run that fails for infrastructure reasons then ends its job, although it has attempts left."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"fail_fast": True}))
        first, second = await desk.launch(live)
        await desk.hear("failed", first, error_kind="simulation")
        await desk.hear("failed", second, error_kind="infrastructure")
        assert [row.run.attempt for row in await desk.rows("reef")] == [1, 1]
        assert (await desk.report("reef"))["state"] == "failed"
