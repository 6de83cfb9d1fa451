"""Changes that people request: recorded before the reply, carried out on each job once, and closed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.transitions import RunState
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan


async def changes(desk: Desk) -> list[dict[str, Any]]:
    """The published documents of changes."""
    await desk.services.executor.publisher.publish()
    return desk.broker.of("change")


async def test_a_cancelled_experiment_starts_nothing_and_ends(tmp_path: Path) -> None:
    """Pending jobs are counted only, open runs are stopped, and the change is applied when the last one is out."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10))
        first, second = await desk.launch(live, 2)
        reply = await desk.steer("cancel", reason="a wrong sweep")
        assert (reply["changed"], reply["applied"]) == (True, False)
        assert reply["counts"] == {"pending": {"cancelled": 8}, "submitted": {"cancelled": 2}}
        assert await desk.launch(live) == []
        await desk.hear("failed", first, error_kind="stopped")
        assert (await desk.row(first)).run.state is RunState.CANCELLED
        await desk.hear("completed", second, metrics={"population": 1})
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["cancelled"], status["counts"]["completed"]) == ("cancelled", 9, 1)
        assert {document["state"] for document in desk.broker.of("result")} == {"cancelled", "completed"}
        assert len(desk.broker.of("result")) == 2
        await desk.services.executor.finish(live)
        assert [document["applied"] for document in await changes(desk)] == [False, True]


async def test_a_person_cancels_the_jobs_that_match(tmp_path: Path) -> None:
    """The others go on, and the round ends by them alone."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        reply = await desk.steer("cancel", where="food >= 2")
        assert (reply["counts"], reply["applied"]) == ({"pending": {"cancelled": 2}}, True)
        names = await desk.launch(live)
        assert len(names) == 2
        await desk.complete(names, [1, 2])
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["cancelled"]) == ("completed", 2)


async def test_a_paused_experiment_starts_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    """Its jobs stay pending."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        paused = await desk.steer("pause")
        assert (paused["state"], paused["changed"], paused["applied"]) == ("paused", True, True)
        assert (await desk.steer("pause"))["changed"] is False
        assert await desk.launch(live) == []
        assert (await desk.steer("resume"))["state"] == "running"
        assert len(await desk.launch(live)) == 2


async def test_the_aggregates_are_read_again_once_a_change(tmp_path: Path) -> None:
    """However many steps it takes: reading them takes a time in proportion to the experiment."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=120, keep_open=True))
        await desk.complete(await desk.launch(live), range(120))
        before = desk.manifest.counters.reads["merged_metrics"]
        assert (await desk.steer("exclude", where="food < 110"))["counts"] == {"completed": {"excluded": 110}}
        assert desk.manifest.counters.reads["merged_metrics"] == before + 1
        assert live.recorded.metrics["population"].mean == 114.5
        assert not live.judging


async def test_a_retry_with_a_condition_reopens_an_ended_experiment(tmp_path: Path) -> None:
    """Infeasible jobs are retried where the condition asks for kinds of error."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        for name in await desk.launch(live):
            await desk.hear("failed", name, error_kind="infeasible", message="energy below 0")
        status = await desk.report("reef")
        assert status["state"] == "failed"
        assert status["reason"] == "no job completed: 2 of 2 were infeasible, most often: energy below 0"
        assert (await desk.steer("retry"))["changed"] is False
        wanted = await desk.steer("retry", where='error_kind == "infeasible"', dry_run=True)
        assert (wanted["state"], wanted["round"], wanted["counts"]) == ("running", 2, {"failed": {"pending": 2}})
        reply = await desk.steer("retry", where='error_kind == "infeasible"')
        assert (reply["state"], reply["round"], reply["counts"]) == ("running", 2, {"failed": {"pending": 2}})
        again = desk.ledger.live("reef")
        assert again is not None
        await desk.complete(await desk.launch(again), [1, 2])
        assert (await desk.report("reef"))["state"] == "completed"


