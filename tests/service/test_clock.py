"""The wall clock is set, back or forward: retries come all the same, and no limit gets shorter."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle import job
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.service import dispatch
from ems_worker.service.base.clock import Steady
from ems_worker.service.reconcile import INTERVAL_SECONDS
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan

HOUR = 3600.0
LONGEST = job.MAX_BACKOFF_SECONDS * 1.5
FIRST, SECOND = "reef-p000000-r000-a1", "reef-p000000-r000-a2"


@pytest.fixture(autouse=True)
def short_sleeps() -> Iterator[None]:
    with patch.object(dispatch, "_MAX_SLEEP_SECONDS", 0.01):
        yield


async def failed(desk: Desk) -> None:
    """One run was started, and failed: it is to be tried again."""
    await desk.begin(plan(points=1))
    await wait.until(lambda: desk.orchestrator.sent == [FIRST])
    await desk.hear("failed", FIRST, error_kind="infrastructure")


async def looked(desk: Desk) -> None:
    """The dispatcher has looked for due runs, with the clock as it is now."""
    looks, next_due = 0, desk.manifest.next_due_ms

    async def count(after_ms: int) -> int | None:
        nonlocal looks
        looks += 1
        return await next_due(after_ms)

    with patch.object(desk.manifest, "next_due_ms", count):
        await wait.until(lambda: looks > 2)


async def test_a_clock_that_is_right_again_has_delayed_nothing(tmp_path: Path) -> None:
    """It was set back for a while, with the dispatcher asleep for a retry."""
    async with Desk.open(tmp_path, clock := Clock()) as desk, background(desk.dispatcher.run()):
        await failed(desk)
        clock.set_by = -HOUR / 60
        await looked(desk)
        assert desk.orchestrator.sent == [FIRST]
        clock.set_by = 0.0
        clock.seconds += 2 * job.FIRST_BACKOFF_SECONDS
        await wait.until(lambda: desk.orchestrator.sent == [FIRST, SECOND])


@pytest.mark.parametrize("ahead", [0.0, 2 * HOUR], ids=["back", "forward and back"])
async def test_a_clock_that_was_set_back_delays_a_retry_by_no_more_than_the_longest_pause(
    tmp_path: Path, ahead: float
) -> None:
    """Whatever is on disk from before, also if the worker is started anew."""
    clock = Clock(set_by=ahead)
    async with Desk.open(tmp_path, clock) as desk:
        async with background(desk.dispatcher.run()):
            await failed(desk)
    clock.set_by -= 2 * HOUR
    clock.seconds += 1
    async with Desk.open(tmp_path, clock) as desk, background(desk.dispatcher.run()):
        desk.dispatcher.set_behind(False)
        await looked(desk)
        assert desk.orchestrator.sent == []
        due_ms = (await desk.row(SECOND)).run.due_ms
        assert clock.now_ms() < due_ms <= clock.now_ms() + 1000 * LONGEST
        clock.seconds += LONGEST + 1
        await wait.until(lambda: desk.orchestrator.sent == [SECOND])


async def test_a_pause_that_is_in_its_time_stays_as_it_is(tmp_path: Path) -> None:
    """And runs of paused experiments are left alone."""
    async with Desk.open(tmp_path) as desk, background(desk.dispatcher.run()):
        await failed(desk)
        before = (await desk.row(SECOND)).run.due_ms
        await looked(desk)
        assert (await desk.row(SECOND)).run.due_ms == before
        assert await desk.manifest.hasten(before) == 0
        assert await desk.manifest.hasten(before - 1) == 1
        assert (await desk.row(SECOND)).run.due_ms == before - 1


async def test_a_clock_set_forward_stops_no_run_and_drops_no_parked_event(tmp_path: Path) -> None:
    """Both are measured in time that passes."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, limits={"run_timeout_seconds": 60}))
        await desk.launch(live)
        await desk.hear("started", FIRST)
        await desk.hear("started", "unknown")
        clock.seconds += 50
        clock.set_by = 24 * HOUR
        await desk.limits.check()
        await desk.tracker.retry_parked(desk.tracker.parked_since_ms(60))
        assert desk.orchestrator.stops == []
        assert desk.tracker.parked
        clock.set_by = -24 * HOUR
        clock.seconds += 11
        await desk.limits.check()
        await desk.tracker.retry_parked(desk.tracker.parked_since_ms(60))
        assert desk.orchestrator.stops == [FIRST]
        assert not desk.tracker.parked


async def test_parked_events_of_an_earlier_process_have_their_whole_time_again(tmp_path: Path) -> None:
    """Between the two the clock may have been set."""
    clock = Clock()
    async with Desk.open(tmp_path, clock) as desk:
        await desk.hear("started", "unknown")
    clock.set_by = 24 * HOUR
    async with Desk.open(tmp_path, clock) as desk:
        clock.seconds += 59
        await desk.tracker.retry_parked(desk.tracker.parked_since_ms(60))
        assert desk.tracker.parked
        clock.seconds += 2
        await desk.tracker.retry_parked(desk.tracker.parked_since_ms(60))
        assert not desk.tracker.parked


def test_steady_time_is_that_of_its_making_moved_on() -> None:
    """Whatever becomes of the wall clock."""
    clock = Clock()
    before, steady = clock.now_ms(), Steady(clock)
    clock.set_by = -HOUR
    clock.seconds += 5
    assert (steady.now_ms(), steady.seconds) == (before + 5000, 5.0)


async def test_a_stranded_run_is_found_by_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """No command is under way for it, and nobody else would send it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        await desk.ledger.claim(live.key, 1)
        one = desk.services.reconciler
        clock.set_by = -HOUR
        clock.seconds += 21
        assert len(one.stranded()) == 1


async def test_a_clock_that_was_set_back_makes_no_wiped_orchestrator_look_like_one_that_lost_a_run(
    tmp_path: Path,
) -> None:
    """It knows what it was given since: by the clock that is older than what it lacks. That costs no attempt."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        [old] = await desk.launch(live, 1)
    clock.set_by = -HOUR
    async with Desk.open(tmp_path, clock) as desk:
        found = desk.ledger.live("reef")
        assert found is not None
        [new] = await desk.launch(found, 1)
        one = desk.services.reconciler
        desk.orchestrator.known = {old: None, new: Signal(RunEvent.START)}
        again = []
        for _ in range(3):
            clock.seconds += INTERVAL_SECONDS + 1
            again += await one.query()
        assert [run.point for _, run in again][:1] == [0]
        assert (await desk.row(old)).run.state is RunState.SUBMITTED
