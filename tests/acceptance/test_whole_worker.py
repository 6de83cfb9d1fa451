"""The worker as the rest of the platform sees it: by NATS alone, by its probes, by its exit codes."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.js.errors
import pytest
from nats.aio.msg import Msg

from tests.support import processes, servers, wait, whole


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[tuple[str, whole.Worker, whole.Oracle]]:
    """A broker's address, a worker, and an orchestrator whose runs of `slow-*` go on until they are stopped."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--hold", "slow-*", "--fail", "bad-*:simulation") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        yield broker.url, worker, oracle


async def test_a_publisher_that_knows_nothing_of_this_project_gets_its_experiment_run(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """A subscriber follows it to its end; one that comes later gets the last status at once; both see the results."""
    server, worker, _ = platform
    heard: list[dict[str, Any]] = []

    async def hear(message: Msg) -> None:
        heard.append(json.loads(message.data))

    async with whole.client(server) as one:
        await one.subscribe("ems.experiment.status.*", cb=hear)
        await one.flush()
        await whole.publish(server, whole.plan("reef", 20, replicates=2))
        await wait.until(lambda: heard and heard[-1]["state"] == "completed", timeout=20)
        late = await one.jetstream().get_last_msg("EMS_STATUS", "ems.experiment.status.reef", direct=True)
        assert json.loads(late.data or b"") == heard[-1]
    assert {status["experiment_id"] for status in heard} == {"reef"}
    revisions = [status["revision"] for status in heard]
    assert revisions == sorted(set(revisions))
    progress = [status["progress"] for status in heard]
    assert progress == sorted(progress)
    assert heard[-1]["counts"] == {**dict.fromkeys(heard[-1]["counts"], 0), "completed": 40}
    results = await whole.stored(server, "ems.experiment.result.reef")
    assert len(results) == 40
    points = await whole.stored(server, "ems.experiment.point.reef")
    assert sorted(point["point"] for point in points) == list(range(20))
    mean = sum(one["metrics"]["population"] for one in results) / 40
    assert heard[-1]["metrics"]["population"]["mean"] == pytest.approx(mean)
    left = worker.data_dir / "reef.manifest.jsonl"
    assert len(left.read_text().splitlines()) == 40
    assert oct(left.stat().st_mode & 0o777) == "0o600"


async def test_a_decision_is_where_the_publishers_acknowledgement_says(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """By the sequence of the submission; a plan that can't be read is in the dead letters."""
    server, _, _ = platform
    async with whole.client(server) as one:
        stream = one.jetstream()
        wrong = await stream.publish("ems.experiment.submit.tester", b'{"experiment_id": "x", "base_confg": {}}')
        await stream.publish("ems.experiment.submit", b"\xff\xff")

        async def decided() -> dict[str, Any] | None:
            try:
                message = await stream.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{wrong.seq}")
            except nats.js.errors.NotFoundError:
                return None
            found: dict[str, Any] = json.loads(message.data or b"")
            return found

        decision = await wait.until(decided)
        assert decision is not None
        assert decision["decision"] == "rejected"
        assert decision["submission"] == {"stream": "EMS_PLANS", "seq": wrong.seq}
        assert any("base_config" in str(problem.get("suggestion")) for problem in decision["errors"])
        dead = await wait.until(lambda: letters(server))
        assert "UTF-8" in dead["Ems-Reason"]


async def test_a_plan_for_another_version_of_the_model_is_rejected(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """With the place of the key; one for the orchestrator's own is run, and its results have the version."""
    server, _, starts = platform
    async with whole.client(server) as one:
        await whole.publish(server, whole.plan("mine", 2, model_version="oracle-1"))
        await whole.ended(server, "mine")
        assert {one["model_version"] for one in await whole.stored(server, "ems.experiment.result.mine")} == {
            "oracle-1"
        }
        heard = await one.subscribe("ems.experiment.decision.*")
        await one.flush()
        await whole.publish(server, whole.plan("other", 2, model_version="oracle-2"))
        decision = json.loads((await heard.next_msg(timeout=10)).data)
        assert decision["decision"] == "rejected"
        [problem] = decision["errors"]
        assert (problem["code"], problem["path"], problem["line"]) == ("model_version", "model_version", 1)
        assert "'oracle-1'" in problem["message"]
    assert sorted(starts.accepted()) == ["mine-p000000-r000-a1", "mine-p000001-r000-a1"]


async def letters(server: str) -> dict[str, str]:
    async with whole.client(server) as one:
        info = await one.jetstream().stream_info("EMS_DLQ")
        if not info.state.messages:
            return {}
        return dict((await one.jetstream().get_msg("EMS_DLQ", info.state.last_seq)).headers or {})


async def test_its_probes_and_metrics_tell_how_it_is(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """Not ready while the orchestrator is away, healthy all the time, ready again by itself."""
    server, worker, oracle = platform
    await whole.publish(server, whole.plan("slow-reef", 3))

    async def running() -> bool:
        return "ems_open_runs 3.0" in (await worker.ask("/metrics"))[1]

    await wait.until(running)
    metrics = (await worker.ask("/metrics"))[1]
    assert 'ems_submissions_total{decision="accepted"} 1.0' in metrics
    assert "ems_jobs_expanded_total 3.0" in metrics
    assert "ems_broker_connected 1.0" in metrics
    await oracle.kill()

    async def not_ready() -> bool:
        code, body = await worker.ask("/readyz")
        return code == 503 and "orchestrator" in json.loads(body)["troubles"]

    await wait.until(not_ready)
    assert (await worker.ask("/healthz"))[0] == 200
    oracle.start()
    await worker.ready()


async def test_failures_over_the_limit_fail_the_experiment(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """Fast where the plan says so: what runs is stopped, what waits is cancelled."""
    server, _, _ = platform
    fast = whole.plan("bad-reef", 5, limits={"max_attempts": 1, "fail_fast": True, "max_concurrent": 1})
    await whole.publish(server, fast)
    status = await whole.ended(server, "bad-reef")
    assert status["state"] == "failed"
    assert status["counts"]["failed"] >= 1
    assert status["counts"]["failed"] + status["counts"]["cancelled"] == 5


async def test_a_run_over_its_limit_is_stopped_and_tried_again(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """As often as the plan allows."""
    server, worker, _ = platform
    await whole.publish(server, whole.plan("slow-reef", 1, limits={"max_attempts": 2, "run_timeout_seconds": 0.5}))
    status = await whole.ended(server, "slow-reef")
    assert (status["state"], status["counts"]["failed"]) == ("failed", 1)
    runs = whole.rows(worker.data_dir / "manifest.db", "SELECT attempt, state, error_kind FROM v_runs ORDER BY attempt")
    assert runs == [(1, "failed", "timeout"), (2, "failed", "timeout")]


async def test_a_data_directory_that_can_not_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    """With exit code 2, and no traceback."""
    (tmp_path / "data").write_text("a file is in the way")
    worker = whole.Worker(tmp_path, "nats://127.0.0.1:1", "127.0.0.1:1")
    worker.start()
    assert await worker.wait(20) == 2
    assert "can't be" in worker.lines()[-1]["reason"]


async def test_a_file_that_can_not_be_left_behind_keeps_no_experiment_from_its_end(tmp_path: Path) -> None:
    """It is told in the log, and the experiment's end all the same."""
    (tmp_path / "export").write_text("a file is in the way")
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url) as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target, EMS_EXPORT_DIR=str(tmp_path / "export")) as worker,
    ):
        await whole.publish(broker.url, whole.plan("reef", 2))
        assert (await whole.ended(broker.url, "reef"))["state"] == "completed"
        assert "experiment.manifest_not_written" in [line["event"] for line in worker.lines()]
        assert worker.running


@pytest.mark.long
async def test_one_plan_that_is_not_read_as_accepted_keeps_no_other_from_going_on(tmp_path: Path) -> None:
    """A worker without the extra that a plan needed starts, names it in its probe, and leaves it to one that has it."""
    shadow = tmp_path / "without" / "scipy"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError")
    without = {"PYTHONPATH": str(shadow.parent)}
    sampled: dict[str, Any] = {
        "parameter_space": {"food": {"dist": "int", "low": 0, "high": 9}},
        "design": {"sampler": "lhs", "samples": 3},
    }
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--hold", "slow-*") as oracle,
    ):
        async with whole.Worker(tmp_path, broker.url, oracle.target):
            await whole.publish(broker.url, whole.plan("slow-sampled", 3, **sampled))
            await wait.until(lambda: len(oracle.accepted()) == 3, what="the runs to start")
        worker = whole.Worker(tmp_path, broker.url, oracle.target, **without)
        worker.start()

        async def told() -> dict[str, str] | None:
            assert worker.running, f"the worker ended with {worker.exit_code}: {worker.last_words()}"
            code, body = await worker.ask("/readyz")
            troubles: dict[str, str] = json.loads(body)["troubles"] if code == 503 else {}
            return troubles if {*troubles} == {"experiments"} else None

        try:
            troubles = await wait.until(told, timeout=20, what="the trouble to be told")
            assert troubles is not None
            assert "slow-sampled" in troubles["experiments"]
            await whole.publish(broker.url, whole.plan("other", 2))
            assert (await whole.ended(broker.url, "other"))["state"] == "completed"
            [line] = [line for line in worker.lines() if line["event"] == "experiment.left_out"]
            assert (line["level"], line["experiment_id"]) == ("error", "slow-sampled")
        finally:
            await worker.stop(15)
        async with whole.Worker(tmp_path, broker.url, oracle.target):
            async with whole.client(broker.url) as one:
                for point in range(3):
                    event = {"simulation_id": f"slow-sampled-p{point:06d}-r000-a1", "metrics": {"population": 1}}
                    await one.publish("sim.run_completed", json.dumps(event).encode())
                await one.flush()
            assert (await whole.ended(broker.url, "slow-sampled"))["state"] == "completed"


async def test_told_to_end_it_does_not_wait_for_a_broker_that_is_stuck(tmp_path: Path) -> None:
    """A server that takes connections and says nothing; what is left undone the next start recovers."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--hold", "slow-*") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target, EMS_SHUTDOWN_SECONDS="3") as worker,
    ):
        await whole.publish(broker.url, whole.plan("slow-reef", 3))
        await wait.until(lambda: len(oracle.accepted()) == 3)
        processes.stop(broker.pid)
        try:
            worker.signal(signal.SIGTERM)
            assert await worker.wait(6) == 0
        finally:
            os.kill(broker.pid, signal.SIGCONT)
