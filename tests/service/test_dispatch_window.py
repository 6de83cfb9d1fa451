"""The run window: how many runs may be open, which experiments share it, and when it is filled."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

from ems_worker.adapters.manifest import Manifest
from tests.support import wait
from tests.support.desk import Clock, Desk, plan, quiet
from tests.support.dispatching import sent, working
from tests.support.played import capacity


async def test_the_window_is_filled_and_never_exceeded(tmp_path: Path) -> None:
    """Each run that ends is replaced with another run."""
    async with working(tmp_path, run_window=3) as desk:
        live = await desk.begin(plan(points=8))
        await wait.until(lambda: len(desk.orchestrator.sent) == 3)
        for ended in range(8):
            assert live.open <= 3
            await desk.hear("completed", f"reef-p{ended:06d}-r000-a1")
            await sent(desk, min(8, ended + 4))
        await quiet(desk)
        assert sorted(desk.orchestrator.sent) == [f"reef-p{point:06d}-r000-a1" for point in range(8)]
        assert (await desk.report("reef"))["state"] == "completed"


async def test_max_concurrent_limits_one_experiment_only(tmp_path: Path) -> None:
    """Other experiments get the rest of the window."""
    async with working(tmp_path, run_window=10) as desk:
        small = await desk.begin(plan("small", points=9, limits={"max_concurrent": 2}))
        other = await desk.begin(plan("other", points=20))
        await wait.until(lambda: desk.ledger.open == 10)
        await quiet(desk)
        assert (small.open, other.open) == (2, 8)


async def test_the_window_is_the_orchestrators_slots(tmp_path: Path) -> None:
    """Nothing is sent before they are reported, and additional slots are used at once."""
    async with working(tmp_path, run_window=None) as desk:
        await desk.begin(plan(points=20))
        await quiet(desk)
        assert desk.orchestrator.sent == []
        desk.orchestrator.capacities.put_nowait(capacity(2))
        await wait.until(lambda: len(desk.orchestrator.sent) == 2)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == 2
        desk.orchestrator.capacities.put_nowait(capacity(5))
        await wait.until(lambda: len(desk.orchestrator.sent) == 5)
        assert desk.count("ems_run_window") == 5


async def test_a_higher_priority_goes_first(tmp_path: Path) -> None:
    """Other experiments get the part of the window that it can't use, and open runs continue."""
    async with working(tmp_path, run_window=4) as desk:
        low = await desk.begin(plan("low", points=20))
        await wait.until(lambda: low.open == 4)
        high = await desk.begin(plan("high", points=3, limits={"priority": 1}))
        for ended in range(4):
            await desk.hear("completed", f"low-p{ended:06d}-r000-a1")
        await wait.until(lambda: (high.open, low.open) == (3, 1))


async def test_the_slots_stay_known_while_the_orchestrator_is_away(tmp_path: Path) -> None:
    """When it is back it gets no more runs than it has slots."""
    async with working(tmp_path, run_window=None) as desk:
        desk.orchestrator.capacities.put_nowait(capacity(2))
        await desk.begin(plan(points=20))
        await wait.until(lambda: len(desk.orchestrator.sent) == 2)
        desk.orchestrator.capacities.put_nowait(None)
        await wait.until(desk.orchestrator.capacities.empty)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == 2


@pytest.mark.parametrize("ready", [True, False])
async def test_the_window_is_256_if_the_slots_are_not_reported(tmp_path: Path, ready: bool) -> None:
    """This default applies at once if the orchestrator is reachable, else some time after it has become so."""
    async with working(tmp_path, run_window=None) as desk:
        desk.orchestrator.is_ready = ready
        desk.orchestrator.capacities.put_nowait(None)
        live = await desk.begin(plan(points=300))
        if not ready:
            await quiet(desk)
            assert live.open == 0
            desk.orchestrator.is_ready = True
        await wait.until(lambda: live.open == 256)