async def test_excluded_jobs_leave_the_aggregates_until_they_are_included(tmp_path: Path) -> None:
    """Their results stay, and say why they don't count."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        await desk.complete(await desk.launch(live), [1, 2, 9])
        status = await desk.report("reef")
        assert (status["best"]["point"], status["metrics"]["population"]["mean"]) == (2, 4)
        reply = await desk.steer("exclude", where="food == 2", reason="bad host")
        assert reply["counts"] == {"completed": {"excluded": 1}}
        status = await desk.report("reef")
        assert (status["best"]["point"], status["metrics"]["population"]["mean"]) == (1, 1.5)
        assert desk.broker.of("result")[-1]["excluded"] == "bad host"
        assert (await desk.steer("include"))["counts"] == {"excluded": {"completed": 1}}
        status = await desk.report("reef")
        assert (status["best"]["point"], status["metrics"]["population"]["mean"]) == (2, 4)


async def test_a_request_that_is_repeated_changes_nothing_more(tmp_path: Path) -> None:
    """It gets the same change; the same id with another request is refused."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=2))
        first = await desk.steer("pause", request_id="r-1")
        await desk.steer("resume")
        assert await desk.steer("pause", request_id="r-1") == first
        live = desk.ledger.live("reef")
        assert live is not None
        assert live.record.state is ExperimentState.RUNNING
        with pytest.raises(errors.RequestRefused, match="r-1 was used for another change"):
            await desk.steer("cancel", request_id="r-1")


async def test_a_dry_run_tells_what_would_happen_and_changes_nothing(tmp_path: Path) -> None:
    """Nothing is recorded or published."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        whole = await desk.steer("cancel", dry_run=True)
        assert (whole["dry_run"], whole["counts"]) == (True, {"pending": {"cancelled": 4}})
        some = await desk.steer("cancel", dry_run=True, where="food < 1")
        assert some["counts"] == {"pending": {"cancelled": 1}}
        assert await changes(desk) == []
        assert len(await desk.launch(live)) == 4


async def test_a_cancellation_while_the_experiment_expands_reaches_the_jobs_that_follow(tmp_path: Path) -> None:
    """They are recorded and cancelled, never started."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await desk.submit(plan(points=5000))
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.expander.expand(live)
        assert not live.expanded
        reply = await desk.steer("cancel")
        assert reply["counts"] is None
    async with Desk.open(tmp_path, clock) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        while not live.expanded:
            await desk.expander.expand(live)
            assert await desk.launch(live) == []
            await desk.services.executor.finish(live)
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["cancelled"]) == ("cancelled", 5000)
        rows = await desk.rows("reef")
        assert {row.run.stop_reason for row in rows} == {StopReason.CANCELLED}


async def test_members_of_a_group_that_can_not_take_a_request_say_why(tmp_path: Path) -> None:
    """The others take it. Only what no member can take is refused as a whole."""
    async with Desk.open(tmp_path) as desk:
        first = await desk.begin(plan("first", points=1, group="sweep"))
        await desk.begin(plan("second", points=1, group="sweep"))
        await desk.launch(first)
        await desk.steer("cancel", "first")
        answer = await desk.steer("retry", group="sweep", request_id="r-1")
        said = {change["experiment_id"]: change for change in answer["changes"]}
        assert (said["second"]["changed"], said["second"]["reason"]) == (False, "no job is to be retried")
        assert said["first"]["changed"] is False
        assert "being cancelled" in said["first"]["reason"]
        assert [said[name]["refused"] for name in ("first", "second")] == [True, False]
        with pytest.raises(errors.RequestRefused, match="foot"):
            await desk.steer("exclude", group="sweep", where="foot > 1")


async def test_a_broker_that_hangs_delays_no_reply_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is published once the broker answers again."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=1))
        publish, hung = desk.broker.publish, asyncio.Event()

        async def hang(*args: Any) -> None:
            await hung.wait()
            await publish(*args)

        monkeypatch.setattr(desk.broker, "publish", hang)
        assert (await desk.steer("pause"))["changed"]
        assert desk.broker.of("change") == []
        hung.set()
        assert [document["verb"] for document in await changes(desk)] == ["pause", "pause"]


async def test_changes_are_carried_out_while_the_broker_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a change waits for its publication."""
    async with Desk.open(tmp_path) as desk, background(desk.services.executor.run()):
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        monkeypatch.setattr(desk.broker, "publish", lambda *_: asyncio.Event().wait())
        assert (await desk.steer("cancel"))["applied"] is False
        await desk.hear("failed", name, error_kind="stopped")
        await wait.until(lambda: not live.changes)


async def test_the_reason_of_a_withdrawal_is_nobody_elses(tmp_path: Path) -> None:
    """An extension would otherwise take back what a person excluded."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan())
        with pytest.raises(errors.RequestRefused, match="that of withdrawn points"):
            await desk.steer("exclude", reason="withdrawn")


async def test_ids_of_the_workers_own_changes_are_refused(tmp_path: Path) -> None:
    """Somebody's request would otherwise be taken for the cancellation of stragglers."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=1))
        with pytest.raises(errors.RequestRefused, match="settled-"):
            await desk.steer("cancel", request_id="settled-reef-1")
