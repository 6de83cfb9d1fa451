"""The worker as the rest of the platform sees it: its messages on NATS, its probes and its exit codes."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.js.errors
import pytest
from nats.aio.msg import Msg

from tests.support import broker, orchestrator_client, processes, servers, wait, whole


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[tuple[str, whole.Worker, whole.Oracle]]:
    """A broker's address, a worker and an orchestrator.

    Runs of `slow-*` run until they are stopped, and runs of `bad-*` fail.
    """
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url, "--hold", "slow-*", "--fail", "bad-*:simulation") as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target) as worker,
    ):
        yield broker.url, worker, oracle


async def test_a_plain_nats_client_can_run_an_experiment(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """A subscriber receives every status up to the last, which is also stored, and the results are complete."""
    server, worker, _ = platform
    received: list[dict[str, Any]] = []

    async def receive(message: Msg) -> None:
        received.append(json.loads(message.data))

    async with whole.client(server) as connection:
        await connection.subscribe("ems.experiment.status.*", cb=receive)
        await broker.subscribed(connection)
        await whole.publish(server, whole.plan("reef", 20, replicates=2))
        await wait.until(lambda: received and received[-1]["state"] == "completed", timeout=20)
        jetstream = connection.jetstream()
        stored = await jetstream.get_last_msg("EMS_STATUS", "ems.experiment.status.reef", direct=True)
        assert json.loads(stored.data or b"") == received[-1]
    assert {status["experiment_id"] for status in received} == {"reef"}
    revisions = [status["revision"] for status in received]
    assert revisions == sorted(set(revisions))
    progress = [status["progress"] for status in received]
    assert progress == sorted(progress)
    assert received[-1]["counts"] == {**dict.fromkeys(received[-1]["counts"], 0), "completed": 40}
    results = await whole.stored(server, "ems.experiment.result.reef")
    assert len(results) == 40
    points = await whole.stored(server, "ems.experiment.point.reef")
    assert sorted(point["point"] for point in points) == list(range(20))
    mean = sum(result["metrics"]["population"] for result in results) / 40
    assert received[-1]["metrics"]["population"]["mean"] == pytest.approx(mean)
    export = worker.data_dir / "reef.manifest.jsonl"
    assert len(export.read_text().splitlines()) == 40
    assert oct(export.stat().st_mode & 0o777) == "0o600"


async def test_a_decision_has_the_sequence_of_the_publishers_acknowledgement(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """The decision's subject and `submission` have the sequence, and an unreadable plan becomes a dead letter."""
    server, _, _ = platform
    async with whole.client(server) as connection:
        stream = connection.jetstream()
        wrong = await stream.publish("ems.experiment.submit.tester", b'{"experiment_id": "x", "base_confg": {}}')
        await stream.publish("ems.experiment.submit", b"\xff\xff")

        async def decided() -> dict[str, Any] | None:
            try:
                message = await stream.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{wrong.seq}")
            except nats.js.errors.NotFoundError:
                return None
            document: dict[str, Any] = json.loads(message.data or b"")
            return document

        decision = await wait.until(decided)
        assert decision is not None
        assert decision["decision"] == "rejected"
        assert decision["submission"] == {"stream": "EMS_PLANS", "seq": wrong.seq}
        assert any("base_config" in str(problem.get("suggestion")) for problem in decision["errors"])
        headers = await wait.until(lambda: last_dead_letter(server))
        assert "UTF-8" in headers["Ems-Reason"]


async def test_what_runs_need_arrives_at_the_orchestrator(tmp_path: Path) -> None:
    """As labels of every start, beside those of the plan and of its entries."""
    program = servers.GrpcProgram(orchestrator_client.MODULE, ["--capacity", "10"], log=tmp_path / "orchestrator.log")
    given = whole.plan(
        "reef",
        1,
        resources={"cpus": 0.5, "memory": "4GiB", "gpus": 1},
        simulator="reef-2",
        labels={"wave": "3"},
        runs=[{"labels": {"side": side}} for side in ("left", "right")],
    )
    expected = {"ems.resources.cpus=0.5": 2, "ems.resources.memory=4294967296": 2, "ems.resources.gpus=1": 2}
    expected |= {"ems.simulator=reef-2": 2, "wave=3": 2, "side=left": 1, "side=right": 1}
    async with servers.NatsServer(tmp_path / "nats") as broker, program:
        async with (
            whole.Worker(tmp_path, broker.url, program.target),
            orchestrator_client.connected(program, deadline=10.0, window=1) as asking,
        ):
            await whole.publish(broker.url, given)

            async def labels() -> bool:
                calls = await orchestrator_client.calls(asking)
                return {name: calls[name] for name in calls if "=" in name} == expected

            await wait.until(labels, what="the labels of both starts")


