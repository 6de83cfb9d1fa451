"""Results that were published before a restore."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ems_worker.core.lifecycle.run import Run
from tests.support.desk import Desk, plan


async def ended(desk: Desk) -> str:
    """An experiment of one job, which completes; the id of its run."""
    [name] = await desk.launch(await desk.begin(plan(points=1)))
    await desk.complete([name], [1])
    await desk.report("reef")
    return name


def publish(desk: Desk, **changes: Any) -> None:
    """Has the stream a result that this manifest doesn't have."""
    document = desk.broker.of("result")[-1] | changes
    desk.broker.published.append(("ems.experiment.result.reef", document, "before-the-restore"))


async def run(desk: Desk, name: str) -> Run:
    return (await desk.row(name)).run


OTHERWISE: list[dict[str, Any]] = [
    {"state": "lost"},
    {"excluded": "wrong"},
    {"job_revision": 3, "state": "lost"},
    {"simulation_id": "reef-p000000-r000-a2", "job_revision": 3},
]


@pytest.mark.parametrize("published", OTHERWISE)
async def test_a_job_that_ended_otherwise_has_one_end_more(tmp_path: Path, published: dict[str, Any]) -> None:
    """Its readers take the result with the highest revision, also if its experiment has ended long ago."""
    async with Desk.open(tmp_path) as desk:
        name = await ended(desk)
        publish(desk, **published)
        assert desk.ledger.live("reef") is None
        await desk.services.replay.results.catch_up(0)
        await desk.report("reef")
        last = desk.broker.of("result")[-1]
        assert (last["simulation_id"], last["state"], last["excluded"]) == (name, "completed", None)
        assert last["job_revision"] == published.get("job_revision", 1) + 1


async def test_a_job_that_ended_so_has_the_published_number_of_ends(tmp_path: Path) -> None:
    """It isn't published again."""
    async with Desk.open(tmp_path) as desk:
        name = await ended(desk)
        publish(desk, job_revision=4)
        before = len(desk.broker.of("result"))
        await desk.services.replay.results.catch_up(0)
        assert (await run(desk, name)).job_revision == 4
        await desk.report("reef")
        assert len(desk.broker.of("result")) == before
        assert desk.ledger.live("reef") is None


async def test_a_job_that_has_not_ended_counts_on_from_the_published_ends(tmp_path: Path) -> None:
    """Its next end has the next number."""
    async with Desk.open(tmp_path / "before") as desk:
        name = await ended(desk)
        document = desk.broker.of("result")[-1] | {"job_revision": 2}
    async with Desk.open(tmp_path / "restored") as desk:
        live = await desk.begin(plan(points=1))
        desk.broker.published.append(("ems.experiment.result.reef", document, "before-the-restore"))
        await desk.services.replay.results.catch_up(0)
        await desk.complete(await desk.launch(live), [1])
        assert (await run(desk, name)).job_revision == 3


async def test_older_results_and_those_of_unknown_jobs_change_nothing(tmp_path: Path) -> None:
    """The manifest has more ends of this job than were published since the backup."""
    async with Desk.open(tmp_path) as desk:
        name = await ended(desk)
        before = await run(desk, name)
        publish(desk, job_revision=0, state="lost")
        publish(desk, simulation_id="reef-p000007-r000-a1", state="lost")
        publish(desk, simulation_id="nobody-p000007-r000-a1", experiment_id="nobody")
        # A document about one experiment that names a run of another one.
        other = await desk.begin(plan("other", points=1))
        publish(desk, simulation_id="other-p000000-r000-a1", job_revision=9)
        await desk.services.replay.results.catch_up(0)
        assert await run(desk, name) == before
        assert [row.run.job_revision for row in await desk.rows("reef")] == [1]
        assert (await run(desk, "other-p000000-r000-a1")).job_revision == 9
        assert (desk.ledger.live("other"), other.record.state) == (other, "running")


async def test_many_results_are_compared_in_batches(tmp_path: Path) -> None:
    """Each batch is one commit."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=250))
        await desk.complete(await desk.launch(live), [1] * 250)
        await desk.report("reef")
        results = desk.broker.of("result")
        for document in results:
            published = document | {"job_revision": 2}
            desk.broker.published.append(("ems.experiment.result.reef", published, "before-the-restore"))
        before = desk.manifest.counters.commits
        await desk.services.replay.results.catch_up(0)
        assert {row.run.job_revision for row in await desk.rows("reef")} == {2}
        assert desk.manifest.counters.commits - before <= 6


async def test_an_experiment_whose_plan_cannot_be_read_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It doesn't stop the recovery of others."""
    axis = {"food": {"dist": "int", "low": 0, "high": 9}}
    sampled = plan(parameter_space=axis, design={"sampler": "lhs", "samples": 1})
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(sampled))
        await desk.complete([name], [1])
        await desk.report("reef")
        publish(desk, job_revision=4)
        broker = desk.broker
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    async with Desk.open(tmp_path, broker=broker) as desk:
        await desk.services.replay.results.catch_up(0)
        assert list(desk.ledger.unreadable) == ["reef"]


async def test_an_attempt_that_a_result_tells_of_has_ended(tmp_path: Path) -> None:
    """No event tells how, so it is lost, and the job is not run again."""
    async with Desk.open(tmp_path / "before") as desk:
        await ended(desk)
        document = desk.broker.of("result")[-1]
    document |= {"simulation_id": "reef-p000000-r000-a2", "attempt": 2, "state": "failed", "job_revision": 2}
    async with Desk.open(tmp_path / "restored") as desk:
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        desk.broker.published.append(("ems.experiment.result.reef", document, "before-the-restore"))
        await desk.services.replay.results.catch_up(0)
        assert live.record.state == "failed"
        await desk.report("reef")
        last = desk.broker.of("result")[-1]
        assert (last["simulation_id"], last["state"], last["job_revision"]) == (document["simulation_id"], "lost", 3)


async def test_attempts_of_which_events_tell_are_added(tmp_path: Path) -> None:
    """Their events are then applied as those of any other run."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        await desk.launch(live, 1)
        names = ["reef-p000000-r000-a3", "reef-p000001-r000-a2", "reef-p000002-r000-a1", "reef-p000009-r000-a2", "x-a2"]
        await desk.services.replay.attempts.add(names)
        await desk.complete(names[:3], [1, 2, 3])
        assert live.record.state == "completed"
        attempts = [(row.run.attempt, row.run.state) for row in await desk.rows("reef") if row.run.current]
        assert attempts == [(3, "completed"), (2, "completed"), (1, "completed")]
        assert (await run(desk, "reef-p000000-r000-a2")).state == "lost"
        await desk.services.replay.attempts.add(["reef-p000002-r000-a2"])
        assert len(await desk.rows("reef")) == 6
