"""STOP: a run that takes too long is stopped, and lost if its end isn't confirmed."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import Control, Controlled
from ems_worker.service import limits
from ems_worker.service.reconcile import Reconciler
from tests.support import wait
from tests.support.desk import Clock, Desk, plan

LIMIT: dict[str, Any] = {"limits": {"run_timeout_seconds": 60, "max_attempts": 2}}


async def test_a_confirmed_stop_is_a_timeout(tmp_path: Path) -> None:
    """The run fails with kind timeout, and is retried even if the orchestrator calls stopped runs not retryable."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 59
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        clock.seconds += 2
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]
        await desk.hear("failed", name, error_kind="stopped", message="asked to", retryable=False)
        stopped = (await desk.row(name)).run
        assert (stopped.state, stopped.error_kind) == (RunState.FAILED, ErrorKind.TIMEOUT)
        clock.seconds += 2
        assert await desk.launch(live) == ["reef-p000000-r000-a2"]


async def test_a_run_whose_stop_is_not_confirmed_in_time_is_lost(tmp_path: Path) -> None:
    """STOP is sent once, and the run is retried."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.check()
        clock.seconds += 29
        await desk.limits.check()
        assert (await desk.row(name)).run.state is RunState.SUBMITTED
        clock.seconds += 2
        await desk.limits.check()
        given_up = (await desk.row(name)).run
        assert (given_up.state, given_up.error_kind) == (RunState.LOST, ErrorKind.LOST)
        assert desk.orchestrator.stops == [name]
        clock.seconds += 2
        assert await desk.launch(live) == ["reef-p000000-r000-a2"]


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNIMPLEMENTED"])
async def test_a_run_is_lost_at_once_if_no_confirmation_can_follow(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestrator doesn't know the run and doesn't implement GetSimulationStatus, or it doesn't implement STOP."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        monkeypatch.setattr(Reconciler, "can_ask", code != "NOT_FOUND")
        desk.orchestrator.stop_code = code
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.check()
        await desk.limits.check()
        assert (await desk.row(name)).run.state is RunState.LOST


async def test_a_run_at_its_limit_that_the_orchestrator_does_not_know_is_left_to_reconciliation_first(
    tmp_path: Path,
) -> None:
    """The orchestrator may have been wiped. If reconciliation doesn't show that in time, the run is lost."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "NOT_FOUND"
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.check()
        clock.seconds += 149
        await desk.limits.check()
        assert (await desk.row(name)).run.state is RunState.SUBMITTED
        clock.seconds += 2
        await desk.limits.check()
        assert (await desk.row(name)).run.state is RunState.LOST


async def test_a_stop_that_did_not_arrive_is_sent_again(tmp_path: Path) -> None:
    """It is sent again after a pause, until the orchestrator has it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "UNAVAILABLE"
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.check()
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]
        clock.seconds += 3
        desk.orchestrator.stop_code = "OK"
        await desk.limits.check()
        clock.seconds += 3
        await desk.limits.check()
        assert desk.orchestrator.stops == [name, name]
        assert (await desk.row(name)).run.state is RunState.SUBMITTED


async def test_a_run_is_lost_even_if_no_stop_ever_arrives(tmp_path: Path) -> None:
    """The time for the confirmation counts from the first STOP."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "UNAVAILABLE"
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        for _ in range(13):
            await desk.limits.check()
            clock.seconds += 3
        assert (await desk.row(name)).run.state is RunState.LOST


async def test_a_stop_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    """The reason for the STOP is recorded, so that a confirmation still means a timeout."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.check()
    async with Desk.open(tmp_path, clock) as desk:
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]
        await desk.hear("failed", name, error_kind="stopped")
        assert (await desk.row(name)).run.error_kind is ErrorKind.TIMEOUT


async def test_an_unwanted_run_whose_stop_is_not_confirmed_is_cancelled(tmp_path: Path) -> None:
    """This ends its experiment."""
    limits: dict[str, Any] = {"limits": {"max_attempts": 1, "fail_fast": True}}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **limits))
        first, other = await desk.launch(live)
        await desk.hear("failed", first)
        await desk.limits.check()
        assert desk.orchestrator.stops == [other]
        clock.seconds += 31
        await desk.limits.check()
        assert (await desk.row(other)).run.state is RunState.CANCELLED
        assert (await desk.report("reef"))["state"] == "failed"


async def test_an_unanswered_stop_does_not_delay_the_limits_of_other_runs(tmp_path: Path) -> None:
    """It isn't sent again while it is under way."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **LIMIT))
        first, second = await desk.launch(live)
        await desk.hear("started", first)
        clock.seconds += 30
        await desk.hear("started", second)
        answered, stop = asyncio.Event(), desk.orchestrator.control

        async def slowly(simulation_id: str, action: Control) -> Controlled:
            answer = await stop(simulation_id, action)
            if simulation_id == first:
                await answered.wait()
            return answer

        with patch.object(desk.orchestrator, "control", slowly), patch.object(limits, "_TICK_SECONDS", 0.01):
            clock.seconds += 31
            await desk.limits.check()
            assert desk.orchestrator.stops == [first]
            clock.seconds += 30
            await desk.limits.check()
            assert desk.orchestrator.stops == [first, second]
            answered.set()
            await wait.until(lambda: desk.count("ems_stops_total", reason="timeout") == 2)
            await desk.limits.check()
            assert desk.orchestrator.stops == [first, second]
