"""Time limits of runs: which time counts, and which limit applies."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker.core.lifecycle.run import Waiting
from ems_worker.service.reconcile import Reconciler
from tests.support.desk import Clock, Desk, plan

LIMIT: dict[str, Any] = {"limits": {"run_timeout_seconds": 60, "max_attempts": 2}}


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


async def test_no_time_counts_before_a_run_is_submitted(tmp_path: Path) -> None:
    """The orchestrator may be away for a long time."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, **LIMIT))
        await desk.claim(live, 1)
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
