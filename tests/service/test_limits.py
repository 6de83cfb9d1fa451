"""Time limits and STOP: a run that takes too long is stopped, and one that says nothing is given up."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import ErrorKind, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service import limits
from ems_worker.service.reconcile import Reconciler
from tests.support import wait
from tests.support.desk import Clock, Desk, plan

LIMIT: dict[str, Any] = {"limits": {"run_timeout_seconds": 60, "max_attempts": 2}}


async def test_a_stop_that_is_confirmed_is_a_timeout(tmp_path: Path) -> None:
    """The run failed, kind timeout, and is tried again, whatever the orchestrator thinks of repeating stopped ones."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 59
        await desk.limits.look()
        assert desk.orchestrator.stops == []
        clock.seconds += 2
        await desk.limits.look()
        assert desk.orchestrator.stops == [name]
        await desk.hear("failed", name, error_kind="stopped", message="asked to", retryable=False)
        one = (await desk.row(name)).run
        assert (one.state, one.error_kind) == (RunState.FAILED, ErrorKind.TIMEOUT)
        clock.seconds += 2
        assert await desk.launch(live) == ["reef-p000000-r000-a2"]


async def test_a_stop_that_nobody_confirms_is_a_lost_run(tmp_path: Path) -> None:
    """After the time for the confirmation, and it is tried again."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.look()
        clock.seconds += 29
        await desk.limits.look()
        assert (await desk.row(name)).run.state is RunState.SUBMITTED
        clock.seconds += 2
        await desk.limits.look()
        one = (await desk.row(name)).run
        assert (one.state, one.error_kind) == (RunState.LOST, ErrorKind.LOST)
        assert desk.orchestrator.stops == [name]
        clock.seconds += 2
        assert await desk.launch(live) == ["reef-p000000-r000-a2"]


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNIMPLEMENTED"])
async def test_where_no_confirmation_can_come_none_is_waited_for(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestrator doesn't know the run and can't be asked for it, or can't stop any."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        monkeypatch.setattr(Reconciler, "can_ask", code != "NOT_FOUND")
        desk.orchestrator.stop_code = code
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.look()
        await desk.limits.look()
        assert (await desk.row(name)).run.state is RunState.LOST


async def test_a_run_at_its_limit_that_the_orchestrator_does_not_know_is_asked_for_first(tmp_path: Path) -> None:
    """It may have been wiped, see the tests of reconciliation; if that doesn't turn out, the run is lost."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "NOT_FOUND"
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.look()
        clock.seconds += 149
        await desk.limits.look()
        assert (await desk.row(name)).run.state is RunState.SUBMITTED
        clock.seconds += 2
        await desk.limits.look()
        assert (await desk.row(name)).run.state is RunState.LOST


async def test_a_stop_that_did_not_arrive_is_sent_again(tmp_path: Path) -> None:
    """An orchestrator that is away for a moment still confirms."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "UNAVAILABLE"
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.look()
        await desk.limits.look()
        assert desk.orchestrator.stops == [name]
        clock.seconds += 3
        desk.orchestrator.stop_code = "OK"
        await desk.limits.look()
        clock.seconds += 3
        await desk.limits.look()
        assert desk.orchestrator.stops == [name, name]
        assert (await desk.row(name)).run.state is RunState.SUBMITTED


async def test_a_run_that_can_not_be_told_to_stop_is_given_up_all_the_same(tmp_path: Path) -> None:
    """At the same time as one that was told."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "UNAVAILABLE"
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        for _ in range(13):
            await desk.limits.look()
            clock.seconds += 3
        assert (await desk.row(name)).run.state is RunState.LOST


async def test_the_limit_counts_from_the_start_not_from_the_queue(tmp_path: Path) -> None:
    """Time in the orchestrator's queue is dropped when the run starts."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 50
        await desk.hear("started", name)
        clock.seconds += 50
        await desk.limits.look()
        assert desk.orchestrator.stops == []


async def test_elapsed_time_is_kept_across_a_restart(tmp_path: Path) -> None:
    """What was counted before still counts; the time in between, and a jump of the wall clock, don't."""
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
        await desk.limits.look()
        assert desk.orchestrator.stops == []
        clock.seconds += 9
        await desk.limits.look()
        assert desk.orchestrator.stops == []
        clock.seconds += 2
        await desk.limits.look()
        assert desk.orchestrator.stops == [name]


async def test_elapsed_time_is_put_on_disk_by_and_by(tmp_path: Path) -> None:
    """A crash may lengthen a limit by half a minute at most."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        clock.seconds += 31
        await desk.limits.look()
        assert (await desk.row(name)).run.elapsed_ms == 31_000


async def test_a_stop_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    """It is on the run why; its confirmation means the same as before."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        [name] = await desk.launch(live)
        clock.seconds += 61
        await desk.limits.look()
    async with Desk.open(tmp_path, clock) as desk:
        await desk.limits.look()
        assert desk.orchestrator.stops == [name]
        await desk.hear("failed", name, error_kind="stopped")
        assert (await desk.row(name)).run.error_kind is ErrorKind.TIMEOUT


