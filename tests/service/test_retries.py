"""Change requests, step by step: their effect after a crash, or with another step in between."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.service.base import crash
from ems_worker.service.ledger.live import Live
from tests.support.desk import Clock, Desk, plan


class Died(Exception):
    """Simulates a crash of the worker."""


async def retry(desk: Desk, request_id: str = "r-1") -> int:
    """Requests a retry; returns how many jobs it retried."""
    reply = await desk.steer("retry", request_id=request_id)
    assert reply["counts"] is not None
    return sum(sum(to.values()) for to in reply["counts"].values())


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


@pytest.mark.parametrize("point", ["steering.recorded", "steering.judged", "steering.applied"])
async def test_a_retry_that_was_recorded_is_carried_out_after_a_crash(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new round doesn't end before it has its jobs, and no job is retried twice."""

    def die(name: str, about: str = "") -> None:
        if name == point:
            raise Died

    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await failed(desk)
        with monkeypatch.context() as patched:
            patched.setattr(crash, "point", die)
            with pytest.raises(Died):
                await retry(desk)
    async with Desk.open(tmp_path, clock) as desk:
        assert await retry(desk) == 1
        rows = await desk.rows("reef")
        assert [row.run.state for row in rows] == [RunState.FAILED, RunState.PENDING, RunState.COMPLETED]
        await finish(desk)


async def test_a_repeated_request_is_carried_out_if_the_first_one_failed_after_it_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets an error, sends the request again, and gets the reply to the first request."""
    async with Desk.open(tmp_path) as desk:
        await failed(desk)
        to_retry, failures = desk.manifest.to_retry, [errors.ManifestUnusable("disk full")]

        async def fail_once(*given: Any) -> Any:
            if failures:
                raise failures.pop()
            return await to_retry(*given)

        monkeypatch.setattr(desk.manifest, "to_retry", fail_once)
        with pytest.raises(errors.ManifestUnusable):
            await retry(desk)
        assert await retry(desk) == 1
        assert await retry(desk) == 1
        await finish(desk)


async def test_an_experiment_is_not_unloaded_while_it_is_reopened(tmp_path: Path) -> None:
    """A report that finishes between a request and its change leaves the experiment in memory."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
        first, second = await desk.launch(live)
        await desk.hear("failed", first, error_kind="simulation")
        await desk.hear("completed", second, metrics={"population": 1})
        report = asyncio.create_task(desk.reporter.flush())
        retried = await asyncio.gather(*(retry(desk, f"r-{number}") for number in range(20)))
        await report
        assert retried == [1] + 19 * [0]
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
        assert await retry(desk) == 10
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
        assert await desk.ledger.judging.drop_pending(live, 2) == 2
        assert await retry(desk) == 3
        assert await desk.ledger.judging.drop_pending(live, 2) == 0
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
        assert await retry(desk) == 1
        await hearing[0]
        await desk.ledger.flush()
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
        assert await retry(desk) == 0
        assert desk.ledger.live("reef") is None


async def test_no_job_is_cancelled_while_a_retry_adds_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many jobs have failed until the retry has reached them, and yet the experiment doesn't fail fast."""
    monkeypatch.setattr("ems_worker.service.steering.executor._JOBS", 1)
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, limits={"max_attempts": 1, "fail_fast": True, "max_failed": 1}))
        for name in await desk.launch(live):
            await desk.hear("failed", name, error_kind="simulation")
        assert (await desk.report("reef"))["state"] == "failed"
        judge = desk.ledger.judging.judge

        async def followed_by_limits(*given: Any, **more: Any) -> Any:
            result = await judge(*given, **more)
            await desk.limits.check()
            return result

        monkeypatch.setattr(desk.ledger.judging, "judge", followed_by_limits)
        assert await retry(desk) == 4
        states = [row.run.state for row in await desk.rows("reef") if row.run.attempt == 2]
        assert states == [RunState.PENDING] * 4


async def test_a_retry_whose_jobs_have_completed_meanwhile_begins_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost run turns out to have completed between the request and its carrying out: there is nothing to retry."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, limits={"max_attempts": 1}))
        [name] = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.LOSE, ErrorKind.LOST, "silent"))])
        assert (await desk.report("reef"))["state"] == "failed"
        record_change = desk.manifest.record_change

        async def overtaken(*given: Any) -> Any:
            await desk.hear("completed", name, metrics={"population": 1})
            return await record_change(*given)

        monkeypatch.setattr(desk.manifest, "record_change", overtaken)
        reply = await desk.steer("retry")
        assert (reply["changed"], reply["counts"], reply["round"]) == (False, {}, 1)
        status = await desk.report("reef")
        assert (status["state"], status["round"], status["counts"]["completed"]) == ("failed", 1, 1)
