"""Nothing starts after a cancellation: what becomes of runs whose start commands wait, hang or had no answer."""

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.transitions import RunState
from tests.support import pausing, wait
from tests.support.desk import Clock, Desk, plan, quiet
from tests.support.dispatching import short_pauses, working

FIRST, SECOND = "reef-p000000-r000-a1", "reef-p000001-r000-a1"


@pytest.mark.parametrize("drain", [False, True])
async def test_a_run_that_waits_for_a_slot_is_cancelled_and_never_sent(tmp_path: Path, drain: bool) -> None:
    """It needs no STOP, and the change is applied at once."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        desk.orchestrator.slot = asyncio.Event()
        launch = asyncio.create_task(desk.launch(live))
        await wait.until(lambda: live.open == 2)
        await desk.steer("cancel", drain=drain)
        await desk.limits.check()
        assert await pausing.unapplied(desk, live) == ["cancel"]
        desk.orchestrator.slot.set()
        assert await launch == []
        assert (sorted(desk.orchestrator.unsent), desk.orchestrator.stops) == ([FIRST, SECOND], [])
        assert {row.run.state for row in await desk.rows("reef")} == {RunState.CANCELLED}
        assert await pausing.unapplied(desk, live) == []
        assert (await desk.report("reef"))["state"] == "cancelled"
        assert desk.submitter.reach.problem is None
        assert desk.count("ems_starts_total", outcome="unsent") == 0


async def test_only_the_runs_that_a_person_cancelled_are_left_out_of_a_batch(tmp_path: Path) -> None:
    """The others are sent, also if the change is still being carried out when their turn comes."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        desk.orchestrator.slot = asyncio.Event()
        with short_pauses():
            launch = asyncio.create_task(desk.launch(live))
            await wait.until(lambda: live.open == 3)
            with patch.object(type(live), "cancelling", True):
                desk.orchestrator.slot.set()
                await wait.until(lambda: len(desk.orchestrator.unsent) >= 3)
                await desk.steer("cancel", where="food == 0")
            await launch
        assert sorted(desk.orchestrator.sent) == [SECOND, "reef-p000002-r000-a1"]
        assert (await desk.row(FIRST)).run.state is RunState.CANCELLED


@pytest.mark.parametrize(
    ("code", "state", "stopped"),
    [
        ("OK", RunState.SUBMITTED, True),
        ("ALREADY_EXISTS", RunState.SUBMITTED, True),
        ("DEADLINE_EXCEEDED", RunState.SUBMITTING, True),
        ("UNAVAILABLE", RunState.SUBMITTING, True),
        ("RESOURCE_EXHAUSTED", RunState.CANCELLED, False),
        ("UNAUTHENTICATED", RunState.CANCELLED, False),
        ("INVALID_ARGUMENT", RunState.CANCELLED, False),
    ],
)
async def test_stop_is_sent_only_after_the_answer_to_the_start_call(
    tmp_path: Path, code: str, state: RunState, stopped: bool
) -> None:
    """A STOP that overtook its start would stop nothing. A command that can't have arrived needs none."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        desk.orchestrator.hung[FIRST] = asyncio.Event()
        desk.orchestrator.answers[FIRST] = deque([code])
        launch = asyncio.create_task(desk.launch(live))
        await wait.until(lambda: desk.orchestrator.sent)
        await desk.steer("cancel")
        for _ in range(3):
            clock.seconds += 100
            await desk.limits.check()
        assert desk.orchestrator.stops == []
        desk.orchestrator.hung.pop(FIRST).set()
        await launch
        assert (await desk.row(FIRST)).run.state is state
        await desk.limits.check()
        assert desk.orchestrator.stops == [FIRST] * stopped
        assert desk.orchestrator.sent == [FIRST]
        desk.orchestrator.stop_code = "NOT_FOUND"
        clock.seconds += 31
        await desk.limits.check()
        assert (await desk.row(FIRST)).run.ended
        assert await pausing.unapplied(desk, live) == []


async def test_an_event_shows_that_a_start_without_an_answer_has_arrived(tmp_path: Path) -> None:
    """STOP doesn't wait for the answer then."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        desk.orchestrator.hung[FIRST] = asyncio.Event()
        launch = asyncio.create_task(desk.launch(live))
        await wait.until(lambda: desk.orchestrator.sent)
        await desk.hear("started", FIRST)
        await desk.steer("cancel")
        await desk.limits.check()
        assert desk.orchestrator.stops == [FIRST]
        desk.orchestrator.hung.pop(FIRST).set()
        await launch


