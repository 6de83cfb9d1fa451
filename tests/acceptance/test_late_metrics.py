"""Metrics that the analysis layer computes after a run: jobs wait for them, time out, and can wait again."""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import nats
import pytest

from ems_worker import client
from tests.support import site as sites
from tests.support import wait
from tests.support.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with sites.site(tmp_path) as servers:
        yield servers


def plan(name: str, timeout_seconds: float) -> bytes:
    return json.dumps(
        {
            "experiment_id": name,
            "base_config": {"x": 0},
            "parameter_space": {"x": [1, 2]},
            "metrics_to_track": [
                "population",
                {"name": "diversity", "goal": "maximize", "from": "event", "timeout_seconds": timeout_seconds},
            ],
        }
    ).encode()


async def measure(site: Site, simulation_id: str, **metrics: float) -> None:
    """Publishes metrics as the analysis layer does, in plain JSON."""
    connection = await nats.connect(site.nats.url)
    event = {"simulation_id": simulation_id, "metrics": metrics, "source": "analysis"}
    await connection.jetstream().publish("sim.run_metrics", json.dumps(event).encode())
    await connection.close()


async def counts(ems: client.EmsClient, name: str, state: str, **wanted: int) -> client.Document:
    """Waits until an experiment has this state and these counts; returns its status."""

    async def look() -> client.Document:
        status = await ems.get(name)
        reached = status["state"] == state and all(status["counts"][key] == value for key, value in wanted.items())
        return status if reached else {}

    return await wait.until(look, timeout=20, what=f"{name} to have {wanted}")


async def test_a_job_waits_for_its_metrics_and_ends_when_they_come(site: Site) -> None:
    """A job waits even while the worker restarts, and its result has the run's metrics and the late metrics."""
    async with client.EmsClient(site.nats.url) as ems:
        async with site.worker() as worker:
            await site.ready()
            ack = await ems.publish(plan("waits", 600))
            await ems.decision(ack.seq, timeout=20)
            await counts(ems, "waits", "running", awaiting_metrics=2)
            await measure(site, "waits-p000000-r000-a1", diversity=0.25)
            await counts(ems, "waits", "running", awaiting_metrics=1, completed=1)
            await worker.kill()
        async with site.worker():
            await site.ready()
            await measure(site, "waits-p000001-r000-a1", diversity=0.75)
            final = await ems.wait("waits")
            assert final["state"] == "completed"
            assert final["metrics"]["diversity"]["mean"] == 0.5
            assert final["best"]["point"] == 1
            results = [result async for result in ems.results("waits")]
            assert [set(result["metrics"]) for result in results] == [{"population", "score", "diversity"}] * 2


@pytest.mark.long
def retried(change: Mapping[str, Any]) -> int:
    """How many jobs a retry takes."""
    return sum(sum(to.values()) for to in change["counts"].values())


async def test_missing_metrics_fail_the_job_and_a_retry_waits_again_without_a_new_run(site: Site) -> None:
    """The error is of kind metrics_missing, and the retry is a new round of the experiment with the same runs."""
    async with client.EmsClient(site.nats.url) as ems, site.worker():
        await site.ready()
        ack = await ems.publish(plan("late", 0.2))
        await ems.decision(ack.seq, timeout=20)
        final = await ems.wait("late")
        assert final["state"] == "failed"
        results = [result async for result in ems.results("late")]
        assert [result["error"]["kind"] for result in results] == ["metrics_missing"] * 2
        answer = await sites.changed(site, "retry", {"request_id": "again", "experiment_id": "late"})
        assert (answer["state"], retried(answer)) == ("running", 2)
        for point in (0, 1):
            await measure(site, f"late-p{point:06d}-r000-a1", diversity=float(point))
        status = await counts(ems, "late", "completed", completed=2)
        assert status["round"] == answer["round"] == 2
        jobs = [job async for job in ems.jobs("late", attempts=True)]
        assert [job["attempt"] for job in jobs] == [1, 1], "a new run was started"
        assert [job["job_revision"] for job in jobs] == [2, 2]


async def test_a_retry_gives_failed_jobs_a_new_attempt(tmp_path: Path) -> None:
    """If the new attempts complete, the experiment's second round is completed, and there is nothing left to retry."""
    async with sites.site(tmp_path, "--fail", "*-a1") as site, client.EmsClient(site.nats.url) as ems, site.worker():
        await site.ready()
        body = {"experiment_id": "fails", "base_config": {"x": 0}, "parameter_space": {"x": [1, 2, 3]}}
        ack = await ems.publish(json.dumps(body).encode())
        await ems.decision(ack.seq, timeout=20)
        assert (await ems.wait("fails"))["state"] == "failed"
        answer = await sites.changed(site, "retry", {"request_id": "again", "experiment_id": "fails"})
        assert retried(answer) == 3
        status = await counts(ems, "fails", "completed", completed=3)
        assert status["round"] == 2
        again = await sites.changed(site, "retry", {"request_id": "nothing left", "experiment_id": "fails"})
        assert (again["changed"], retried(again)) == (False, 0)


@pytest.mark.long
async def test_a_retry_that_can_not_be_recorded_ends_the_worker_and_succeeds_with_the_next(tmp_path: Path) -> None:
    """If the manifest refuses the change, the worker exits, and the same request succeeds after its restart."""
    async with sites.site(tmp_path, "--fail", "*-a1") as site, client.EmsClient(site.nats.url) as ems:
        body = {"experiment_id": "fails", "base_config": {"x": 0}, "limits": {"max_attempts": 1}}
        request = {"request_id": "again", "experiment_id": "fails"}
        async with site.worker() as worker:
            await site.ready()
            ack = await ems.publish(json.dumps(body).encode())
            await ems.decision(ack.seq, timeout=20)
            assert (await ems.wait("fails"))["state"] == "failed"
            with contextlib.closing(sqlite3.connect(tmp_path / "data" / "manifest.db")) as database:
                refusing = "CREATE TRIGGER refuse BEFORE INSERT ON changes BEGIN SELECT RAISE(ABORT, 'refused'); END"
                database.execute(refusing)
                with contextlib.suppress(json.JSONDecodeError, nats.errors.Error):
                    await sites.changed(site, "retry", request)
                assert await worker.wait(10) == 1
                database.execute("DROP TRIGGER refuse")
            lines = (json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{"))
            fatal = [line["kind"] for line in lines if line["event"] == "worker.fatal"]
            assert fatal == ["ManifestConflict"]
        async with site.worker():
            await site.ready()
            assert retried(await sites.changed(site, "retry", request)) == 1
            await counts(ems, "fails", "completed", completed=1)
