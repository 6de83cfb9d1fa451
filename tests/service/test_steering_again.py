"""Changes that were published before a restore, and what an experiment that only a change kept open does."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle import restored
from ems_worker.service.ledger.live import Live
from ems_worker.service.steering import control
from ems_worker.service.steering.control import Control
from tests.support import wait
from tests.support.desk import Desk, plan


async def test_a_published_change_that_the_backup_has_is_not_applied_again(tmp_path: Path) -> None:
    """It is recognised by its request, even if that expected a revision which is long gone."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan())
        document = await desk.steer("pause", expect_revision=live.record.revision)
        await desk.steer("resume")
        assert not await desk.services.replay.changes.apply("reef", document, documents=2)
        assert live.record.state == "running"


async def test_a_published_change_that_the_backup_lacks_is_applied_again(tmp_path: Path) -> None:
    """Whatever the revision is that the experiment has by now. Its documents aren't published again."""
    async with Desk.open(tmp_path / "before") as desk:
        live = await desk.begin(plan())
        document = await desk.steer("pause", expect_revision=live.record.revision)
    async with Desk.open(tmp_path / "after") as desk:
        live = await desk.begin(plan())
        await desk.report("reef")
        assert await desk.services.replay.changes.apply("reef", document, documents=2)
        assert live.record.state == "paused"
        await desk.services.executor.publisher.publish()
        assert desk.broker.of("change") == []


CONTINUED = [("retry", {"where": "state in ['cancelled', 'lost']"}), ("extend", {"replicates": 2})]


@pytest.mark.parametrize(("verb", "request_"), CONTINUED)
@pytest.mark.parametrize("drain", [True, False])
async def test_a_cancelled_experiment_that_was_continued_is_continued_again(
    tmp_path: Path, verb: str, request_: dict[str, Any], drain: bool
) -> None:
    """Its runs had ended at their time limits, of which no event tells: they are lost."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan())
        await desk.launch(live)
        cancelled = await published(desk, "cancel", drain=drain)
        for run in desk.orchestrator.sent:
            await desk.hear("failed", run, error_kind="stopped")
        continued = await published(desk, verb, **request_)
    async with Desk.open(tmp_path / "restored") as desk:
        live = await desk.begin(plan())
        launched = await desk.launch(live)
        assert await desk.services.replay.changes.apply("reef", cancelled, documents=2)
        assert await desk.services.replay.changes.apply("reef", continued, documents=2)
        assert not await desk.services.replay.changes.apply("reef", continued, documents=2)
        assert (live.record.state, live.record.round, live.record.cancel) == ("running", 2, None)
        ended = [(await desk.row(run)).run for run in launched]
        assert {run.state for run in ended} == {"lost"}
        assert {run.error_message for run in ended} == {restored.LOST}
        await desk.complete(await desk.launch(live), [1, 2])
        assert live.record.state == "completed"


async def test_an_experiment_that_had_ended_without_its_last_metrics_begins_its_next_round(tmp_path: Path) -> None:
    """That metrics are missing is decided by a time limit, too."""
    tracked = plan(points=1, metrics_to_track=[{"name": "population", "from": "event"}])
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(tracked)
        await desk.hear("completed", (await desk.launch(live))[0])
        desk.clock.seconds += 10_000
        await desk.limits.check()
        continued = await published(desk, "extend", replicates=2)
    async with Desk.open(tmp_path / "restored") as desk:
        live = await desk.begin(tracked)
        await desk.hear("completed", (await desk.launch(live))[0])
        assert await desk.services.replay.changes.apply("reef", continued, documents=2)
        assert (live.record.state, live.record.round) == ("running", 2)


async def test_what_is_added_after_a_round_settled_belongs_to_the_next_one_again(tmp_path: Path) -> None:
    """That the round settled is in its document, and in nothing else."""
    settling = plan(points=3, settle={"quorum": 1, "grace_seconds": 0, "stragglers": "keep"})
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(settling)
        await desk.complete((await desk.launch(live))[:1], [1])
        await desk.report("reef")
        continued = await published(desk, "extend", replicates=2)
        assert live.record.round == 2
    async with Desk.open(tmp_path / "restored") as desk:
        live = await desk.begin(settling)
        await desk.complete((await desk.launch(live))[:1], [1])
        for number in (1, 7):
            await desk.services.replay.changes.settle("reef", number)
        await desk.services.replay.changes.settle("nobody", 1)
        assert live.record.settled_round == 1
        assert await desk.services.replay.changes.apply("reef", continued, documents=2)
        assert live.record.round == 2
        await desk.report("reef")
        assert [document["round"] for document in desk.broker.of("settled")] == []


async def test_a_change_that_the_backup_has_ends_no_run(tmp_path: Path) -> None:
    """Its last document says how the experiment stood later."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan())
        known = await desk.steer("extend", replicates=2)
        await desk.launch(live)
        assert not await desk.services.replay.changes.apply("reef", {**known, "state": "completed"}, documents=1)
        await desk.steer("cancel", drain=True)
        assert not await desk.services.replay.changes.apply("reef", known, documents=2)
        assert live.open == 4


