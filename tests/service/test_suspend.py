"""`pause --now`: open runs are suspended if the orchestrator can do it, and resumed with their experiment."""

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import Control, Controlled
from tests.support import pausing, wait
from tests.support.desk import Clock, Desk, plan


async def test_the_time_of_a_suspended_run_stands_still(tmp_path: Path) -> None:
    """The change is applied when the orchestrator has confirmed the PAUSE of each run."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live, [name] = await pausing.running(desk)
        clock.seconds += 30
        reply = await desk.steer("pause", now=True)
        assert (reply["state"], reply["applied"]) == ("paused", False)
        assert await pausing.unapplied(desk, live) == ["pause"]
        await desk.suspension.check()
        assert desk.orchestrator.controls == [(Control.PAUSE, name)]
        assert await pausing.unapplied(desk, live) == []
        row = await desk.row(name)
        assert (row.run.state, row.run.suspended, row.run.elapsed_ms) == (RunState.RUNNING, True, 30_000)
        clock.seconds += 10_000
        await desk.suspension.check()
        await desk.limits.check()
        await desk.steer("resume")
        await desk.suspension.check()
        assert desk.orchestrator.controls[1:] == [(Control.RESUME, name)]
        assert not (await desk.row(name)).run.suspended
        clock.seconds += 29
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        clock.seconds += 2
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_a_pause_without_now_leaves_open_runs_alone(tmp_path: Path) -> None:
    """They go on, and their limits too. A later `pause --now` suspends them."""
    async with Desk.open(tmp_path) as desk:
        _, [name] = await pausing.running(desk)
        assert (await desk.steer("pause"))["applied"] is True
        await desk.suspension.check()
        assert desk.orchestrator.controls == []
        await desk.steer("pause", now=True)
        await desk.suspension.check()
        assert desk.orchestrator.controls == [(Control.PAUSE, name)]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("UNIMPLEMENTED", "the orchestrator can't pause runs: 2 go on"),
        ("FAILED_PRECONDITION", "the orchestrator didn't pause all runs: 2 go on"),
    ],
)
async def test_a_run_that_the_orchestrator_does_not_pause_goes_on(tmp_path: Path, code: str, reason: str) -> None:
    """The status says so, the change is applied, and the run ends as usual."""
    async with Desk.open(tmp_path) as desk:
        live, [first, second] = await pausing.running(desk, 2)
        desk.orchestrator.pause_code = code
        await desk.steer("pause", now=True)
        await desk.suspension.check()
        await desk.suspension.check()
        assert len(desk.orchestrator.controls) == 2
        status = await desk.report("reef")
        assert (status["state"], status["reason"]) == ("paused", f"paused by a person; {reason}")
        assert await pausing.unapplied(desk, live) == []
        await desk.hear("completed", first, metrics={"population": 1})
        await desk.suspension.check()
        assert (await desk.report("reef"))["reason"].endswith(reason.replace("2 go", "1 goes"))
        await desk.steer("resume")
        await desk.suspension.check()
        assert len(desk.orchestrator.controls) == 2
        assert (await desk.report("reef"))["reason"] is None
        await desk.hear("completed", second, metrics={"population": 2})
        assert (await desk.report("reef"))["state"] == "completed"


async def test_a_run_that_was_not_paused_is_tried_again_a_minute_later(tmp_path: Path) -> None:
    """The orchestrator may have been replaced by one that can do it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.running(desk)
        desk.orchestrator.pause_code = "UNIMPLEMENTED"
        await desk.steer("pause", now=True)
        await desk.suspension.check()
        desk.orchestrator.pause_code = "OK"
        clock.seconds += 59
        await desk.suspension.check()
        assert not (await desk.row(name)).run.suspended
        clock.seconds += 2
        await desk.suspension.check()
        assert (await desk.row(name)).run.suspended
        assert (await desk.report("reef"))["reason"] == "paused by a person"


