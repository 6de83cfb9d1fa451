"""What ends an open run whose job was cancelled: its own end, a confirmed STOP, or a deadline with a reason."""

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import ErrorKind, Signal, StopReason
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.core.wire import Control, Controlled
from ems_worker.service import limits
from ems_worker.service.ledger.live import Live
from tests.support import pausing
from tests.support.desk import Clock, Desk, plan

NAME = "reef-p000000-r000-a1"


async def cancelled(desk: Desk, *, drain: bool = False) -> Live:
    """An experiment that is cancelled while its only job runs, with a limit of a minute and three attempts."""
    live = await desk.begin(plan(points=1, limits={"run_timeout_seconds": 60}))
    [name] = await desk.launch(live)
    await desk.hear("started", name)
    assert (await desk.steer("cancel", drain=drain))["applied"] is False
    return live


async def ended(desk: Desk, live: Live) -> tuple[RunState, ErrorKind | None, str | None]:
    """How the run ended: without another attempt, the experiment with it, and the change is applied."""
    assert await pausing.unapplied(desk, live) == []
    assert (await desk.report("reef"))["state"] == "cancelled"
    [row] = await desk.rows("reef")
    return row.run.state, row.run.error_kind, row.run.error_message


async def test_a_confirmed_stop_cancels_the_run(tmp_path: Path) -> None:
    """The change is applied when the end of the last run is confirmed, not before."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await cancelled(desk)
        await desk.limits.check()
        clock.seconds += 29
        await desk.limits.check()
        assert desk.orchestrator.stops == [NAME]
        assert await pausing.unapplied(desk, live) == ["cancel"]
        await desk.hear("failed", NAME, error_kind="stopped")
        assert await ended(desk, live) == (RunState.CANCELLED, ErrorKind.STOPPED, None)


@pytest.mark.parametrize("code", ["OK", "UNAVAILABLE", "INTERNAL", "PERMISSION_DENIED"])
async def test_a_stop_that_is_not_confirmed_in_time_leaves_the_run_lost(tmp_path: Path, code: str) -> None:
    """Whatever its answer was, also with an orchestrator that is away for ever. People see why."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = code
        live = await cancelled(desk)
        for _ in range(30):
            await desk.limits.check()
            assert live.open == 1
            clock.seconds += 1
        await desk.limits.check()
        assert await ended(desk, live) == (
            RunState.LOST,
            ErrorKind.LOST,
            "cancelled, and its end was not confirmed",
        )


async def test_a_stop_that_is_never_answered_leaves_the_run_lost(tmp_path: Path) -> None:
    """The deadline counts from the moment at which it was sent."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:

        async def for_ever(simulation_id: str, action: Control) -> Controlled:
            await asyncio.Event().wait()
            raise AssertionError

        with patch.object(desk.orchestrator, "control", for_ever), patch.object(limits, "_TICK_SECONDS", 0.01):
            live = await cancelled(desk)
            await desk.limits.check()
            clock.seconds += 29
            await desk.limits.check()
            assert live.open == 1
            clock.seconds += 2
            await desk.limits.check()
        state, _, message = await ended(desk, live)
        assert (state, message) == (RunState.LOST, "cancelled, and its end was not confirmed")


async def test_the_deadline_begins_anew_after_a_restart(tmp_path: Path) -> None:
    """The next worker sends STOP again."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await cancelled(desk)
        await desk.limits.check()
        clock.seconds += 29
    async with Desk.open(tmp_path, clock) as desk:
        [live] = desk.ledger.experiments()
        await desk.limits.check()
        clock.seconds += 29
        await desk.limits.check()
        assert (live.open, desk.orchestrator.stops) == (1, [NAME])
        clock.seconds += 2
        await desk.limits.check()
        assert (await ended(desk, live))[0] is RunState.LOST


async def test_without_an_implementation_of_stop_the_run_is_lost_at_once(tmp_path: Path) -> None:
    """No confirmation can follow. Its end, if it is reported later, still counts."""
    async with Desk.open(tmp_path) as desk:
        desk.orchestrator.stop_code = "UNIMPLEMENTED"
        live = await cancelled(desk)
        await desk.limits.check()
        await desk.limits.check()
        assert await ended(desk, live) == (
            RunState.LOST,
            ErrorKind.LOST,
            "cancelled, and the orchestrator doesn't implement STOP",
        )
        await desk.hear("completed", NAME, metrics={"population": 1})
        assert (await desk.row(NAME)).run.state is RunState.COMPLETED
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["completed"]) == ("cancelled", 1)


async def test_a_run_that_the_orchestrator_does_not_know_is_cancelled_at_once(tmp_path: Path) -> None:
    """Reconciliation isn't awaited: nobody wants its result."""
    async with Desk.open(tmp_path) as desk:
        desk.orchestrator.stop_code = "NOT_FOUND"
        live = await cancelled(desk)
        await desk.limits.check()
        await desk.limits.check()
        assert await ended(desk, live) == (RunState.CANCELLED, None, None)


