"""Changes that people ask for, driven step by step: what a crash or another step in between makes of them."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.service.control import Control
from ems_worker.service.ledger.live import Live
from ems_worker.service.queries import Handler
from tests.support.desk import Clock, Desk, plan


class Died(Exception):
    """The worker ended here."""


def control(desk: Desk) -> Control:
    return desk.services.control


async def retry(desk: Desk, request_id: str = "r-1", handlers: Mapping[str, Handler] | None = None) -> dict[str, Any]:
    body = json.dumps({"request_id": request_id, "experiment_id": "reef"}).encode()
    answer: dict[str, Any] = json.loads(await (handlers or control(desk).handlers())["retry"](body))
    return answer


async def failed(desk: Desk) -> Live:
    """An experiment of two jobs, one of which failed; told, and let go."""
    live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
    first, second = await desk.launch(live)
    await desk.hear("failed", first, error_kind="simulation")
    await desk.hear("completed", second, metrics={"population": 1})
    status = await desk.report("reef")
    assert (status["state"], status["counts"]["failed"]) == ("failed", 1)
    return live


async def finish(desk: Desk) -> None:
    """The second attempt at the first job completes."""
    live = desk.ledger.live("reef")
    assert live is not None
    assert await desk.launch(live) == ["reef-p000000-r000-a2"]
    await desk.hear("completed", "reef-p000000-r000-a2", metrics={"population": 2})
    status = await desk.report("reef")
    assert (status["state"], status["round"], status["counts"]["completed"]) == ("completed", 2, 2)


async def test_a_retry_that_was_recorded_is_carried_out_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new round doesn't end before its jobs are there, although all the old ones have ended."""

    async def die(*_: object) -> int:
        raise Died

    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await failed(desk)
        monkeypatch.setattr(desk.ledger, "retry", die)
        with pytest.raises(Died):
            await retry(desk)
    async with Desk.open(tmp_path, clock) as desk:
        await control(desk).finish()
        live = desk.ledger.live("reef")
        assert live is not None
        assert live.record.state is ExperimentState.RUNNING
        again = await retry(desk)
        assert (again["changed"], again["retried"]) == (True, 1)
        await finish(desk)


async def test_a_retry_that_was_half_carried_out_is_finished_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are there and its answer isn't: nothing is tried twice."""

    async def die(*_: object) -> None:
        raise Died

    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await failed(desk)
        monkeypatch.setattr(desk.manifest, "answer_request", die)
        with pytest.raises(Died):
            await retry(desk)
    async with Desk.open(tmp_path, clock) as desk:
        await control(desk).finish()
        rows = await desk.rows("reef")
        assert [row.run.state for row in rows] == [RunState.FAILED, RunState.PENDING, RunState.COMPLETED]
        await finish(desk)


async def test_an_experiment_is_not_let_go_while_it_is_reopened(tmp_path: Path) -> None:
    """The report of its end may finish between the question and the change."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
        first, second = await desk.launch(live)
        await desk.hear("failed", first, error_kind="simulation")
        await desk.hear("completed", second, metrics={"population": 1})
        told = asyncio.create_task(desk.report("reef"))
        handlers = control(desk).handlers()
        answers = await asyncio.gather(*(retry(desk, f"r-{number}", handlers) for number in range(20)))
        await told
        assert [one["retried"] for one in answers] == [1] + 19 * [0]
        await finish(desk)


async def test_a_retry_takes_what_was_dropped_when_too_many_had_failed(tmp_path: Path) -> None:
    """Whatever had waited, and whatever was stopped: all of it is run in the new round, as new attempts."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10, limits={"max_attempts": 1, "fail_fast": True}))
        first, stopped = await desk.launch(live, 2)
        await desk.hear("failed", first, error_kind="simulation")
        await desk.limits.look()
        await desk.hear("failed", stopped, error_kind="stopped")
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["failed"], status["counts"]["cancelled"]) == ("failed", 1, 9)
        assert (await retry(desk))["retried"] == 10
        reopened = desk.ledger.live("reef")
        assert reopened is not None
        names = await desk.launch(reopened)
        assert names == [f"reef-p{point:06d}-r000-a2" for point in range(10)]
        for name in names:
            await desk.hear("completed", name, metrics={"population": 1})
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["completed"], status["reason"]) == ("completed", 10, None)
        results = [(one["state"], one["job_revision"]) for one in desk.broker.of("result")]
        assert results[10:] == [("completed", 2)] * 10


async def test_a_retry_that_comes_while_jobs_are_dropped_stops_that(tmp_path: Path) -> None:
    """What it takes up again isn't dropped by the work that was under way."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=5, limits={"max_attempts": 1, "fail_fast": True}))
        [first] = await desk.launch(live, 1)
        await desk.hear("failed", first, error_kind="simulation")
        assert await desk.ledger.cancel_pending(live.key, 2) == 2
        assert (await retry(desk))["retried"] == 3
        assert await desk.ledger.cancel_pending(live.key, 2) == 0
        assert len(await desk.launch(live)) == 5


async def test_an_event_that_comes_while_a_retry_looks_for_its_jobs_contradicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost run that is about to be tried again has completed after all: memory and disk agree on it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
        late, other = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.LOSE, ErrorKind.LOST, "silent"))])
        to_retry = desk.manifest.to_retry
        hearing: list[asyncio.Task[None]] = []

        async def overtaken(key: int, after: tuple[int, int], limit: int) -> Any:
            found = await to_retry(key, after, limit)
            if limit > 1 and not hearing:
                hearing.append(asyncio.create_task(desk.hear("completed", late, metrics={"population": 1})))
                await asyncio.wait(hearing, timeout=0.2)
            return found

        monkeypatch.setattr(desk.manifest, "to_retry", overtaken)
        assert (await retry(desk))["changed"] is True
        await hearing[0]
        assert live.tally.by_bucket == (await desk.manifest.tally(live.key)).by_bucket
        assert min(live.tally.by_bucket.values()) == 0
        await desk.hear("completed", other, metrics={"population": 1})
        assert (await desk.report("reef"))["state"] == "completed"


async def test_a_change_that_can_not_be_recorded_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked gets an error; what the ledger has in memory is wrong from then on."""

    async def refuse(*_: object) -> None:
        raise errors.ManifestConflict("it moved on")

    async with Desk.open(tmp_path) as desk:
        await failed(desk)
        monkeypatch.setattr(desk.manifest, "record_request", refuse)
        async with desk.ledger.pinned("reef"):
            with pytest.raises(errors.ManifestConflict):
                await retry(desk)
        with pytest.raises(errors.ManifestConflict, match="it moved on"):
            await desk.ledger.until_broken()


async def test_an_experiment_is_let_go_though_it_was_held_when_it_was_told(tmp_path: Path) -> None:
    """Whoever held it sees to that: the report of its end could not."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        async with desk.ledger.pinned("reef"):
            await desk.hear("completed", name, metrics={"population": 1})
            await desk.report("reef")
            assert desk.ledger.live("reef") is live
        await desk.report("reef")
        assert desk.ledger.live("reef") is None


async def test_an_ended_experiment_is_let_go_after_a_retry_of_nothing(tmp_path: Path) -> None:
    """It is taken up for the question only."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1})
        await desk.report("reef")
        assert desk.ledger.live("reef") is None
        assert (await retry(desk))["changed"] is False
        assert desk.ledger.live("reef") is None
