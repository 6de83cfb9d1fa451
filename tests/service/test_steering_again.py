"""Changes that were published before a restore, and what an experiment that only a change kept open does."""

from pathlib import Path

from tests.support.desk import Desk, plan


async def test_a_published_change_that_the_backup_has_is_not_applied_again(tmp_path: Path) -> None:
    """It is recognised by its request, even if that expected a revision which is long gone."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan())
        document = await desk.steer("pause", expect_revision=live.record.revision)
        await desk.steer("resume")
        assert not await desk.services.control.apply_again("reef", document, documents=2)
        assert live.record.state == "running"


async def test_a_published_change_that_the_backup_lacks_is_applied_again(tmp_path: Path) -> None:
    """Whatever the revision is that the experiment has by now. Its documents aren't published again."""
    async with Desk.open(tmp_path / "before") as desk:
        live = await desk.begin(plan())
        document = await desk.steer("pause", expect_revision=live.record.revision)
    async with Desk.open(tmp_path / "after") as desk:
        live = await desk.begin(plan())
        await desk.report("reef")
        assert await desk.services.control.apply_again("reef", document, documents=2)
        assert live.record.state == "paused"
        await desk.services.executor.publish()
        assert desk.broker.of("change") == []


async def test_a_published_change_whose_id_means_another_one_is_left_out(tmp_path: Path) -> None:
    """A restored worker must not stop at a request that it would refuse."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan())
        document = await desk.steer("pause", request_id="mine")
        other = {**document, "verb": "resume"}
        assert not await desk.services.control.apply_again("reef", other, documents=2)


async def test_close_ends_an_experiment_whose_jobs_have_ended(tmp_path: Path) -> None:
    """Nothing else happens to it that could end it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, keep_open=True))
        await desk.complete(await desk.launch(live), [1])
        assert live.record.state == "running"
        await desk.steer("close")
        await desk.services.executor.finish(live)
        assert live.record.state == "completed"