async def test_slots_that_are_reported_late_count(tmp_path: Path) -> None:
    """An orchestrator that was away at first reports them once it is reachable."""
    async with working(tmp_path, run_window=None) as desk:
        desk.orchestrator.is_ready = False
        desk.orchestrator.capacities.put_nowait(None)
        live = await desk.begin(plan(points=9))
        desk.orchestrator.capacities.put_nowait(capacity(4))
        desk.orchestrator.is_ready = True
        await wait.until(lambda: live.open == 4)
        await quiet(desk)
        assert live.open == 4


async def test_a_configured_window_is_kept(tmp_path: Path) -> None:
    """The orchestrator's report doesn't change it."""
    async with working(tmp_path, run_window=3) as desk:
        desk.orchestrator.capacities.put_nowait(capacity(100))
        live = await desk.begin(plan(points=9))
        await wait.until(lambda: live.open == 3)
        await quiet(desk)
        assert live.open == 3


async def test_the_cost_of_filling_the_window_does_not_grow_with_the_number_of_experiments(tmp_path: Path) -> None:
    """The manifest is read and written as often for twenty experiments as for two, once each has been looked at."""
    reads: Counter[str] = Counter()

    class CountedManifest:
        """Passes everything on to the manifest, and counts the methods that are used."""

        def __init__(self, manifest: Manifest) -> None:
            self._manifest = manifest

        def __getattr__(self, name: str) -> Any:
            reads[name] += 1
            return getattr(self._manifest, name)

    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        desk = Desk(tmp_path, cast("Manifest", CountedManifest(manifest)), Clock(), run_window=1)
        costs = []
        for count in (2, 20):
            while len(desk.ledger.experiments()) < count:
                await desk.begin(plan(f"reef{len(desk.ledger.experiments())}", points=9))
            for _ in range(count):
                reads.clear()
                async with asyncio.TaskGroup() as group:
                    assert await desk.dispatcher.fill(group)
                costs.append(dict(reads))
                await desk.hear("completed", desk.orchestrator.sent[-1])
        assert costs[1] == costs[-1]
        assert costs[-1]["due"] == costs[-1]["save"] == 1


async def test_the_dispatcher_wakes_by_itself_when_a_retry_becomes_due(tmp_path: Path) -> None:
    """It sleeps until the next due time."""

    class RunningClock(Clock):
        def now_ms(self) -> int:
            return super().now_ms() + round(1000 * asyncio.get_running_loop().time())

    async with working(tmp_path, clock=RunningClock()) as desk:
        with patch("ems_worker.core.lifecycle.job.FIRST_BACKOFF_SECONDS", 0.1):
            await desk.begin(plan(points=1))
            await wait.until(lambda: desk.orchestrator.sent)
            await quiet(desk)
            await desk.hear("failed", "reef-p000000-r000-a1", error_kind="infrastructure")
            await wait.until(lambda: len(desk.orchestrator.sent) == 2)
            assert desk.orchestrator.sent[1] == "reef-p000000-r000-a2"


async def test_no_run_is_started_while_a_backlog_of_events_waits(tmp_path: Path) -> None:
    """Runs are started once the events are applied."""
    async with working(tmp_path) as desk:
        desk.dispatcher.set_behind(True)
        await desk.begin(plan(points=2))
        await quiet(desk)
        assert desk.orchestrator.sent == []
        desk.dispatcher.set_behind(False)
        await wait.until(lambda: len(desk.orchestrator.sent) == 2)


async def test_a_cancellation_together_with_a_wake_up_ends_the_dispatcher(tmp_path: Path) -> None:
    """The cancellation isn't lost."""
    async with Desk.open(tmp_path) as desk:
        for _ in range(20):
            task = asyncio.create_task(desk.dispatcher.run())
            await quiet(desk)
            desk.dispatcher.wake()
            task.cancel()
            async with asyncio.timeout(2):
                with pytest.raises(asyncio.CancelledError):
                    await task
