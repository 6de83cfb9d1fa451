"""Time limits and STOP: a run that takes too long is stopped, and lost if its end isn't confirmed."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import ErrorKind, Waiting
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


async def test_the_limit_counts_from_the_start_of_the_run(tmp_path: Path) -> None:
    """The time in the orchestrator's queue no longer counts when the run starts."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 50
        await desk.hear("started", name)
        clock.seconds += 50
        await desk.limits.check()
        assert desk.orchestrator.stops == []


async def test_elapsed_time_is_kept_across_a_restart(tmp_path: Path) -> None:
    """Time between the two processes, and a jump of the wall clock, don't count."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 40
        await desk.ledger.count_time()
        clock.seconds += 10
        await desk.ledger.count_time()
    assert clock.seconds == 1050
    async with Desk.open(tmp_path, clock := Clock(90_000)) as desk:
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        clock.seconds += 9
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        clock.seconds += 2
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_elapsed_time_is_recorded_every_half_minute(tmp_path: Path) -> None:
    """A crash can lengthen a limit by no more than that."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        clock.seconds += 31
        await desk.limits.check()
        assert (await desk.row(name)).run.elapsed_ms == 31_000


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


async def test_no_time_counts_before_a_run_is_submitted(tmp_path: Path) -> None:
    """The orchestrator may be away for a long time."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        await desk.ledger.claim(live.key, 1)
        clock.seconds += 10_000
        await desk.limits.check()
        assert desk.orchestrator.stops == []


async def test_the_configured_limit_applies_if_the_plan_has_none(tmp_path: Path) -> None:
    """The setting is EMS_RUN_TIMEOUT_SECONDS."""
    async with Desk.open(tmp_path, clock := Clock(), run_timeout_seconds=5.0) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        clock.seconds += 6
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_an_orchestrator_without_statuses_has_a_default_limit_of_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With GetSimulationStatus there is no default limit. The time used before that is known counts."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 3500
        monkeypatch.setattr(Reconciler, "can_ask", False)
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        clock.seconds += 101
        monkeypatch.setattr(Reconciler, "can_ask", True)
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        monkeypatch.setattr(Reconciler, "can_ask", False)
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_the_time_limit_of_metrics_counts_from_the_end_of_their_run(tmp_path: Path) -> None:
    """The arrival of other metrics doesn't extend it, and each metric has its own limit."""
    both = [{"name": name, "from": "event", "timeout_seconds": limit} for name, limit in (("a", 60), ("b", 100))]
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, metrics_to_track=both))
        first, other = await desk.launch(live)
        await desk.hear("completed", first)
        await desk.hear("completed", other)
        clock.seconds += 50
        await desk.hear("metrics", first, metrics={"step_1": 1})
        await desk.hear("metrics", other, metrics={"a": 1})
        clock.seconds += 11
        await desk.limits.check()
        assert (await desk.row(first)).run.waiting is Waiting.MISSING
        assert (await desk.row(other)).run.waiting is Waiting.AWAITING
        clock.seconds += 40
        await desk.limits.check()
        assert (await desk.row(other)).run.waiting is Waiting.MISSING


async def test_after_a_retry_metrics_have_their_full_time_limit_again(tmp_path: Path) -> None:
    """The run itself isn't repeated."""
    late = [{"name": "a", "from": "event", "timeout_seconds": 60}]
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, metrics_to_track=late))
        [name] = await desk.launch(live)
        await desk.hear("completed", name)
        clock.seconds += 61
        await desk.limits.check()
        assert (await desk.row(name)).run.waiting is Waiting.MISSING
        await desk.steer("retry")
        clock.seconds += 59
        await desk.limits.check()
        assert (await desk.row(name)).run.waiting is Waiting.AWAITING


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