async def test_a_run_that_waits_to_be_submitted_has_no_limit(tmp_path: Path) -> None:
    """The orchestrator may be away for long."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        await desk.ledger.claim(live.key, 1)
        clock.seconds += 10_000
        await desk.limits.look()
        assert desk.orchestrator.stops == []


async def test_without_a_limit_of_the_plan_the_workers_counts(tmp_path: Path) -> None:
    """As the operator set it."""
    async with Desk.open(tmp_path, clock := Clock(), run_timeout_seconds=5.0) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        clock.seconds += 6
        await desk.limits.look()
        assert desk.orchestrator.stops == [name]


async def test_without_any_limit_a_run_takes_its_time_where_the_orchestrator_can_be_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't be asked, 3600 seconds; what it used before it turned out so counts."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 3500
        monkeypatch.setattr(Reconciler, "can_ask", False)
        await desk.limits.look()
        assert desk.orchestrator.stops == []
        clock.seconds += 101
        monkeypatch.setattr(Reconciler, "can_ask", True)
        await desk.limits.look()
        assert desk.orchestrator.stops == []
        monkeypatch.setattr(Reconciler, "can_ask", False)
        await desk.limits.look()
        assert desk.orchestrator.stops == [name]


async def test_metrics_are_waited_for_from_the_end_of_their_run_whatever_else_comes(tmp_path: Path) -> None:
    """Other metrics don't make the waiting longer; of several each has its own limit."""
    both = [{"name": name, "from": "event", "timeout_seconds": limit} for name, limit in (("a", 60), ("b", 100))]
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, metrics_to_track=both))
        one, other = await desk.launch(live)
        await desk.hear("completed", one)
        await desk.hear("completed", other)
        clock.seconds += 50
        await desk.hear("metrics", one, metrics={"step_1": 1})
        await desk.hear("metrics", other, metrics={"a": 1})
        clock.seconds += 11
        await desk.limits.look()
        assert (await desk.row(one)).run.waiting is Waiting.MISSING
        assert (await desk.row(other)).run.waiting is Waiting.AWAITING
        clock.seconds += 40
        await desk.limits.look()
        assert (await desk.row(other)).run.waiting is Waiting.MISSING


async def test_metrics_that_are_awaited_once_more_have_their_whole_time_again(tmp_path: Path) -> None:
    """After a retry."""
    late = [{"name": "a", "from": "event", "timeout_seconds": 60}]
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, metrics_to_track=late))
        [name] = await desk.launch(live)
        await desk.hear("completed", name)
        clock.seconds += 61
        await desk.limits.look()
        assert (await desk.row(name)).run.waiting is Waiting.MISSING
        await desk.ledger.retry(live.key, (-1, -1), 10)
        clock.seconds += 59
        await desk.limits.look()
        assert (await desk.row(name)).run.waiting is Waiting.AWAITING


async def test_an_unwanted_run_whose_stop_nobody_confirms_is_cancelled(tmp_path: Path) -> None:
    """Its experiment ends."""
    limits: dict[str, Any] = {"limits": {"max_attempts": 1, "fail_fast": True}}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **limits))
        one, other = await desk.launch(live)
        await desk.hear("failed", one)
        await desk.limits.look()
        assert desk.orchestrator.stops == [other]
        clock.seconds += 31
        await desk.limits.look()
        assert (await desk.row(other)).run.state is RunState.CANCELLED
        assert (await desk.report("reef"))["state"] == "failed"


async def test_a_stop_that_is_not_answered_keeps_no_other_run_from_its_limit(tmp_path: Path) -> None:
    """It is waited for beside the next looks, and not sent again meanwhile."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **LIMIT))
        first, second = await desk.launch(live)
        await desk.hear("started", first)
        clock.seconds += 30
        await desk.hear("started", second)
        answered, stop = asyncio.Event(), desk.orchestrator.stop

        async def slowly(simulation_id: str) -> str:
            code = await stop(simulation_id)
            if simulation_id == first:
                await answered.wait()
            return code

        with patch.object(desk.orchestrator, "stop", slowly), patch.object(limits, "_TICK_SECONDS", 0.01):
            clock.seconds += 31
            await desk.limits.look()
            assert desk.orchestrator.stops == [first]
            clock.seconds += 30
            await desk.limits.look()
            assert desk.orchestrator.stops == [first, second]
            answered.set()
            await wait.until(lambda: desk.count("ems_stops_total", reason="timeout") == 2)
            await desk.limits.look()
            assert desk.orchestrator.stops == [first, second]