async def test_a_queued_run_is_suspended_when_it_has_started(tmp_path: Path) -> None:
    """The answer to its first PAUSE is OK, and says that it isn't paused."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.steer("pause", now=True)
        with patch.object(desk.orchestrator, "control", return_value=Controlled("OK")):
            await desk.suspension.check()
        assert await pausing.unapplied(desk, live) == []
        await desk.suspension.check()
        assert desk.orchestrator.controls == []
        clock.seconds += 1
        await desk.hear("started", name)
        await desk.suspension.check()
        assert (await desk.row(name)).run.suspended


async def test_a_run_whose_start_has_no_answer_yet_is_suspended_after_it(tmp_path: Path) -> None:
    """Until then the change isn't applied."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        name = "reef-p000000-r000-a1"
        desk.orchestrator.hung[name] = asyncio.Event()
        launch = asyncio.create_task(desk.launch(live))
        await wait.until(lambda: desk.orchestrator.sent)
        await desk.steer("pause", now=True)
        await desk.suspension.check()
        assert desk.orchestrator.controls == []
        assert await pausing.unapplied(desk, live) == ["pause"]
        desk.orchestrator.hung[name].set()
        await launch
        await desk.suspension.check()
        assert await pausing.unapplied(desk, live) == []
        assert (await desk.row(name)).run.suspended


async def test_a_suspended_run_that_is_cancelled_is_stopped(tmp_path: Path) -> None:
    """It isn't resumed before."""
    async with Desk.open(tmp_path) as desk:
        live, [name] = await pausing.suspended(desk)
        await desk.steer("cancel")
        await desk.suspension.check()
        await desk.limits.check()
        assert desk.orchestrator.controls[1:] == [(Control.STOP, name)]
        assert await pausing.unapplied(desk, live) == ["cancel"]
        await desk.hear("failed", name, error_kind="stopped")
        stopped = (await desk.row(name)).run
        assert (stopped.state, stopped.stop_reason, stopped.suspended) == (
            RunState.CANCELLED,
            StopReason.CANCELLED,
            False,
        )
        assert await pausing.unapplied(desk, live) == []
        assert (await desk.report("reef"))["state"] == "cancelled"


async def test_a_suspended_run_whose_job_is_cancelled_stays_suspended_if_its_stop_is_not_confirmed(
    tmp_path: Path,
) -> None:
    """Until it is given up. The experiment stays paused, and its other run suspended."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live, [first, second] = await pausing.suspended(desk, 2)
        await desk.steer("cancel", where="food == 0")
        await desk.limits.check()
        assert desk.orchestrator.stops == [first]
        clock.seconds += 31
        await desk.suspension.check()
        await desk.limits.check()
        lost = (await desk.row(first)).run
        assert (lost.state, lost.error_message) == (RunState.LOST, "cancelled, and its end was not confirmed")
        assert await pausing.unapplied(desk, live) == []
        assert (await desk.report("reef"))["state"] == "paused"
        assert (await desk.row(second)).run.suspended
        assert Control.RESUME not in [action for action, _ in desk.orchestrator.controls]


async def test_a_suspended_run_that_may_end_by_itself_is_resumed(tmp_path: Path) -> None:
    """`cancel --drain` ends the pause."""
    async with Desk.open(tmp_path) as desk:
        _, [name] = await pausing.suspended(desk)
        await desk.steer("cancel", drain=True)
        await desk.suspension.check()
        await desk.limits.check()
        assert desk.orchestrator.controls[1:] == [(Control.RESUME, name)]
        await desk.hear("completed", name, metrics={"population": 1})
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["completed"]) == ("cancelled", 1)


async def test_a_suspended_run_that_ends_nevertheless_has_ended(tmp_path: Path) -> None:
    """Its event may have been under way."""
    async with Desk.open(tmp_path) as desk:
        live, [name] = await pausing.suspended(desk)
        await desk.hear("completed", name, metrics={"population": 1})
        done = (await desk.row(name)).run
        assert (done.state, done.suspended) == (RunState.COMPLETED, False)
        await desk.suspension.check()
        await desk.steer("resume")
        await desk.suspension.check()
        assert len(desk.orchestrator.controls) == 1
        assert live.ended
