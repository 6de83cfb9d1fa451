"""Silent runs are asked for: what follows from the orchestrator's word, with the clock in the test's hands."""

from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core import reconcile
from ems_worker.core.run import ErrorKind, Run, RunEvent, RunState, Signal
from ems_worker.service import submit
from ems_worker.service.live import Live
from ems_worker.service.reconcile import INTERVAL_SECONDS, Reconciler
from tests.support.desk import Clock, Desk, plan

RUNNING = Signal(RunEvent.START)


def reconciler(desk: Desk) -> Reconciler:
    return Reconciler(desk.ledger, desk.orchestrator, desk.submitter, desk.clock, desk.metrics, 10.0)


async def asked(desk: Desk, one: Reconciler, known: Mapping[str, Signal | None] | None) -> list[tuple[Live, Run]]:
    """A look an interval later, at which the orchestrator says this."""
    desk.clock.seconds += INTERVAL_SECONDS
    desk.orchestrator.known = known
    return await one.look()


async def test_a_terminal_answer_is_applied_like_an_event(tmp_path: Path) -> None:
    """Its event was lost; the run has ended all the same."""
    async with Desk.open(tmp_path) as desk:
        [first, second] = await desk.launch(await desk.begin(plan(points=2)))
        done = Signal(RunEvent.COMPLETE, metrics={"population": 7.0})
        assert await asked(desk, reconciler(desk), {first: done, second: RUNNING}) == []
        assert (await desk.row(first)).run.metrics == {"population": 7.0}
        assert (await desk.row(second)).run.state is RunState.RUNNING


async def test_a_run_that_was_heard_of_is_not_asked_for(tmp_path: Path) -> None:
    """Only after an interval of silence."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        await desk.hear("started", name)
        desk.orchestrator.known = {name: Signal(RunEvent.COMPLETE)}
        await reconciler(desk).look()
        assert (await desk.row(name)).run.state is RunState.RUNNING


async def test_a_run_is_lost_only_after_two_answers_half_a_minute_apart(tmp_path: Path) -> None:
    """One may be a stale read. Then its job is tried again."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        [old] = await desk.launch(live, 1)
        desk.clock.seconds += 5
        [gone] = await desk.launch(live, 1)
        one = reconciler(desk)
        assert await asked(desk, one, {old: RUNNING, gone: None}) == []
        assert (await desk.row(gone)).run.state is RunState.SUBMITTED
        desk.clock.seconds += reconcile.CONFIRM_SECONDS - INTERVAL_SECONDS - 1
        assert await asked(desk, one, {old: RUNNING, gone: None}) == []
        assert (await desk.row(gone)).run.state is RunState.SUBMITTED
        assert await asked(desk, one, {old: RUNNING, gone: None}) == []
        row = (await desk.row(gone)).run
        assert (row.state, row.error_kind) == (RunState.LOST, ErrorKind.LOST)
        assert (await desk.row(gone[:-1] + "2")).run.state is RunState.PENDING


async def test_a_wiped_orchestrator_gets_its_runs_again_at_no_cost(tmp_path: Path) -> None:
    """Under the same ids, with the same content, the first attempt still."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live)
        await desk.hear("started", names[0])
        one, nothing = reconciler(desk), dict.fromkeys(names)
        assert await asked(desk, one, nothing) == []
        again = await asked(desk, one, nothing)
        await one.send_again(again)
        assert desk.orchestrator.sent == names + names
        first, second = desk.orchestrator.calls
        assert first == second
        assert [row.run.attempt for row in await desk.rows("reef")] == [1, 1, 1]
        for name in names:
            await desk.hear("completed", name, metrics={"population": 1})
        assert (await desk.report("reef"))["counts"]["completed"] == 3


async def test_a_crash_in_the_midst_of_sending_again_costs_nothing_either(tmp_path: Path) -> None:
    """The orchestrator knows the runs that it got again, and only these: the others weren't lost."""

    class Died(Exception):
        """The worker ended here."""

    def die(_: object) -> None:
        if len(desk.orchestrator.calls) == 4:
            raise Died

    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        [old] = await desk.launch(live, 1)
        clock.seconds += 5
        [young] = await desk.launch(live, 1)
        one, nothing = reconciler(desk), dict.fromkeys([old, young])
        await asked(desk, one, nothing)
        again = await asked(desk, one, nothing)
        desk.orchestrator.on_start = die
        with patch.object(submit, "BATCH", 1), pytest.raises(ExceptionGroup):
            await one.send_again(again)
        assert desk.orchestrator.sent == [old, young, young, old]
    async with Desk.open(tmp_path, clock) as desk:
        one, half = reconciler(desk), {old: None, young: RUNNING}
        await asked(desk, one, half)
        [(_, run)] = await asked(desk, one, half)
        assert run.point == 0
        assert (await desk.row(old)).run.state is RunState.SUBMITTED


async def test_an_orchestrator_that_does_not_implement_the_question_loses_nothing(tmp_path: Path) -> None:
    """Its runs are left to their time limits."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        one = reconciler(desk)
        for _ in range(4):
            assert await asked(desk, one, None) == []
        assert (await desk.row(name)).run.state is RunState.SUBMITTED


async def test_a_run_that_nobody_is_sending_is_found(tmp_path: Path) -> None:
    """Submitting beyond twice the deadline with no command under way."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.ledger.claim(live.key, 1)
        one = reconciler(desk)
        desk.clock.seconds += 19
        assert one.stranded() == []
        desk.clock.seconds += 2
        [(_, run)] = one.stranded()
        await one.send_again(one.stranded())
        assert desk.orchestrator.sent == ["reef-p000000-r000-a1"]
        assert run.state is RunState.SUBMITTING
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.SUBMITTED
