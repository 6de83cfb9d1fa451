"""An experiment gets a new version of its plan: what is there stays where it is, and the reply has the difference."""

import json
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service.ledger.live import Live
from tests.support.desk import Clock, Desk, plan


def difference(document: dict[str, Any]) -> tuple[int, int, int]:
    """The numbers of points that a change added, withdrew and left."""
    return document["added"], document["withdrawn"], document["unchanged"]


async def params(desk: Desk, name: str = "food") -> dict[int, Any]:
    """The value of a parameter at each point, by its number."""
    return {row.point.point: row.point.params[name] for row in await desk.rows("reef")}


def live(desk: Desk) -> Live:
    """The experiment, which is in memory."""
    found = desk.ledger.live("reef")
    assert found is not None
    return found


async def test_new_values_of_an_axis_are_appended(tmp_path: Path) -> None:
    """They get the next numbers, also those that come first in the plan; a value that is there changes nothing."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=2))
        await desk.complete(await desk.launch(running), [1, 2])
        assert (await desk.report("reef"))["state"] == "completed"
        reply = await desk.steer("extend", add={"food": [1, 2, 3]})
        assert difference(reply) == (2, 0, 2)
        assert (reply["state"], reply["round"], reply["counts"]) == ("running", 2, {"new": {"pending": 2}})
        assert (reply["changed"], reply["applied"]) == (True, True)
        assert await params(desk) == {0: 0, 1: 1, 2: 2, 3: 3}
        names = await desk.launch(live(desk))
        assert [name.split("-")[-3] for name in names] == ["p000002", "p000003"]
        await desk.complete(names, [3, 4])
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["completed"], status["best"]["point"]) == ("completed", 4, 3)
        again = await desk.steer("extend", plan=plan(points=4))
        assert (again["changed"], again["reason"]) == (False, "it has all points and replicates of this plan")
        assert difference(again) == (0, 0, 4)
        whole = plan(points=4)
        whole["parameter_space"]["food"] = [9, 3, 0, 1, 2]
        assert difference(await desk.steer("extend", plan=whole)) == (1, 0, 4)
        assert (await params(desk))[4] == 9


async def test_more_replicates_of_points_that_are_there(tmp_path: Path) -> None:
    """Each point gets the replicates that it lacks, with their own seeds; jobs that ended stay as they are."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=2, replicates=2))
        await desk.complete(await desk.launch(running, 3), [1, 2, 3])
        before = await desk.rows("reef")
        reply = await desk.steer("extend", replicates=3)
        assert difference(reply) == (0, 0, 2)
        assert reply["counts"] == {"new": {"pending": 2}}
        rows = await desk.rows("reef")
        assert len(rows) == 6
        assert all(row in rows for row in before)
        # Points share the seeds of their replicates.
        assert len({row.run.seed for row in rows}) == 3
        names = await desk.launch(running)
        assert len(names) == 3
        await desk.complete(names, [4, 5, 6])
        status = await desk.report("reef")
        assert (status["state"], status["round"], status["counts"]["completed"]) == ("completed", 1, 6)
        assert {document["point"] for document in desk.broker.of("point")} == {0, 1}


@pytest.mark.parametrize("sampler", ["sobol", "halton", "random"])
async def test_more_samples_leave_the_first_ones_where_they_are(tmp_path: Path, sampler: str) -> None:
    """These samplers draw the same first samples, whatever their number."""
    sampled = plan(design={"sampler": sampler, "samples": 4})
    sampled["parameter_space"] = {"food": {"dist": "uniform", "low": 0.0, "high": 1.0}, "heat": [1.0, 2.0]}
    async with Desk.open(tmp_path) as desk:
        await desk.begin(sampled)
        before = await params(desk)
        assert len(before) == 8
        assert difference(await desk.steer("extend", samples=8)) == (8, 0, 8)
        after = await params(desk)
        assert {point: after[point] for point in before} == before
        assert len(set(after.values())) == 8


async def test_points_that_a_plan_lacks_are_withdrawn_only_if_that_is_asked_for(tmp_path: Path) -> None:
    """Their open runs are stopped, their pending jobs are cancelled, and none of them counts any more."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=5))
        completed, opened, kept = await desk.launch(running, 3)
        await desk.complete([completed], [9])
        fewer = plan(points=5)
        fewer["parameter_space"]["food"] = [7, 2, 3]
        kept_all = await desk.steer("extend", plan=fewer)
        assert difference(kept_all) == (1, 0, 5)
        reply = await desk.steer("extend", plan=fewer, withdraw=True)
        assert difference(reply) == (0, 3, 3)
        assert reply["counts"] == {
            "completed": {"excluded": 1},
            "submitted": {"cancelled": 1},
            "pending": {"cancelled": 1},
        }
        assert (reply["changed"], reply["applied"]) == (True, False)
        await desk.hear("failed", opened, error_kind="stopped")
        assert (await desk.row(opened)).run.state is RunState.CANCELLED
        await desk.services.executor.finish(running)
        await desk.services.executor.publisher.publish()
        assert desk.broker.of("change")[-1]["applied"] is True
        await desk.complete([kept, *await desk.launch(running)], [3, 4, 5])
        status = await desk.report("reef")
        assert (status["state"], status["metrics"]["population"]["n"]) == ("completed", 3)
        withdrawn = {row.point.point for row in await desk.rows("reef") if row.run.excluded == "withdrawn"}
        assert withdrawn == {0, 1, 4}


async def test_a_point_that_returns_keeps_its_number(tmp_path: Path) -> None:
    """It counts again with its result; cancelled jobs get a new attempt, once the old one is out."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=3))
        completed, opened = await desk.launch(running, 2)
        await desk.complete([completed], [9])
        fewer = plan(points=3)
        fewer["parameter_space"]["food"] = [7]
        assert difference(await desk.steer("extend", plan=fewer, withdraw=True)) == (1, 3, 0)
        reply = await desk.steer("extend", plan=plan(points=3), request_id="r-2")
        # A run is still to be stopped.
        assert (reply["counts"], reply["applied"]) == (None, False)
        await desk.hear("failed", opened, error_kind="stopped")
        await desk.services.executor.finish(running)
        await desk.services.executor.publisher.publish()
        last = desk.broker.of("change")[-1]
        assert difference(last) == (0, 0, 4)
        assert last["counts"] == {"excluded": {"completed": 1, "pending": 2}}
        rows = await desk.rows("reef")
        assert {(row.point.point, row.run.attempt): row.run.state.value for row in rows} == {
            (0, 1): "completed",
            (1, 1): "cancelled",
            (1, 2): "pending",
            (2, 1): "cancelled",
            (2, 2): "pending",
            (3, 1): "pending",
        }
        assert not any(row.run.excluded for row in rows)
        await desk.complete(await desk.launch(running), [1, 2, 3])
        status = await desk.report("reef")
        assert (status["state"], status["counts"]["completed"], status["metrics"]["population"]["n"]) == (
            "completed",
            4,
            4,
        )