async def test_a_straggler_that_cannot_be_stopped_says_so(tmp_path: Path) -> None:
    """The words name the reason for its STOP."""
    async with Desk.open(tmp_path) as desk:
        desk.orchestrator.stop_code = "UNIMPLEMENTED"
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        await desk.ledger.ask_to_stop([((live.key, 0, 0, 1), StopReason.STRAGGLER)])
        await desk.limits.check()
        await desk.limits.check()
        lost = (await desk.row(NAME)).run
        assert (lost.state, lost.current) == (RunState.LOST, True)
        assert lost.error_message == "cancelled as a straggler, and the orchestrator doesn't implement STOP"
        assert live.tally.ended == 1


@pytest.mark.parametrize("error_kind", [None, "simulation"])
async def test_a_draining_run_ends_by_itself(tmp_path: Path, error_kind: str | None) -> None:
    """It gets no STOP, and a failure no other attempt."""
    async with Desk.open(tmp_path) as desk:
        live = await cancelled(desk, drain=True)
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        assert await pausing.unapplied(desk, live) == ["cancel"]
        if error_kind is None:
            await desk.hear("completed", NAME, metrics={"population": 1})
        else:
            await desk.hear("failed", NAME, error_kind=error_kind, retryable=True)
        state, kind, _ = await ended(desk, live)
        assert (state, kind) == (RunState.FAILED if error_kind else RunState.COMPLETED, error_kind)


async def test_a_draining_run_is_stopped_at_its_time_limit(tmp_path: Path) -> None:
    """It gets no other attempt, whether its end is confirmed or not."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await cancelled(desk, drain=True)
        clock.seconds += 59
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        clock.seconds += 2
        await desk.limits.check()
        assert desk.orchestrator.stops == [NAME]
        clock.seconds += 31
        await desk.limits.check()
        assert await ended(desk, live) == (
            RunState.LOST,
            ErrorKind.LOST,
            "passed its time limit, and its end was not confirmed",
        )


async def test_a_draining_run_is_stopped_by_a_second_cancellation_without_drain(tmp_path: Path) -> None:
    """Nobody has to wait for its end."""
    async with Desk.open(tmp_path) as desk:
        live = await cancelled(desk, drain=True)
        await desk.steer("cancel")
        await desk.limits.check()
        assert desk.orchestrator.stops == [NAME]
        await desk.hear("failed", NAME, error_kind="stopped")
        assert await ended(desk, live) == (RunState.CANCELLED, ErrorKind.STOPPED, None)


@pytest.mark.parametrize("known", [Signal(RunEvent.ACCEPT), Signal(RunEvent.START), None])
async def test_a_draining_run_whose_command_may_not_have_arrived_is_asked_for(
    tmp_path: Path, known: Signal | None
) -> None:
    """It isn't sent again. If the orchestrator has it, it may end by itself, else it is cancelled."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        await desk.launch(live, 1)
        await desk.claim(live, 1)
        await desk.steer("cancel", drain=True)
        asked = "reef-p000001-r000-a1"
        # It knows a run that is older than the one in question: it wasn't wiped.
        desk.orchestrator.known = {NAME: Signal(RunEvent.START), asked: known}
        for _ in range(3):
            clock.seconds += 31
            assert await desk.services.reconciler.query() == []
        await desk.limits.check()
        assert desk.orchestrator.sent == [NAME]
        if known is None:
            assert desk.orchestrator.stops == [asked]
            desk.orchestrator.stop_code = "NOT_FOUND"
            clock.seconds += 31
            await desk.limits.check()
            assert (await desk.row(asked)).run.ended
        else:
            assert desk.orchestrator.stops == []
            assert (await desk.row(asked)).run.state in (RunState.SUBMITTED, RunState.RUNNING)
            await desk.hear("completed", asked, metrics={"population": 1})
        await desk.hear("completed", NAME, metrics={"population": 1})
        assert await pausing.unapplied(desk, live) == []


async def test_a_draining_run_that_cannot_be_asked_for_is_stopped_if_its_command_may_not_have_arrived(
    tmp_path: Path,
) -> None:
    """Otherwise it would stay open for ever: it has no time limit before it is submitted."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        await desk.claim(live, 1)
        await desk.steer("cancel", drain=True)
        for _ in range(2):
            await desk.limits.check()
            assert desk.orchestrator.stops == []
            clock.seconds += 31
            await desk.services.reconciler.query()
        desk.orchestrator.stop_code = "NOT_FOUND"
        await desk.limits.check()
        await desk.limits.check()
        assert desk.orchestrator.stops == [NAME]
        assert await ended(desk, live) == (RunState.CANCELLED, None, None)


@pytest.mark.parametrize(("drain", "open_jobs"), [(False, 0), (True, 120)])
async def test_jobs_that_wait_for_metrics_are_called_off_a_page_at_a_time(
    tmp_path: Path, drain: bool, open_jobs: int
) -> None:
    """Each page is read once, also where its jobs go on waiting."""
    late = {"name": "growth", "from": "event", "timeout_seconds": 100_000}
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=120, metrics_to_track=["population", late]))
        await desk.complete(await desk.launch(live), range(120))
        reply = await desk.steer("cancel", drain=drain)
        assert sum(sum(after.values()) for after in reply["counts"].values()) == 120
        assert desk.manifest.counters.reads["awaiting_jobs"] == 4
        assert live.recorded.total - live.recorded.ended == open_jobs