async def published(desk: Desk, verb: str, **request: Any) -> dict[str, Any]:
    """Requests a change, carries it out, and returns the first document that is published of it."""
    reply = await desk.steer(verb, **request)
    await desk.services.executor.publisher.publish()
    live = desk.ledger.live("reef")
    assert live is not None
    await desk.services.executor.finish(live)
    return next(each for each in desk.broker.of("change") if each["request_id"] == reply["request_id"])


async def test_a_published_change_whose_id_means_another_one_is_left_out(tmp_path: Path) -> None:
    """A restored worker must not stop at a request that it would refuse."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan())
        document = await desk.steer("pause", request_id="mine")
        other = {**document, "verb": "resume"}
        assert not await desk.services.replay.changes.apply("reef", other, documents=2)


async def test_close_ends_an_experiment_whose_jobs_have_ended(tmp_path: Path) -> None:
    """Nothing else happens to it that could end it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, keep_open=True))
        await desk.complete(await desk.launch(live), [1])
        assert live.record.state == "running"
        await desk.steer("close")
        await desk.services.executor.finish(live)
        assert live.record.state == "completed"


async def test_requests_of_an_experiment_are_recorded_one_after_another(tmp_path: Path) -> None:
    """However many there are at once, and each of them once."""
    inside, record = 0, Control._record

    async def alone(self: Control, *args: Any) -> Any:
        nonlocal inside
        assert inside == 0
        inside += 1
        await asyncio.sleep(0)
        recorded = await record(self, *args)
        inside -= 1
        return recorded

    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan())

        async def request(number: int) -> dict[str, Any]:
            # The last ones begin while one of the first ones records and others wait.
            await wait.let_pass(0.001 * number)
            return await desk.steer("set", priority=number % 4, request_id=f"r-{number % 4}")

        with patch.object(Control, "_record", alone):
            replies = await asyncio.gather(*map(request, range(16)))
        assert sorted(reply["request"]["priority"] for reply in replies) == sorted(4 * list(range(4)))
        await desk.services.executor.publisher.publish()
        assert len({document["request_id"] for document in desk.broker.of("change")}) == 4


async def test_a_group_of_hundreds_is_changed_within_the_time_of_a_reply(tmp_path: Path) -> None:
    """Its members share commits, and the time for each doesn't depend on how many there are."""
    async with Desk.open(tmp_path) as desk:
        members = 200
        for number in range(members):
            await desk.submit(plan(f"member-{number}", points=1, group="many", hold=True))
        commits = desk.manifest.counters.commits
        with patch.object(control, "_PATIENCE_SECONDS", 0.0):
            reply = await desk.steer("set", group="many", priority=1)
        assert [change["changed"] for change in reply["changes"]] == [True] * members
        assert desk.manifest.counters.commits - commits < members


async def test_a_change_of_an_ended_experiment_is_in_its_status_after_a_crash(tmp_path: Path) -> None:
    """Nothing else brings the experiment back into memory."""
    async with Desk.open(tmp_path) as desk:
        live = await called_off(desk)
        await desk.steer("exclude")
        await desk.services.executor.finish(live)
        broker = desk.broker
    assert broker.statuses[-1]["excluded"] == 0
    async with Desk.open(tmp_path, broker=broker) as desk:
        assert (await reported(desk))["excluded"] == 2
    async with Desk.open(tmp_path, broker=broker) as desk:
        assert desk.ledger.live("reef") is None


async def test_changes_that_cancel_each_other_out_leave_the_status_as_it_is(tmp_path: Path) -> None:
    """It is looked at once."""
    async with Desk.open(tmp_path) as desk:
        live = await called_off(desk)
        for verb in ("exclude", "include"):
            await desk.steer(verb)
            await desk.services.executor.finish(live)
        broker = desk.broker
    before = len(broker.statuses)
    async with Desk.open(tmp_path, broker=broker) as desk:
        await reported(desk)
    async with Desk.open(tmp_path, broker=broker) as desk:
        assert desk.ledger.live("reef") is None
    assert len(broker.statuses) == before


async def called_off(desk: Desk) -> Live:
    """An experiment that was cancelled before its jobs started: these have no results, which would bring it back."""
    live = await desk.begin(plan())
    await desk.steer("cancel")
    await desk.services.executor.finish(live)
    await desk.report("reef")
    assert desk.broker.statuses[-1]["state"] == "cancelled"
    return live


async def reported(desk: Desk) -> dict[str, Any]:
    """The last status after the experiment was loaded at the start, and reported as a worker does then."""
    live = desk.ledger.live("reef")
    assert live is not None
    desk.reporter.notify(live.key)
    return await desk.report("reef")


async def test_a_change_of_an_experiment_that_was_not_in_memory_is_in_its_status(tmp_path: Path) -> None:
    """It stays in memory until that is published, also if the change leaves its record as it is."""
    async with Desk.open(tmp_path) as desk:
        await called_off(desk)
        assert desk.ledger.live("reef") is None
        assert (await desk.steer("exclude"))["applied"]
        assert (await desk.report("reef"))["excluded"] == 2
        assert desk.ledger.live("reef") is None