async def test_a_plan_for_another_version_of_the_model_is_rejected(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """The problem has the position of the key. A plan for the right version runs, and its results have the version."""
    server, _, oracle = platform
    async with whole.client(server) as connection:
        await whole.publish(server, whole.plan("mine", 2, model_version="oracle-1"))
        await whole.ended(server, "mine")
        assert {result["model_version"] for result in await whole.stored(server, "ems.experiment.result.mine")} == {
            "oracle-1"
        }
        decisions = await connection.subscribe("ems.experiment.decision.*")
        await broker.subscribed(connection)
        await whole.publish(server, whole.plan("other", 2, model_version="oracle-2"))
        decision = json.loads((await decisions.next_msg(timeout=10)).data)
        assert decision["decision"] == "rejected"
        [problem] = decision["errors"]
        assert (problem["code"], problem["path"], problem["line"]) == ("model_version", "model_version", 1)
        assert "'oracle-1'" in problem["message"]
    assert sorted(oracle.accepted()) == ["mine-p000000-r000-a1", "mine-p000001-r000-a1"]


async def last_dead_letter(server: str) -> dict[str, str]:
    """The headers of the last dead letter; empty if there is none."""
    async with whole.client(server) as connection:
        info = await connection.jetstream().stream_info("EMS_DLQ")
        if not info.state.messages:
            return {}
        return dict((await connection.jetstream().get_msg("EMS_DLQ", info.state.last_seq)).headers or {})


async def test_probes_and_metrics_reflect_the_workers_state(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """While the orchestrator is away the worker is healthy but not ready, and then becomes ready again by itself."""
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
    """With fail_fast running jobs are stopped and waiting jobs are cancelled as soon as too many jobs failed."""
    server, _, _ = platform
    fast = whole.plan("bad-reef", 5, limits={"max_attempts": 1, "fail_fast": True, "max_concurrent": 1})
    await whole.publish(server, fast)
    status = await whole.ended(server, "bad-reef")
    assert status["state"] == "failed"
    assert status["counts"]["failed"] >= 1
    assert status["counts"]["failed"] + status["counts"]["cancelled"] == 5


async def test_a_run_over_its_time_limit_is_stopped_and_retried(
    platform: tuple[str, whole.Worker, whole.Oracle],
) -> None:
    """Every attempt that the plan allows fails with the kind timeout."""
    server, worker, _ = platform
    await whole.publish(server, whole.plan("slow-reef", 1, limits={"max_attempts": 2, "run_timeout_seconds": 0.5}))
    status = await whole.ended(server, "slow-reef")
    assert (status["state"], status["counts"]["failed"]) == ("failed", 1)
    runs = whole.rows(worker.data_dir / "manifest.db", "SELECT attempt, state, error_kind FROM v_runs ORDER BY attempt")
    assert runs == [(1, "failed", "timeout"), (2, "failed", "timeout")]


async def test_a_data_directory_that_can_not_be_created_is_logged(tmp_path: Path) -> None:
    """The log has the reason without a traceback, and the exit code is 2."""
    (tmp_path / "data").write_text("a file is in the way")
    worker = whole.Worker(tmp_path, "nats://127.0.0.1:1", "127.0.0.1:1")
    worker.start()
    assert await worker.wait(20) == 2
    assert "can't be" in worker.lines()[-1]["reason"]


async def test_an_experiment_ends_even_if_its_manifest_file_can_not_be_written(tmp_path: Path) -> None:
    """The failure is logged, and the terminal status is published."""
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
async def test_an_accepted_plan_that_can_not_be_loaded_does_not_affect_other_experiments(tmp_path: Path) -> None:
    """A worker without the extra that a plan needs reports the experiment and leaves it to a worker that has it."""
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

        async def reported() -> dict[str, str] | None:
            assert worker.running, f"the worker ended with {worker.exit_code}: {worker.last_words()}"
            code, body = await worker.ask("/readyz")
            problems: dict[str, str] = json.loads(body)["troubles"] if code == 503 else {}
            return problems if {*problems} == {"experiments"} else None

        try:
            problems = await wait.until(reported, timeout=20, what="the problem to be reported")
            assert problems is not None
            assert "slow-sampled" in problems["experiments"]
            await whole.publish(broker.url, whole.plan("other", 2))
            assert (await whole.ended(broker.url, "other"))["state"] == "completed"
            [line] = [line for line in worker.lines() if line["event"] == "experiment.left_out"]
            assert (line["level"], line["experiment_id"]) == ("error", "slow-sampled")
        finally:
            await worker.stop(15)
        async with whole.Worker(tmp_path, broker.url, oracle.target):
            async with whole.client(broker.url) as connection:
                for point in range(3):
                    event = {"simulation_id": f"slow-sampled-p{point:06d}-r000-a1", "metrics": {"population": 1}}
                    await connection.publish("sim.run_completed", json.dumps(event).encode())
                await connection.flush()
            assert (await whole.ended(broker.url, "slow-sampled"))["state"] == "completed"


async def test_a_stop_does_not_wait_for_a_broker_that_hangs(tmp_path: Path) -> None:
    """If the broker accepts connections without answering, the worker exits within its shutdown time."""
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