async def test_a_run_that_waits_to_be_sent_again_is_not_sent_again(tmp_path: Path) -> None:
    """Its command may have arrived: it gets STOP, and is lost if the orchestrator stays away for ever."""
    async with working(tmp_path, clock=(clock := Clock())) as desk:
        desk.orchestrator.code = desk.orchestrator.stop_code = "UNAVAILABLE"
        live = await desk.begin(plan(points=2))
        await wait.until(lambda: len(desk.orchestrator.sent) > 2)
        await desk.steer("cancel")
        await quiet(desk)
        sent = len(desk.orchestrator.sent)
        for _ in range(12):
            await desk.limits.check()
            clock.seconds += 3
        assert len(desk.orchestrator.stops) > 2
        rows = await desk.rows("reef")
        assert {(row.run.state, row.run.error_message) for row in rows} == {
            (RunState.LOST, "cancelled, and its end was not confirmed")
        }
        assert await pausing.unapplied(desk, live) == []
        assert (await desk.report("reef"))["state"] == "cancelled"
        assert len(desk.orchestrator.sent) == sent


@pytest.mark.parametrize("why", ["overload", "model version"])
async def test_a_run_whose_command_never_arrived_is_cancelled_at_once(tmp_path: Path, why: str) -> None:
    """The orchestrator was overloaded, or runs another version of the model since the claim."""
    async with working(tmp_path) as desk:
        live = await desk.begin(plan(points=1, model_version="v1", hold=True))
        desk.versions.reported = "v1"
        desk.orchestrator.slot = asyncio.Event()
        if why == "overload":
            desk.orchestrator.slot.set()
            desk.orchestrator.code = "RESOURCE_EXHAUSTED"
        await desk.steer("resume")
        await wait.until(lambda: live.open)
        if why == "overload":
            await wait.until(lambda: desk.submitter.reach.last_code(FIRST))
        else:
            desk.versions.reported = "v2"
        await desk.steer("cancel")
        desk.orchestrator.slot.set()
        await quiet(desk)
        assert desk.orchestrator.stops == []
        assert (await desk.row(FIRST)).run.state is RunState.CANCELLED
        assert await pausing.unapplied(desk, live) == []


@pytest.mark.parametrize("drain", [False, True])
async def test_an_earlier_workers_command_is_not_sent_again_after_a_cancellation(tmp_path: Path, drain: bool) -> None:
    """It may have arrived. The orchestrator's answer that it doesn't know the run ends it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        await desk.claim(live, 1)
        await desk.steer("cancel", drain=drain)
    async with Desk.open(tmp_path, clock) as desk:
        await desk.submitter.resend(desk.unsent)
        assert (await desk.row(FIRST)).run.state is RunState.SUBMITTING
        desk.orchestrator.stop_code, desk.orchestrator.known = "NOT_FOUND", {FIRST: None}
        for _ in range(3):
            clock.seconds += 40
            assert await desk.services.reconciler.query() == []
            assert desk.services.reconciler.stranded() == []
            await desk.limits.check()
        await desk.limits.check()
        assert (desk.orchestrator.sent, desk.orchestrator.stops) == ([], [FIRST])
        cancelled = (await desk.row(FIRST)).run
        assert (cancelled.state, cancelled.stop_reason) == (RunState.CANCELLED, StopReason.CANCELLED)
        assert (await desk.report("reef"))["state"] == "cancelled"


@pytest.mark.parametrize("verb", ["cancel", "pause"])
async def test_nothing_is_claimed_after_the_reply_to_a_change(tmp_path: Path, verb: str) -> None:
    """Not even by a claim that was under way."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        reading, go_on, due = asyncio.Event(), asyncio.Event(), desk.manifest.due

        async def slowly(*arguments: Any) -> Sequence[Any]:
            found = await due(*arguments)
            reading.set()
            await go_on.wait()
            return found

        with patch.object(desk.manifest, "due", slowly):
            claim = asyncio.create_task(desk.claim(live, 1))
            await reading.wait()
            steer = asyncio.create_task(desk.steer(verb))
            await wait.until(lambda: not live.starts_runs)
            go_on.set()
            assert await claim == []
        assert (await steer)["changed"] is True
        assert live.open == 0
