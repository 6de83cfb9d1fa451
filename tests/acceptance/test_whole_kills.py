"""kill -9 during an experiment: every job ends exactly once, no run starts twice, every result is published once."""

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
    """Asserts that all jobs completed in their first run, each with one result, and that the worker logged no error."""
    status = await whole.ended(server, experiment_id)
    assert (status["state"], status["counts"]["completed"], status["total"]) == ("completed", jobs, jobs)
    manifest = worker.data_dir / "manifest.db"
    recorded = whole.rows(manifest, "SELECT state, attempts, job_revision FROM v_jobs")
    assert Counter(recorded) == {("completed", 1, 1): jobs}
    results = await whole.stored(server, f"ems.experiment.result.{experiment_id}")
    assert {(result["point"], result["replicate"], result["job_revision"]) for result in results} == {
        (point, 0, 1) for point in range(jobs)
    }
    seqs = {result["seq"] for result in results}
    assert seqs == set(range(1, jobs + 1))
    assert [line for line in worker.lines() if line["event"] in ("worker.fatal", "ledger.not_recorded")] == []


@pytest.mark.parametrize(
    "victim",
    ["worker", pytest.param("orchestrator", marks=pytest.mark.long), pytest.param("broker", marks=pytest.mark.long)],
)
async def test_every_job_ends_once_when_a_part_is_killed_repeatedly(tmp_path: Path, victim: str) -> None:
    """Each part may be killed after a quarter, a half and three quarters of an experiment."""
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
        for started in (JOBS // 4, JOBS // 2, 3 * JOBS // 4):
            await runs_started(oracle, started)
            assert len(oracle.accepted()) < JOBS
            await kill[victim]()
        await check(broker.url, worker, "reef", JOBS)
        accepted = oracle.accepted()
        assert len(accepted) == JOBS
        assert set(accepted.values()) == {1}


async def runs_started(oracle: whole.Oracle, runs: int) -> None:
    """Waits until the orchestrator has accepted this number of runs."""
    await wait.until(lambda: len(oracle.accepted()) >= runs, timeout=30, what=f"{runs} starts")


async def restart(worker: whole.Worker) -> None:
    """Kills a worker and starts it again."""
    await worker.kill()
    worker.start()


@pytest.mark.long
async def test_a_killed_orchestrator_starts_no_simulation_twice(tmp_path: Path) -> None:
    """Simulations that died with the local orchestrator are retried as attempt 2, and none starts twice."""
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
async def test_a_lost_manifest_is_recreated_from_the_streams(tmp_path: Path) -> None:
    """A worker with an empty data directory refuses to start until its consumers are deleted."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--slots", "20", "--delay", "0.1") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("over", 30))
        await whole.ended(broker.url, "over")
        await whole.publish(broker.url, whole.plan("half", 120))
        await runs_started(oracle, 90)
        await worker.kill()
        shutil.rmtree(worker.data_dir)
        worker.start()
        assert await worker.wait(30) == 4
        assert "belongs to another manifest" in worker.lines()[-1]["reason"]

        async with whole.client(broker.url) as connection:
            jetstream = connection.jetstream()
            await jetstream.delete_consumer("EMS_PLANS", "ems-worker-plans")
            await jetstream.delete_consumer("SIM_EVENTS", "ems-worker-events")
            # A high revision, as after a long run. Readers drop statuses with a lower revision.
            last = {**(await whole.status(broker.url, "half") or {}), "revision": 300}
            await jetstream.publish("ems.experiment.status.half", json.dumps(last).encode())
        worker.start()
        end = await whole.ended(broker.url, "half")
        assert end["counts"]["completed"] == 120
        assert end["revision"] > 300
        states = whole.rows(worker.data_dir / "manifest.db", "SELECT experiment_id, state FROM v_jobs")
        assert Counter(states) == {("over", "completed"): 30, ("half", "completed"): 120}
        accepted = oracle.accepted()
        assert (len(accepted), set(accepted.values())) == (150, {1})


async def test_a_plan_with_the_sequence_of_a_lost_plan_is_decided(tmp_path: Path) -> None:
    """If a power failure truncates the stream of plans, the broker reuses sequence numbers for other plans."""
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
async def test_a_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    """On SIGTERM the worker exits with code 0 within ten seconds, and the next worker continues."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--slots", "50", "--delay", "0.02") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        await whole.publish(broker.url, whole.plan("reef", 1200))
        for started in (200, 600):
            await runs_started(oracle, started)
            worker.signal(signal.SIGTERM)
            assert await worker.wait(10) == 0
            assert worker.lines()[-1]["event"] == "worker.stopped"
            worker.start()
        await check(broker.url, worker, "reef", 1200)
        assert set(oracle.accepted().values()) == {1}
