"""PAUSE and RESUME with an orchestrator that is away, slow or wiped, and with a worker that dies."""

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core.wire import Control, Controlled
from ems_worker.service import suspend
from ems_worker.service.reconcile import INTERVAL_SECONDS
from tests.support import deaths, pausing, wait
from tests.support.desk import Clock, Desk


@pytest.mark.parametrize("code", ["OK", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"])
async def test_a_run_that_the_orchestrator_does_not_have_paused_is_not_suspended_any_more(
    tmp_path: Path, code: str
) -> None:
    """Its limit counts again, whatever became of it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.suspended(desk)
        desk.orchestrator.pause_code = code
        await desk.steer("resume")
        await desk.suspension.check()
        await desk.suspension.check()
        assert desk.orchestrator.controls[1:] == [(Control.RESUME, name)]
        assert not (await desk.row(name)).run.suspended
        clock.seconds += 61
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_pause_and_resume_are_sent_again_until_they_are_answered(tmp_path: Path) -> None:
    """Meanwhile the status says so."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live, [name] = await pausing.running(desk)
        for verb, control, words in (("pause", Control.PAUSE, "pause"), ("resume", Control.RESUME, "resume")):
            desk.orchestrator.controls.clear()
            desk.orchestrator.pause_code = "INTERNAL"
            await (desk.steer("pause", now=True) if verb == "pause" else desk.steer("resume"))
            await desk.suspension.check()
            await desk.suspension.check()
            assert desk.orchestrator.controls == [(control, name)]
            assert (await desk.report("reef"))["reason"].endswith(f"didn't {words} 1 run yet: INTERNAL")
            assert await pausing.unapplied(desk, live) == [verb]
            desk.orchestrator.pause_code = "OK"
            clock.seconds += 2
            await desk.suspension.check()
            assert desk.orchestrator.controls == [(control, name)] * 2
            assert (await desk.row(name)).run.suspended == (verb == "pause")
            reason = "paused by a person" if verb == "pause" else None
            assert (await desk.report("reef"))["reason"] == reason


async def test_a_pause_that_was_resumed_before_its_answer_is_undone(tmp_path: Path) -> None:
    """It may have arrived, although its answer was lost."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.running(desk)
        desk.orchestrator.pause_code = "DEADLINE_EXCEEDED"
        await desk.steer("pause", now=True)
        await desk.suspension.check()
        await desk.steer("resume")
        desk.orchestrator.pause_code = "OK"
        clock.seconds += 2
        await desk.suspension.check()
        await desk.suspension.check()
        assert desk.orchestrator.controls == [(Control.PAUSE, name), (Control.RESUME, name)]


async def test_an_unanswered_pause_delays_no_other_one(tmp_path: Path) -> None:
    """A limited number is under way at once, and none is sent twice."""
    async with Desk.open(tmp_path) as desk:
        _, names = await pausing.running(desk, 40)
        answered, control = asyncio.Event(), desk.orchestrator.control

        async def slowly(simulation_id: str, action: Control) -> Controlled:
            answer = await control(simulation_id, action)
            if simulation_id in names[:31]:
                await answered.wait()
            return answer

        async def recorded(count: int) -> bool:
            return sum(row.run.suspended for row in await desk.rows("reef")) == count

        with patch.object(desk.orchestrator, "control", slowly), patch.object(suspend, "_TICK_SECONDS", 0.05):
            await desk.steer("pause", now=True)
            await desk.suspension.check()
            await wait.until(lambda: recorded(9))
            await desk.suspension.check()
            assert len(desk.orchestrator.controls) == 40
            answered.set()
            await wait.until(lambda: recorded(40))
            await desk.suspension.check()
            assert len(desk.orchestrator.controls) == 40


async def test_a_suspended_run_that_the_orchestrator_has_forgotten_starts_again_after_the_pause(
    tmp_path: Path,
) -> None:
    """An orchestrator that was wiped costs no attempt, and nothing starts while the experiment is paused."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.suspended(desk)
        desk.orchestrator.known = {name: None}
        desk.orchestrator.pause_code = "NOT_FOUND"
        reconciler = desk.services.reconciler
        for _ in range(3):
            clock.seconds += INTERVAL_SECONDS
            await reconciler.resend(await reconciler.query())
        assert desk.orchestrator.sent == [name]
        assert not (await desk.row(name)).run.suspended
        await desk.steer("resume")
        for _ in range(2):
            clock.seconds += INTERVAL_SECONDS
            await reconciler.resend(await reconciler.query())
        assert desk.orchestrator.sent == [name, name]


@pytest.mark.parametrize("resumed", [False, True])
async def test_suspended_runs_are_known_after_a_restart(tmp_path: Path, resumed: bool) -> None:
    """Their time stands still, and they are resumed with their experiment, also if that was the last worker's end."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.suspended(desk)
        if resumed:
            await desk.steer("resume")
    clock.seconds += 10_000
    async with Desk.open(tmp_path, clock) as desk:
        clock.seconds += 10_000
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        await desk.suspension.check()
        if not resumed:
            assert desk.orchestrator.controls == []
            await desk.steer("resume")
            await desk.suspension.check()
        assert desk.orchestrator.controls == [(Control.RESUME, name)]
        assert not (await desk.row(name)).run.suspended


async def test_a_death_after_the_answer_to_a_pause_repeats_it(tmp_path: Path) -> None:
    """The run is recorded as suspended then, and the change is applied."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await pausing.running(desk)
        await desk.steer("pause", now=True)
        with deaths.at("suspend.paused") as fate:
            await desk.suspension.check()
        assert fate.died
    async with Desk.open(tmp_path, clock) as desk:
        [live] = desk.ledger.experiments()
        assert await pausing.unapplied(desk, live) == ["pause"]
        await desk.suspension.check()
        assert [row.run.suspended for row in await desk.rows("reef")] == [True]
        assert await pausing.unapplied(desk, live) == []


@pytest.mark.parametrize("after_restart", [True, False])
async def test_a_pause_that_was_not_recorded_before_a_death_is_undone(tmp_path: Path, after_restart: bool) -> None:
    """A run that the orchestrator has paused would stand still for ever, whenever its experiment was resumed."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.running(desk)
        await desk.steer("pause", now=True)
        with deaths.at("suspend.paused") as fate:
            await desk.suspension.check()
        assert fate.died
        if not after_restart:
            await desk.steer("resume")
    async with Desk.open(tmp_path, clock) as desk:
        if after_restart:
            await desk.steer("resume")
        await desk.suspension.check()
        await desk.suspension.check()
        assert desk.orchestrator.controls == [(Control.RESUME, name)]
        assert not (await desk.row(name)).run.suspended


async def test_a_death_after_the_answer_to_a_resume_repeats_it(tmp_path: Path) -> None:
    """The orchestrator may answer then that the run isn't paused."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        _, [name] = await pausing.suspended(desk)
        await desk.steer("resume")
        with deaths.at("suspend.resumed") as fate:
            await desk.suspension.check()
        assert fate.died
        assert (await desk.row(name)).run.suspended
    async with Desk.open(tmp_path, clock) as desk:
        desk.orchestrator.pause_code = "FAILED_PRECONDITION"
        await desk.suspension.check()
        assert desk.orchestrator.controls == [(Control.RESUME, name)]
        assert not (await desk.row(name)).run.suspended
