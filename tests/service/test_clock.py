"""The wall clock is set back or forward: retries still start, and no limit gets shorter."""

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
MAX_PAUSE = job.MAX_BACKOFF_SECONDS * 1.5
FIRST, SECOND = "reef-p000000-r000-a1", "reef-p000000-r000-a2"


@pytest.fixture(autouse=True)
def short_sleeps() -> Iterator[None]:
    with patch.object(dispatch, "_MAX_SLEEP_SECONDS", 0.01):
        yield


async def failed(desk: Desk) -> None:
    """A run was started and has failed, and its retry is pending."""
    await desk.begin(plan(points=1))
    await wait.until(lambda: desk.orchestrator.sent == [FIRST])
    await desk.hear("failed", FIRST, error_kind="infrastructure")


async def dispatcher_checked(desk: Desk) -> None:
    """Returns when the dispatcher has looked for due runs at the present time of the clock."""
    checks, next_due = 0, desk.dispatcher.demands.next_due_ms

    def count(after_ms: int) -> int | None:
        nonlocal checks
        checks += 1
        return next_due(after_ms)

    with patch.object(desk.dispatcher.demands, "next_due_ms", count):
        await wait.until(lambda: checks > 2)


async def test_a_clock_that_was_set_back_only_for_a_while_delays_no_retry(tmp_path: Path) -> None:
    """The dispatcher slept until the retry was due while the clock was wrong."""
    async with Desk.open(tmp_path, clock := Clock()) as desk, background(desk.dispatcher.run()):
        await failed(desk)
        clock.set_by = -HOUR / 60
        await dispatcher_checked(desk)
        assert desk.orchestrator.sent == [FIRST]
        clock.set_by = 0.0
        clock.seconds += 2 * job.FIRST_BACKOFF_SECONDS
        await wait.until(lambda: desk.orchestrator.sent == [FIRST, SECOND])


@pytest.mark.parametrize("ahead", [0.0, 2 * HOUR], ids=["back", "forward and back"])
async def test_a_clock_that_was_set_back_delays_a_retry_by_no_more_than_the_longest_pause(
    tmp_path: Path, ahead: float
) -> None:
    """This holds after a restart, too, for due times that were recorded before."""
    clock = Clock(set_by=ahead)
    async with Desk.open(tmp_path, clock) as desk:
        async with background(desk.dispatcher.run()):
            await failed(desk)
    clock.set_by -= 2 * HOUR
    clock.seconds += 1
    async with Desk.open(tmp_path, clock) as desk, background(desk.dispatcher.run()):
        desk.dispatcher.set_behind(False)
        await dispatcher_checked(desk)
        assert desk.orchestrator.sent == []
        due_ms = (await desk.row(SECOND)).run.due_ms
        assert clock.now_ms() < due_ms <= clock.now_ms() + 1000 * MAX_PAUSE
        clock.seconds += MAX_PAUSE + 1
        await wait.until(lambda: desk.orchestrator.sent == [SECOND])


async def test_a_due_time_within_the_longest_pause_is_kept(tmp_path: Path) -> None:
    """The manifest changes only later due times."""
    async with Desk.open(tmp_path) as desk, background(desk.dispatcher.run()):
        await failed(desk)
        before = (await desk.row(SECOND)).run.due_ms
        await dispatcher_checked(desk)
        assert (await desk.row(SECOND)).run.due_ms == before
        assert await desk.manifest.hasten(before) == 0
        assert await desk.manifest.hasten(before - 1) == 1
        assert (await desk.row(SECOND)).run.due_ms == before - 1


async def test_a_clock_set_forward_stops_no_run_and_drops_no_parked_event(tmp_path: Path) -> None:
    """Both times are measured on the monotonic clock."""
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


async def test_parked_events_of_an_earlier_process_have_their_full_time_limit_again(tmp_path: Path) -> None:
    """The clock may have been set between the two processes."""
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


def test_steady_time_follows_only_the_monotonic_clock() -> None:
    """Setting the wall clock doesn't change it."""
    clock = Clock()
    before, steady = clock.now_ms(), Steady(clock)
    clock.set_by = -HOUR
    clock.seconds += 5
    assert (steady.now_ms(), steady.seconds) == (before + 5000, 5.0)


async def test_a_stranded_run_is_found_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """No command is under way for it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        await desk.claim(live, 1)
        clock.set_by = -HOUR
        clock.seconds += 21
        assert len(desk.services.reconciler.stranded()) == 1


async def test_a_wiped_orchestrator_is_detected_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """By the clock, the run that it knows is older than the run that it lost. Still no attempt is lost."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        [old] = await desk.launch(live, 1)
        await desk.ledger.flush()
    clock.set_by = -HOUR
    async with Desk.open(tmp_path, clock) as desk:
        recovered = desk.ledger.live("reef")
        assert recovered is not None
        [new] = await desk.launch(recovered, 1)
        desk.orchestrator.known = {old: None, new: Signal(RunEvent.START)}
        again = []
        for _ in range(3):
            clock.seconds += INTERVAL_SECONDS + 1
            again += await desk.services.reconciler.query()
        assert [run.point for _, run in again][:1] == [0]
        assert (await desk.row(old)).run.state is RunState.SUBMITTED