async def test_equal_points_are_matched_one_by_one(tmp_path: Path) -> None:
    """Entries of `runs` may be equal: three of them are two that are there and a new one."""
    entry = {"params_override": {"food": 7}}
    other = {"run_id_suffix": "elite", "params_override": {"food": 7}}
    two, three = plan(), plan()
    del two["parameter_space"], three["parameter_space"]
    two["runs"], three["runs"] = [entry, other, entry], [other, entry, entry, entry]
    async with Desk.open(tmp_path) as desk:
        await desk.begin(two)
        assert difference(await desk.steer("extend", plan=three, dry_run=True)) == (1, 0, 3)
        assert difference(await desk.steer("extend", plan=three)) == (1, 0, 3)
        suffixes = [row.point.run_id_suffix for row in await desk.rows("reef")]
        assert suffixes == [None, "elite", None, None]


async def test_a_dry_run_has_the_difference_and_changes_nothing(tmp_path: Path) -> None:
    """Neither the plan nor a job changes, and nothing is published."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=5))
        (opened,) = await desk.launch(running, 1)
        wanted = plan(points=5)
        wanted["parameter_space"]["food"] = [7, 8, 2]
        preview = await desk.steer("extend", plan=wanted, withdraw=True, dry_run=True)
        assert (preview["dry_run"], difference(preview)) == (True, (2, 4, 1))
        assert preview["counts"] == {
            "new": {"pending": 2},
            "submitted": {"cancelled": 1},
            "pending": {"cancelled": 3},
        }
        assert running.record.plan_version == 1
        assert await params(desk) == {number: number for number in range(5)}
        await desk.services.executor.publisher.publish()
        assert desk.broker.of("change") == []
        reply = await desk.steer("extend", plan=wanted, withdraw=True)
        assert (difference(reply), reply["counts"]) == (difference(preview), preview["counts"])
        await desk.hear("failed", opened, error_kind="stopped")
        preview = await desk.steer("extend", plan=plan(points=5), dry_run=True)
        assert preview["counts"] == {"excluded": {"pending": 4}}
        reply = await desk.steer("extend", plan=plan(points=5))
        assert (difference(reply), reply["counts"]) == (difference(preview), preview["counts"])


async def test_an_extension_waits_until_its_experiment_is_expanded(tmp_path: Path) -> None:
    """Points that follow are matched like the others; a restart between changes nothing."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await desk.submit(plan(points=5000))
        await desk.expander.expand(live(desk))
        reply = await desk.steer("extend", add={"food": [4999, 5000]})
        assert (reply["changed"], reply["added"], reply["applied"]) == (True, None, False)
    async with Desk.open(tmp_path, clock) as desk:
        while not live(desk).expanded:
            await desk.expander.expand(live(desk))
        await desk.services.executor.finish(live(desk))
        await desk.services.executor.publisher.publish()
        assert difference(desk.broker.of("change")[-1]) == (1, 0, 5000)
        assert (await params(desk))[5000] == 5000


async def test_a_kept_open_and_a_paused_experiment_are_extended_as_they_are(tmp_path: Path) -> None:
    """The new jobs of a paused experiment wait with the others. Those of a settled round begin the next one."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=1, keep_open=True))
        await desk.complete(await desk.launch(running), [1])
        assert (await desk.report("reef"))["state"] == "running"
        reply = await desk.steer("extend", add={"food": [1]})
        assert (reply["round"], difference(reply)) == (2, (1, 0, 1))
        await desk.steer("pause")
        assert difference(await desk.steer("extend", replicates=2)) == (0, 0, 2)
        assert running.record.state is ExperimentState.PAUSED
        assert await desk.launch(running) == []
        await desk.steer("resume")
        assert len(await desk.launch(running)) == 3


async def test_a_repeated_request_gets_the_same_difference(tmp_path: Path) -> None:
    """Nothing is added twice; the same id with another plan is refused."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=2))
        first = await desk.steer("extend", plan=json.dumps(plan(points=3)), request_id="r-1")
        await desk.steer("extend", plan=plan(points=4))
        assert await desk.steer("extend", plan=json.dumps(plan(points=3)), request_id="r-1") == first
        with pytest.raises(errors.RequestRefused, match="r-1 was used for another change"):
            await desk.steer("extend", plan=plan(points=5), request_id="r-1")
        assert len(await desk.rows("reef")) == 4
