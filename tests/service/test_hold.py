"""`ems-worker run --hold`: everything but starts, until `ems resume --all`."""

import asyncio
import json
from pathlib import Path
from typing import Any

from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service.reconcile import INTERVAL_SECONDS
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan, quiet
from tests.support.dispatching import working

REASON = "this worker holds all runs back since its start: `ems resume --all` starts them"


async def resume_all(desk: Desk, **more: Any) -> dict[str, Any]:
    """The reply to `ems resume --all`."""
    request = {"request_id": "release", "all": True, **more}
    document: dict[str, Any] = json.loads(
        await desk.services.control.handlers()["resume"](json.dumps(request).encode())
    )
    return document


async def test_a_worker_on_hold_accepts_and_expands_and_starts_nothing(tmp_path: Path) -> None:
    """Statuses say why. After its release it starts all but what is paused otherwise."""
    async with working(tmp_path, hold=True) as desk:
        live = await desk.begin(plan(points=3))
        paused = await desk.begin(plan("paused", hold=True))
        desk.dispatcher.wake()
        await quiet(desk)
        assert (live.expanded, live.open, desk.orchestrator.sent) == (True, 0, [])
        assert (await desk.report("reef"))["reason"] == REASON
        assert (await desk.report("paused"))["reason"] == "its plan holds it back until `resume`"
        assert (await resume_all(desk, dry_run=True))["resumed"] is True
        await quiet(desk)
        assert desk.orchestrator.sent == []
        assert (await resume_all(desk))["resumed"] is True
        await wait.until(lambda: live.open == 3)
        await quiet(desk)
        assert (paused.open, (await desk.report("paused"))["state"]) == (0, "paused")
        assert (await desk.report("reef"))["reason"] is None
        assert (await resume_all(desk))["resumed"] is False


async def test_a_worker_without_hold_has_nothing_to_release(tmp_path: Path) -> None:
    """The reply says so."""
    async with Desk.open(tmp_path) as desk:
        assert desk.dispatcher.hold_reason is None
        assert (await resume_all(desk))["resumed"] is False


async def test_commands_that_an_earlier_worker_may_not_have_sent_wait_for_the_release(tmp_path: Path) -> None:
    """Runs that were cancelled meanwhile are stopped and not sent."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        await desk.claim(live, 2)
    async with Desk.open(tmp_path, clock, hold=True) as desk:
        assert len(desk.unsent) == 2
        async with background(desk.submitter.resend(desk.unsent)):
            reconciler = desk.services.reconciler
            clock.seconds += 100
            await reconciler.resend(reconciler.stranded())
            assert desk.orchestrator.sent == []
            await desk.steer("cancel", where="food == 0")
            desk.orchestrator.stop_code = "NOT_FOUND"
            await desk.limits.check()
            await desk.limits.check()
            cancelled, other = "reef-p000000-r000-a1", "reef-p000001-r000-a1"
            assert desk.orchestrator.stops == [cancelled]
            assert (await desk.row(cancelled)).run.state is RunState.CANCELLED
            assert desk.dispatcher.release()
            await wait.until(lambda: desk.orchestrator.sent and not desk.submitter.sending)
            assert desk.orchestrator.sent == [other]


async def test_runs_that_a_wiped_orchestrator_has_forgotten_wait_for_the_release(tmp_path: Path) -> None:
    """Their time doesn't count meanwhile."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1, limits={"run_timeout_seconds": 300})))
        await desk.hear("started", name)
    async with Desk.open(tmp_path, clock, hold=True) as desk:
        desk.orchestrator.known = {name: None}
        reconciler = desk.services.reconciler

        async def reconcile() -> None:
            clock.seconds += INTERVAL_SECONDS
            await reconciler.resend(await reconciler.query())

        for _ in range(20):
            await reconcile()
            await desk.limits.check()
        assert (desk.orchestrator.sent, desk.orchestrator.stops) == ([], [])
        desk.dispatcher.release()
        for _ in range(2):
            await reconcile()
        assert desk.orchestrator.sent == [name]


async def test_open_runs_go_on_while_the_worker_is_held(tmp_path: Path) -> None:
    """Their events are heard, and their limits apply."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, limits={"run_timeout_seconds": 60}))
        done, slow = await desk.launch(live)
        await desk.ledger.flush()
    async with Desk.open(tmp_path, clock, hold=True) as desk, asyncio.TaskGroup() as group:
        await desk.hear("completed", done, metrics={"population": 1})
        assert (await desk.row(done)).run.state is RunState.COMPLETED
        clock.seconds += 61
        await desk.limits.check()
        assert desk.orchestrator.stops == [slow]
        await desk.hear("failed", slow, error_kind="stopped")
        clock.seconds += 60
        assert await desk.dispatcher.fill(group) is False
        desk.dispatcher.release()
        assert await desk.dispatcher.fill(group) is True
