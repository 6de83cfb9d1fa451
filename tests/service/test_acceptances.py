"""An acceptance by the orchestrator is recorded with the run's next change, or by a flush.

A crash before that loses nothing.
"""

import asyncio
from collections import deque
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.service.ledger.live import JobKey
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan

COMPLETE = Signal(RunEvent.COMPLETE, metrics={"population": 1.0})


async def states(desk: Desk) -> list[RunState]:
    """The states of all runs in the manifest, in which acceptances may be missing."""
    record = await desk.manifest.experiment("reef")
    assert record is not None
    return [row.run.state for row in await desk.manifest.jobs_page(record.key, (-1, -1, -1), 100, attempts=True)]


async def test_an_acceptance_takes_no_commit_of_its_own(tmp_path: Path) -> None:
    """The end of a run is recorded in one step if it comes before that; the others wait for theirs, or a flush."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        with patch.object(desk.manifest, "save", wraps=desk.manifest.save) as save:
            first, *_ = await desk.launch(live)
            assert save.call_count == 1
            assert await states(desk) == [RunState.SUBMITTING] * 3
            assert all(run.state is RunState.SUBMITTED for _, _, run in desk.ledger.open_runs())
            await desk.hear("completed", first, metrics={"population": 1})
            assert save.call_count == 2
        assert await states(desk) == [RunState.COMPLETED, RunState.SUBMITTING, RunState.SUBMITTING]
        assert (await desk.report("reef"))["counts"]["submitted"] == 2


async def test_acceptances_are_recorded_though_nothing_else_is(tmp_path: Path) -> None:
    """The reporter sees to it, and the status that follows counts them."""
    async with Desk.open(tmp_path) as desk, background(desk.reporter.run()):
        live = await desk.begin(plan(points=2))
        await desk.launch(live)
        await wait.until(lambda: desk.broker.statuses and desk.broker.statuses[-1]["counts"]["submitted"] == 2)
        assert await states(desk) == [RunState.SUBMITTED] * 2
        with patch.object(desk.manifest, "save", wraps=desk.manifest.save) as save:
            await desk.ledger.flush()
            assert not save.called


async def test_acceptances_add_up_until_they_are_recorded(tmp_path: Path) -> None:
    """Those of several calls and experiments are recorded together."""
    async with Desk.open(tmp_path) as desk:
        lives = [await desk.begin(plan(name, points=2)) for name in ("reef", "lake")]
        claimed = [[(live, one) for one, _ in await desk.claim(live, 2)] for live in lives]
        for live, one in [pair for pairs in claimed for pair in pairs]:
            await desk.ledger.accept([(live.key, one.point, one.replicate, one.attempt)])
        with patch.object(desk.manifest, "save", wraps=desk.manifest.save) as save:
            await desk.ledger.flush()
            assert save.call_count == 1
        assert [live.recorded for live in lives] == [live.tally for live in lives]
        for name in ("reef", "lake"):
            assert {row.run.state for row in await desk.rows(name)} == {RunState.SUBMITTED}


async def test_a_run_whose_acceptance_a_crash_forgot_is_sent_again_under_its_id(tmp_path: Path) -> None:
    """The orchestrator has it, and it runs once."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        names = await desk.launch(live)
    async with Desk.open(tmp_path, clock) as desk:
        assert await states(desk) == [RunState.SUBMITTING] * 2
        for name in names:
            desk.orchestrator.answers[name] = deque(["ALREADY_EXISTS"])
        await desk.submitter.resend(desk.unsent)
        assert sorted(desk.orchestrator.sent) == names
        await desk.complete(names, [1, 2])
        [live] = desk.ledger.experiments()
        assert await desk.launch(live) == []
        assert (await desk.report("reef"))["state"] == "completed"
        assert [document["simulation_id"] for document in desk.broker.of("result")] == names
        assert len(await desk.rows("reef")) == 2


async def test_a_run_whose_acceptance_a_crash_forgot_may_have_ended(tmp_path: Path) -> None:
    """Its event may come before it is sent again, which it isn't then."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)
    async with Desk.open(tmp_path, clock) as desk:
        await desk.complete(names, [1])
        await desk.submitter.resend(desk.unsent)
        assert desk.orchestrator.sent == []
        assert (await desk.report("reef"))["state"] == "completed"


async def test_a_run_whose_acceptance_a_crash_forgot_is_stopped_if_its_experiment_is_cancelled(tmp_path: Path) -> None:
    """It isn't sent again, and gets its STOP, because the orchestrator may have it."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        [name] = await desk.launch(live, 1)
    async with Desk.open(tmp_path, clock) as desk:
        [live] = desk.ledger.experiments()
        await desk.steer("cancel")
        assert await states(desk) == [RunState.SUBMITTING, RunState.CANCELLED]
        async with background(desk.submitter.resend(desk.unsent)):
            await desk.services.executor.finish(live)
            await wait.until(lambda: not desk.submitter.sending)
            await desk.limits.check()
        assert (desk.orchestrator.sent, desk.orchestrator.stops) == ([], [name])
        await desk.hear("failed", name, error_kind="stopped")
        assert (await desk.report("reef"))["state"] == "cancelled"
        assert await states(desk) == [RunState.CANCELLED] * 2


@pytest.mark.parametrize("ends", [False, True])
async def test_a_decision_that_is_called_off_loses_no_acceptance(tmp_path: Path, ends: bool) -> None:
    """A task may be cancelled while it reads what it decides about, as all are when the worker stops."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await desk.launch(live, 1)
        reads, load = asyncio.Event(), desk.manifest.jobs

        async def never(keys: list[JobKey]) -> None:
            reads.set()
            await asyncio.Event().wait()

        with patch.object(desk.manifest, "jobs", never):
            hearing = asyncio.create_task(desk.ledger.hear([((live.key, 1, 0, 1), COMPLETE)]))
            await reads.wait()
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        assert desk.manifest.jobs == load
        if ends:
            await desk.ledger.hear([((live.key, 0, 0, 1), COMPLETE)])
            assert await states(desk) == [RunState.COMPLETED, RunState.PENDING]
        else:
            await desk.ledger.count_time()
            assert await states(desk) == [RunState.SUBMITTED, RunState.PENDING]


async def test_an_answer_after_the_end_changes_nothing(tmp_path: Path) -> None:
    """Events may overtake the answer to the start command."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, keep_open=True))
        [(run, _)] = await desk.claim(live, 1)
        key = (live.key, run.point, run.replicate, run.attempt)
        await desk.ledger.hear([(key, COMPLETE)])
        await desk.ledger.accept([key])
        await desk.ledger.flush()
        assert await states(desk) == [RunState.COMPLETED]
        assert live.tally.by_bucket == live.recorded.by_bucket
