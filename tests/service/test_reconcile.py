"""Silent runs are asked for: what follows from the orchestrator's word, with the clock in the test's hands."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle import reconcile
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.core.wire import Start
from ems_worker.service import submit
from ems_worker.service.ledger.live import Live
from ems_worker.service.reconcile import INTERVAL_SECONDS, Reconciler
from tests.support import wait
from tests.support.desk import Clock, Desk, plan

RUNNING = Signal(RunEvent.START)


def reconciler(desk: Desk) -> Reconciler:
    return desk.services.reconciler


async def asked(desk: Desk, one: Reconciler, known: Mapping[str, Signal | None] | None) -> list[tuple[Live, Run]]:
    """A look an interval later, at which the orchestrator says this."""
    desk.clock.seconds += INTERVAL_SECONDS
    desk.orchestrator.known = known
    return await one.query()


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
        await reconciler(desk).query()
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
        await one.resend(again)
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
            await one.resend(again)
        assert desk.orchestrator.sent == [old, young, young, old]
    async with Desk.open(tmp_path, clock) as desk:
        one, half = reconciler(desk), {old: None, young: RUNNING}
        await asked(desk, one, half)
        [(_, run)] = await asked(desk, one, half)
        assert run.point == 0
        assert (await desk.row(old)).run.state is RunState.SUBMITTED


async def test_a_run_that_is_sent_again_has_its_whole_time_again(tmp_path: Path) -> None:
    """What it had used at the orchestrator that forgot it is forgotten, on disk before it is sent; while it waits to be
    taken, and queues, nothing counts but from the orchestrator's next word and from its start."""
    limits: dict[str, Any] = {"limits": {"run_timeout_seconds": 3600, "max_attempts": 1}}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **limits))
        started, queued = await desk.launch(live)
        await desk.hear("started", started)
        clock.seconds += 3400
        await desk.ledger.count_time()
        one, nothing = reconciler(desk), dict.fromkeys([started, queued])
        await asked(desk, one, nothing)
        again = await asked(desk, one, nothing)
        used: list[tuple[int, int | None]] = []
        waiting = asyncio.Event()

        async def away(starts: Sequence[Start], tell: Callable[[Call], None]) -> None:
            used.extend(
                [
                    ((await desk.row(name)).run.elapsed_ms, (await desk.row(name)).run.started_ms)
                    for name in (started, queued)
                ]
            )
            await waiting.wait()
            answers = [Answer(start.simulation_id, Outcome.SUBMITTED, "ALREADY_EXISTS") for start in starts]
            tell(Call(0.0, 0.0, tuple(answers)))

        with patch.object(desk.orchestrator, "start", away):
            sending = asyncio.create_task(one.resend(again))
            await wait.until(lambda: used)
            assert used == [(0, None), (0, None)]
            clock.seconds += 10_000
            await desk.limits.check()
            assert desk.orchestrator.stops == []
            waiting.set()
            await sending
        clock.seconds += 3000
        await desk.hear("started", started)
        await desk.hear("started", queued)
        clock.seconds += 3500
        await desk.hear("started", started)
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        assert (await desk.row(started)).run.started_ms == desk.clock.now_ms() - 3_500_000
        clock.seconds += 101
        await desk.limits.check()
        assert sorted(desk.orchestrator.stops) == [started, queued]


async def test_a_limit_that_passes_while_it_is_found_out_that_the_orchestrator_was_wiped_costs_no_attempt(
    tmp_path: Path,
) -> None:
    """The run is sent again all the same, and has its whole time."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "NOT_FOUND"
        live = await desk.begin(plan(points=1, limits={"run_timeout_seconds": 3600, "max_attempts": 1}))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 3560
        one = reconciler(desk)
        await asked(desk, one, {name: None})
        clock.seconds += 11
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]
        clock.seconds += 10
        await desk.limits.check()
        await one.resend(await asked(desk, one, {name: None}))
        assert desk.orchestrator.sent == [name, name]
        desk.orchestrator.stop_code = "OK"
        await desk.hear("started", name)
        clock.seconds += 3599
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]
        clock.seconds += 2
        await desk.limits.check()
        assert desk.orchestrator.stops == [name, name]
        await desk.hear("failed", name, error_kind="stopped")
        assert (await desk.row(name)).run.error_kind is ErrorKind.TIMEOUT


async def test_a_run_that_queues_again_has_a_limit(tmp_path: Path) -> None:
    """From when the orchestrator took it again, as at the first time."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, limits={"run_timeout_seconds": 60}))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        one = reconciler(desk)
        await one.resend([(live, (await desk.row(name)).run)])
        clock.seconds += 61
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_a_run_that_nobody_wants_is_not_sent_again(tmp_path: Path) -> None:
    """The orchestrator that forgot it may forget it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        unwanted, wanted = await desk.launch(live)
        await desk.ledger.ask_to_stop([((live.key, 0, 0, 1), StopReason.UNWANTED)])
        one, nothing = reconciler(desk), dict.fromkeys([unwanted, wanted])
        await asked(desk, one, nothing)
        [(_, again)] = await asked(desk, one, nothing)
        assert again.point == 1


async def test_a_run_that_had_started_is_refused_by_the_orchestrator_that_forgot_it(tmp_path: Path) -> None:
    """It failed, with its words: nobody has it, and it would be open for ever."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        desk.orchestrator.code = "INVALID_ARGUMENT"
        await reconciler(desk).resend([(live, (await desk.row(name)).run)])
        one = (await desk.row(name)).run
        assert (one.state, one.error_kind) == (RunState.FAILED, ErrorKind.REFUSED)
        assert one.error_message == "INVALID_ARGUMENT: its message"


async def test_an_orchestrator_that_refuses_the_question_twice_can_not_be_asked(tmp_path: Path) -> None:
    """Once may be its start; silence says nothing; an answer says that it can."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        one = reconciler(desk)
        seen = []
        for answer in (None, {name: RUNNING}, None, {}, None, {}, {name: RUNNING}):
            await asked(desk, one, answer)
            seen.append(one.can_ask)
        assert seen == [True, True, True, True, False, False, True]


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
        await one.resend(one.stranded())
        assert desk.orchestrator.sent == ["reef-p000000-r000-a1"]
        assert run.state is RunState.SUBMITTING
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.SUBMITTED
