"""Reconciliation: the orchestrator is asked for the status of silent runs, and the answers are applied."""

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


async def query(desk: Desk, known: Mapping[str, Signal | None] | None) -> list[tuple[Live, Run]]:
    """Queries silent runs an interval later, and the orchestrator answers this; returns the runs to send again."""
    desk.clock.seconds += INTERVAL_SECONDS
    desk.orchestrator.known = known
    return await reconciler(desk).query()


async def test_the_status_of_an_ended_run_is_applied_like_an_event(tmp_path: Path) -> None:
    """The run ends by it although its event was lost."""
    async with Desk.open(tmp_path) as desk:
        [first, second] = await desk.launch(await desk.begin(plan(points=2)))
        done = Signal(RunEvent.COMPLETE, metrics={"population": 7.0})
        assert await query(desk, {first: done, second: RUNNING}) == []
        assert (await desk.row(first)).run.metrics == {"population": 7.0}
        assert (await desk.row(second)).run.state is RunState.RUNNING


async def test_a_run_is_queried_only_after_an_interval_without_news(tmp_path: Path) -> None:
    """Its status isn't applied before that."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        await desk.hear("started", name)
        desk.orchestrator.known = {name: Signal(RunEvent.COMPLETE)}
        await reconciler(desk).query()
        assert (await desk.row(name)).run.state is RunState.RUNNING


async def test_a_run_is_lost_only_after_two_answers_half_a_minute_apart(tmp_path: Path) -> None:
    """A single answer may be a stale read. The job of a lost run is retried."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        [old] = await desk.launch(live, 1)
        desk.clock.seconds += 5
        [gone] = await desk.launch(live, 1)
        assert await query(desk, {old: RUNNING, gone: None}) == []
        assert (await desk.row(gone)).run.state is RunState.SUBMITTED
        desk.clock.seconds += reconcile.CONFIRM_SECONDS - INTERVAL_SECONDS - 1
        assert await query(desk, {old: RUNNING, gone: None}) == []
        assert (await desk.row(gone)).run.state is RunState.SUBMITTED
        assert await query(desk, {old: RUNNING, gone: None}) == []
        row = (await desk.row(gone)).run
        assert (row.state, row.error_kind) == (RunState.LOST, ErrorKind.LOST)
        assert (await desk.row(gone[:-1] + "2")).run.state is RunState.PENDING


async def test_runs_are_sent_again_to_a_wiped_orchestrator_without_costing_an_attempt(tmp_path: Path) -> None:
    """Their ids and content are the same."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live)
        await desk.hear("started", names[0])
        nothing = dict.fromkeys(names)
        assert await query(desk, nothing) == []
        again = await query(desk, nothing)
        await reconciler(desk).resend(again)
        assert desk.orchestrator.sent == names + names
        first, second = desk.orchestrator.calls
        assert first == second
        assert [row.run.attempt for row in await desk.rows("reef")] == [1, 1, 1]
        for name in names:
            await desk.hear("completed", name, metrics={"population": 1})
        assert (await desk.report("reef"))["counts"]["completed"] == 3


async def test_a_crash_while_runs_are_sent_again_costs_no_attempt(tmp_path: Path) -> None:
    """The next worker doesn't count the runs that were not sent again as lost."""

    class Died(Exception):
        """Simulates a crash of the worker."""

    def die(_: object) -> None:
        if len(desk.orchestrator.calls) == 4:
            raise Died

    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        [old] = await desk.launch(live, 1)
        clock.seconds += 5
        [young] = await desk.launch(live, 1)
        nothing = dict.fromkeys([old, young])
        await query(desk, nothing)
        again = await query(desk, nothing)
        desk.orchestrator.on_start = die
        with patch.object(submit, "BATCH", 1), pytest.raises(ExceptionGroup):
            await reconciler(desk).resend(again)
        assert desk.orchestrator.sent == [old, young, young, old]
    async with Desk.open(tmp_path, clock) as desk:
        half = {old: None, young: RUNNING}
        await query(desk, half)
        [(_, run)] = await query(desk, half)
        assert run.point == 0
        assert (await desk.row(old)).run.state is RunState.SUBMITTED


