"""Change requests, step by step: their effect after a crash, or with another step in between."""

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
    """Simulates a crash of the worker."""


def control(desk: Desk) -> Control:
    return desk.services.control


async def retry(desk: Desk, request_id: str = "r-1", handlers: Mapping[str, Handler] | None = None) -> dict[str, Any]:
    body = json.dumps({"request_id": request_id, "experiment_id": "reef"}).encode()
    answer: dict[str, Any] = json.loads(await (handlers or control(desk).handlers())["retry"](body))
    return answer


async def failed(desk: Desk) -> Live:
    """An experiment of two jobs, one of which failed; its end is published, and it is unloaded."""
    live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
    first, second = await desk.launch(live)
    await desk.hear("failed", first, error_kind="simulation")
    await desk.hear("completed", second, metrics={"population": 1})
    status = await desk.report("reef")
    assert (status["state"], status["counts"]["failed"]) == ("failed", 1)
    return live


async def finish(desk: Desk) -> None:
    """Completes the second attempt at the first job, and checks that this ends the second round."""
    live = desk.ledger.live("reef")
    assert live is not None
    assert await desk.launch(live) == ["reef-p000000-r000-a2"]
    await desk.hear("completed", "reef-p000000-r000-a2", metrics={"population": 2})
    status = await desk.report("reef")
    assert (status["state"], status["round"], status["counts"]["completed"]) == ("completed", 2, 2)


async def test_a_retry_that_was_recorded_is_carried_out_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new round doesn't end before it has its jobs, although all earlier attempts have ended."""

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


async def test_a_repeated_request_is_carried_out_if_the_first_one_failed_after_it_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets an error, sends the request again, and gets the reply to the first request."""
    async with Desk.open(tmp_path) as desk:
        await failed(desk)
        carry_out, failures = desk.ledger.retry, [errors.ManifestUnusable("disk full")]

        async def fail_once(*given: Any) -> Any:
            if failures:
                raise failures.pop()
            return await carry_out(*given)

        monkeypatch.setattr(desk.ledger, "retry", fail_once)
        with pytest.raises(errors.ManifestUnusable):
            await retry(desk)
        answer = await retry(desk)
        assert (answer["changed"], answer["retried"], answer["round"]) == (True, 1, 2)
        assert await retry(desk) == answer
        await finish(desk)


async def test_a_retry_that_was_partly_carried_out_is_completed_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its jobs are recorded and its reply is not, no job is retried twice."""

    async def die(*_: object) -> None:
        raise Died

    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await failed(desk)
        monkeypatch.setattr(desk.manifest, "update_change", die)
        with pytest.raises(Died):
            await retry(desk)
    async with Desk.open(tmp_path, clock) as desk:
        await control(desk).finish()
        rows = await desk.rows("reef")
        assert [row.run.state for row in rows] == [RunState.FAILED, RunState.PENDING, RunState.COMPLETED]
        await finish(desk)


async def test_an_experiment_is_not_unloaded_while_it_is_reopened(tmp_path: Path) -> None:
    """A report that finishes between a request and its change leaves the experiment in memory."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
        first, second = await desk.launch(live)
        await desk.hear("failed", first, error_kind="simulation")
        await desk.hear("completed", second, metrics={"population": 1})
        report = asyncio.create_task(desk.report("reef"))
        handlers = control(desk).handlers()
        answers = await asyncio.gather(*(retry(desk, f"r-{number}", handlers) for number in range(20)))
        await report
        assert [answer["retried"] for answer in answers] == [1] + 19 * [0]
        await finish(desk)


async def test_a_retry_includes_jobs_that_were_cancelled_because_too_many_failed(tmp_path: Path) -> None:
    """Jobs that were pending and jobs that were stopped get new attempts in the new round."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10, limits={"max_attempts": 1, "fail_fast": True}))
        first, stopped = await desk.launch(live, 2)
        await desk.hear("failed", first, error_kind="simulation")
        await desk.limits.check()
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
        results = [(document["state"], document["job_revision"]) for document in desk.broker.of("result")]
        assert results[10:] == [("completed", 2)] * 10


