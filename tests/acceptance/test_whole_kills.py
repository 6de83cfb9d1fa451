"""kill -9 in mid-experiment: every job ends exactly once, nothing is started twice, every result is told once."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers, wait, whole

JOBS = 240


async def check(server: str, worker: whole.Worker, experiment_id: str, jobs: int) -> None:
    """What has to be so after any crash."""
    status = await whole.ended(server, experiment_id)
    assert (status["state"], status["counts"]["completed"], status["total"]) == ("completed", jobs, jobs)
    manifest = worker.data_dir / "manifest.db"
    found = whole.rows(manifest, "SELECT state, attempts, job_revision FROM v_jobs")
    assert Counter(found) == {("completed", 1, 1): jobs}
    results = await whole.stored(server, f"ems.experiment.result.{experiment_id}")
    assert {(one["point"], one["replicate"], one["job_revision"]) for one in results} == {
        (point, 0, 1) for point in range(jobs)
    }
    seqs = {one["seq"] for one in results}
    assert seqs == set(range(1, jobs + 1))
    assert [line for line in worker.lines() if line["event"] in ("worker.fatal", "ledger.not_recorded")] == []


@pytest.mark.parametrize(
    "victim",
    ["worker", pytest.param("orchestrator", marks=pytest.mark.long), pytest.param("broker", marks=pytest.mark.long)],
)
async def test_killed_and_started_again_everything_ends_once(tmp_path: Path, victim: str) -> None:
    """Three times in one experiment, at a quarter, a half, and three quarters of it."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--slots", "20", "--delay", "0.05") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("reef", JOBS))
        kill: dict[str, Callable[[], Awaitable[None]]] = {
            "worker": lambda: restart(worker),
            "orchestrator": lambda: oracle.restart(crash=True),
            "broker": lambda: broker.restart(crash=True),
        }
        for part in (JOBS // 4, JOBS // 2, 3 * JOBS // 4):
            await begun(oracle, part)
            assert len(oracle.accepted()) < JOBS
            await kill[victim]()
        await check(broker.url, worker, "reef", JOBS)
        accepted = oracle.accepted()
        assert len(accepted) == JOBS
        assert set(accepted.values()) == {1}


async def begun(oracle: whole.Oracle, runs: int) -> None:
    await wait.until(lambda: len(oracle.accepted()) >= runs, timeout=30, what=f"{runs} starts")


async def restart(worker: whole.Worker) -> None:
    await worker.kill()
    worker.start()


@pytest.mark.long
async def test_the_real_orchestrator_killed_starts_no_simulation_twice(tmp_path: Path) -> None:
    """Each simulation leaves a line in a file when it starts; those that died with it are tried again as attempt 2."""
    journal = tmp_path / "journal"
    simulator = f"sh -c 'echo $0 >> {journal}; sleep 0.2' {{simulation_id}}"
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        local_orchestrator.Orchestrator(broker.url, tmp_path, slots=4, simulator=simulator) as orchestrator,
        whole.Worker(tmp_path, broker.url, orchestrator.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("reef", 30))
        await wait.until(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 8, timeout=30)
        await orchestrator.restart(crash=True)
        status = await whole.ended(broker.url, "reef")
        assert (status["state"], status["counts"]["completed"]) == ("completed", 30)
        started = Counter(journal.read_text().split())
        assert {name: count for name, count in started.items() if count > 1} == {}
        runs = whole.rows(worker.data_dir / "manifest.db", "SELECT simulation_id, state FROM v_runs")
        assert {name for name, state in runs if state == "completed"} <= set(started)
        known = await orchestrator.status("reef-p000000-r000-a1")
        assert known.state in (pb.SIMULATION_STATE_COMPLETED, pb.SIMULATION_STATE_FAILED)


@pytest.mark.long
async def test_a_lost_manifest_is_made_anew_from_the_streams(tmp_path: Path) -> None:
    """Not by mistake: a worker with another data directory doesn't start until the consumers are deleted."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--slots", "20", "--delay", "0.1") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("over", 30))
        await whole.ended(broker.url, "over")
        await whole.publish(broker.url, whole.plan("half", 120))
        await begun(oracle, 90)
        await worker.kill()
        shutil.rmtree(worker.data_dir)
        worker.start()
        assert await worker.wait(30) == 4
        assert "belongs to another manifest" in worker.lines()[-1]["reason"]

        async with whole.client(broker.url) as one:
            await one.jetstream().delete_consumer("EMS_PLANS", "ems-worker-plans")
            await one.jetstream().delete_consumer("SIM_EVENTS", "ems-worker-events")
            # As after a long run: readers drop what has a lower revision.
            last = {**(await whole.status(broker.url, "half") or {}), "revision": 300}
            await one.jetstream().publish("ems.experiment.status.half", json.dumps(last).encode())
        worker.start()
        end = await whole.ended(broker.url, "half")
        assert end["counts"]["completed"] == 120
        assert end["revision"] > 300
        states = whole.rows(worker.data_dir / "manifest.db", "SELECT experiment_id, state FROM v_jobs")
        assert Counter(states) == {("over", "completed"): 30, ("half", "completed"): 120}
        accepted = oracle.accepted()
        assert (len(accepted), set(accepted.values())) == (150, {1})


async def test_a_plan_at_a_lost_plans_sequence_is_decided(tmp_path: Path) -> None:
    """A power failure may take the end of a stream: the broker then gives its sequences to other plans."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url) as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("kept", 3))
        await whole.ended(broker.url, "kept")
        await broker.kill()
        [stream] = (tmp_path / "nats").rglob("streams/EMS_PLANS")
        shutil.copytree(stream, tmp_path / "before")
        await broker.start()
        await whole.publish(broker.url, whole.plan("lost", 3))
        await whole.ended(broker.url, "lost")
        await broker.kill()
        shutil.rmtree(stream)
        shutil.copytree(tmp_path / "before", stream)
        await broker.start()
        await whole.publish(broker.url, whole.plan("next", 3))
        assert (await whole.ended(broker.url, "next"))["counts"]["completed"] == 3
        query = "SELECT seq, experiment_id FROM submissions ORDER BY received_ms"
        assert whole.rows(worker.data_dir / "manifest.db", query) == [(1, "kept"), (2, "lost"), (2, "next")]


@pytest.mark.long
async def test_told_to_end_under_load_it_loses_nothing(tmp_path: Path) -> None:
    """Within ten seconds, with exit code 0; the next one goes on."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--slots", "50", "--delay", "0.02") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("reef", 1200))
        for part in (200, 600):
            await begun(oracle, part)
            worker.signal(signal.SIGTERM)
            assert await worker.wait(10) == 0
            assert worker.lines()[-1]["event"] == "worker.stopped"
            worker.start()
        await check(broker.url, worker, "reef", 1200)
        assert set(oracle.accepted().values()) == {1}