async def test_a_run_that_is_sent_again_has_its_full_time_limit_again(tmp_path: Path) -> None:
    """Its elapsed time is reset on disk before it is sent.

    No time counts until the next news of the run, and it counts from zero again when the run starts.
    """
    limits: dict[str, Any] = {"limits": {"run_timeout_seconds": 3600, "max_attempts": 1}}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **limits))
        started, queued = await desk.launch(live)
        await desk.hear("started", started)
        clock.seconds += 3400
        await desk.ledger.count_time()
        nothing = dict.fromkeys([started, queued])
        await query(desk, nothing)
        again = await query(desk, nothing)
        recorded: list[tuple[int, int | None]] = []
        reachable = asyncio.Event()

        async def slow(starts: Sequence[Start], on_call: Callable[[Call], None], wanted: Callable[[str], bool]) -> None:
            recorded.extend(
                [
                    ((await desk.row(name)).run.elapsed_ms, (await desk.row(name)).run.started_ms)
                    for name in (started, queued)
                ]
            )
            await reachable.wait()
            answers = [Answer(start.simulation_id, Outcome.SUBMITTED, "ALREADY_EXISTS") for start in starts]
            on_call(Call(0.0, 0.0, tuple(answers)))

        with patch.object(desk.orchestrator, "start", slow):
            sending = asyncio.create_task(reconciler(desk).resend(again))
            await wait.until(lambda: recorded)
            assert recorded == [(0, None), (0, None)]
            clock.seconds += 10_000
            await desk.limits.check()
            assert desk.orchestrator.stops == []
            reachable.set()
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


async def test_a_limit_that_passes_before_a_wiped_orchestrator_is_detected_costs_no_attempt(tmp_path: Path) -> None:
    """The run is sent again, and has its full time limit."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        desk.orchestrator.stop_code = "NOT_FOUND"
        live = await desk.begin(plan(points=1, limits={"run_timeout_seconds": 3600, "max_attempts": 1}))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 3560
        await query(desk, {name: None})
        clock.seconds += 11
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]
        clock.seconds += 10
        await desk.limits.check()
        await reconciler(desk).resend(await query(desk, {name: None}))
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


async def test_the_limit_of_a_run_that_was_sent_again_counts_from_its_submission(tmp_path: Path) -> None:
    """It counts from the start of the run once that is reported, as after the first submission."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1, limits={"run_timeout_seconds": 60}))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        await reconciler(desk).resend([(live, (await desk.row(name)).run)])
        clock.seconds += 61
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def test_an_unwanted_run_is_not_sent_again(tmp_path: Path) -> None:
    """Only the other run is sent again to the wiped orchestrator."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        unwanted, wanted = await desk.launch(live)
        await desk.ledger.ask_to_stop([((live.key, 0, 0, 1), StopReason.SUPERSEDED)])
        nothing = dict.fromkeys([unwanted, wanted])
        await query(desk, nothing)
        [(_, run)] = await query(desk, nothing)
        assert run.point == 1


async def test_a_run_that_had_started_fails_if_the_orchestrator_that_forgot_it_refuses_it(tmp_path: Path) -> None:
    """It has the orchestrator's message. Otherwise it would stay open, though no orchestrator has it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        desk.orchestrator.code = "INVALID_ARGUMENT"
        await reconciler(desk).resend([(live, (await desk.row(name)).run)])
        refused = (await desk.row(name)).run
        assert (refused.state, refused.error_kind) == (RunState.FAILED, ErrorKind.REFUSED)
        assert refused.error_message == "INVALID_ARGUMENT: its message"


async def test_an_orchestrator_is_not_queried_after_two_unimplemented_answers(tmp_path: Path) -> None:
    """A single such answer may be due to its start. An empty answer changes nothing, and a status resets the count."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        can_ask = []
        for answer in (None, {name: RUNNING}, None, {}, None, {}, {name: RUNNING}):
            await query(desk, answer)
            can_ask.append(reconciler(desk).can_ask)
        assert can_ask == [True, True, True, True, False, False, True]


async def test_no_run_is_lost_if_the_orchestrator_does_not_implement_statuses(tmp_path: Path) -> None:
    """Only time limits end its runs."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        for _ in range(4):
            assert await query(desk, None) == []
        assert (await desk.row(name)).run.state is RunState.SUBMITTED


async def test_a_run_that_is_submitting_without_a_command_is_sent_again(tmp_path: Path) -> None:
    """It is detected after twice the deadline of a call."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.claim(live, 1)
        desk.clock.seconds += 19
        assert reconciler(desk).stranded() == []
        desk.clock.seconds += 2
        [(_, run)] = reconciler(desk).stranded()
        await reconciler(desk).resend(reconciler(desk).stranded())
        assert desk.orchestrator.sent == ["reef-p000000-r000-a1"]
        assert run.state is RunState.SUBMITTING
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.SUBMITTED