async def test_a_retry_stops_the_cancelling_of_pending_jobs(tmp_path: Path) -> None:
    """Pending jobs of an experiment that fails fast are cancelled in parts; none is cancelled after a retry."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=5, limits={"max_attempts": 1, "fail_fast": True}))
        [first] = await desk.launch(live, 1)
        await desk.hear("failed", first, error_kind="simulation")
        assert await desk.ledger.cancel_pending(live.key, 2) == 2
        assert (await retry(desk))["retried"] == 3
        assert await desk.ledger.cancel_pending(live.key, 2) == 0
        assert len(await desk.launch(live)) == 5


async def test_memory_and_manifest_agree_after_an_event_during_a_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost run may turn out to have completed while a retry reads the jobs to retry, including its job."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
        late, other = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.LOSE, ErrorKind.LOST, "silent"))])
        to_retry = desk.manifest.to_retry
        hearing: list[asyncio.Task[None]] = []

        async def overtaken(key: int, after: tuple[int, int], limit: int) -> Any:
            jobs = await to_retry(key, after, limit)
            if limit > 1 and not hearing:
                hearing.append(asyncio.create_task(desk.hear("completed", late, metrics={"population": 1})))
                await asyncio.wait(hearing, timeout=0.2)
            return jobs

        monkeypatch.setattr(desk.manifest, "to_retry", overtaken)
        assert (await retry(desk))["changed"] is True
        await hearing[0]
        assert live.tally.by_bucket == (await desk.manifest.tally(live.key)).by_bucket
        assert min(live.tally.by_bucket.values()) == 0
        await desk.hear("completed", other, metrics={"population": 1})
        assert (await desk.report("reef"))["state"] == "completed"


async def test_a_change_that_cannot_be_recorded_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets the error, and so does the worker, because memory no longer agrees with the manifest."""

    async def refuse(*_: object) -> None:
        raise errors.ManifestConflict("it moved on")

    async with Desk.open(tmp_path) as desk:
        await failed(desk)
        monkeypatch.setattr(desk.manifest, "record_change", refuse)
        async with desk.ledger.pinned("reef"):
            with pytest.raises(errors.ManifestConflict):
                await retry(desk)
        with pytest.raises(errors.ManifestConflict, match="it moved on"):
            await desk.ledger.until_broken()


async def test_an_experiment_that_was_pinned_during_its_last_report_is_unloaded_later(tmp_path: Path) -> None:
    """Unpinning announces the experiment once more, so that another report unloads it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        async with desk.ledger.pinned("reef"):
            await desk.hear("completed", name, metrics={"population": 1})
            await desk.report("reef")
            assert desk.ledger.live("reef") is live
        await desk.report("reef")
        assert desk.ledger.live("reef") is None


async def test_an_ended_experiment_is_unloaded_after_a_retry_without_jobs(tmp_path: Path) -> None:
    """A retry loads the experiment, and unloads it if there is nothing to retry."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1})
        await desk.report("reef")
        assert desk.ledger.live("reef") is None
        assert (await retry(desk))["changed"] is False
        assert desk.ledger.live("reef") is None


async def test_no_job_is_cancelled_while_a_retry_adds_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many jobs have failed until the retry has reached them, and yet the experiment doesn't fail fast."""
    monkeypatch.setattr("ems_worker.service.control._CHUNK", 1)
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, limits={"max_attempts": 1, "fail_fast": True, "max_failed": 1}))
        for name in await desk.launch(live):
            await desk.hear("failed", name, error_kind="simulation")
        assert (await desk.report("reef"))["state"] == "failed"
        carry_out = desk.ledger.retry

        async def followed_by_limits(*given: Any) -> Any:
            result = await carry_out(*given)
            await desk.limits.check()
            return result

        monkeypatch.setattr(desk.ledger, "retry", followed_by_limits)
        assert (await retry(desk))["retried"] == 4
        states = [row.run.state for row in await desk.rows("reef") if row.run.attempt == 2]
        assert states == [RunState.PENDING] * 4


async def test_a_retry_whose_jobs_have_ended_meanwhile_ends_the_experiment_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost run turns out to have completed between the request and its carrying out: there is nothing to retry."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, limits={"max_attempts": 1}))
        [name] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.LOSE, ErrorKind.LOST, "silent"))])
        assert (await desk.report("reef"))["state"] == "failed"
        carry_out = desk.ledger.retry

        async def overtaken(*given: Any) -> Any:
            await desk.hear("completed", name, metrics={"population": 1})
            return await carry_out(*given)

        monkeypatch.setattr(desk.ledger, "retry", overtaken)
        assert (await retry(desk))["retried"] == 0
        status = await desk.report("reef")
        assert (status["state"], status["round"]) == ("completed", 2)
