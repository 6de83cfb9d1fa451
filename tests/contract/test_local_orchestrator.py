"""The local orchestrator keeps the contract's §5: what its five calls answer, and what it publishes."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, servers, wait

RESULT = """echo '{"metrics": {"population": 12, "speed": 0.5}}'"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def shared(
    broker: servers.NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[local_orchestrator.Orchestrator]:
    """One orchestrator for those tests of this module that leave it as they found it."""
    one = local_orchestrator.Orchestrator(broker.url, tmp_path_factory.mktemp("shared"), shared=True)
    yield one
    asyncio.run(one.stop(grace=10))


@pytest.fixture
async def orchestrator(shared: local_orchestrator.Orchestrator) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """The shared orchestrator, whose simulations are shell scripts, with a channel for this test."""
    async with shared:
        yield shared


@pytest.fixture
async def fresh(broker: servers.NatsServer, tmp_path: Path) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """An orchestrator of this test alone, whose simulations are shell scripts."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as one:
        yield one


async def test_a_run_goes_from_order_to_result(
    orchestrator: local_orchestrator.Orchestrator, broker: servers.NatsServer
) -> None:
    """An accepted run is started once, and its end is in the status and in events that say the same."""
    response = await orchestrator.begin("order-to-result", RESULT, sha="abc")
    assert response.outcome == pb.START_OUTCOME_ACCEPTED

    status = await orchestrator.ends("order-to-result")
    assert status.state == pb.SIMULATION_STATE_COMPLETED
    assert dict(status.metrics) == {"population": 12.0, "speed": 0.5}
    assert status.config_sha == "abc"
    assert not status.HasField("retryable")

    started, completed = await local_orchestrator.published(broker.url, "order-to-result", "completed")
    assert [started.subject, completed.subject] == ["sim.run_started", "sim.run_completed"]
    assert [started.message_id, completed.message_id] == ["order-to-result:started", "order-to-result:completed"]
    assert completed.envelope.event_type_key == "sim.run_completed.v1"
    assert completed.envelope.payload_content_type == "application/x-protobuf"
    assert completed.envelope.event_id == completed.message_id
    assert isinstance(completed.payload, run_events_pb2.RunCompleted)
    assert completed.payload.metrics == status.metrics
    assert completed.payload.started_at == status.started_at
    assert completed.payload.finished_at == status.finished_at
    assert started.envelope.timestamp_ns <= completed.envelope.timestamp_ns


async def test_a_simulation_gets_what_the_protocol_promises(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Environment and command line name the configuration's exact bytes, the seed, the id and the output directory."""
    script = tmp_path / "simulator.sh"
    script.write_text(
        'echo "$1 $2 $SIMULATION_ID" > "$3/words"\n'
        'cp "$SIMULATION_CONFIG" "$SIMULATION_OUTPUT_DIR/config"\n'
        'echo "{\\"metrics\\": {\\"seed\\": $SIMULATION_SEED}, \\"artifacts\\": {\\"w\\": \\"words\\", \\"s\\": \\"s3://b/k\\"}}"\n'
    )
    simulator = f"sh {script} {{simulation_id}} {{seed}} {{output_dir}}"
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, simulator=simulator) as orchestrator:
        order = local_orchestrator.command("promises", "a: {b: 1}\n", seed=2**64 - 1)
        await orchestrator.calls.StartSimulation(order, timeout=10)
        status = await orchestrator.ends("promises")
    assert status.state == pb.SIMULATION_STATE_COMPLETED, status.message
    output = orchestrator.data_dir / "runs" / "promises" / "output"
    assert (output / "config").read_text() == "a: {b: 1}\n"
    assert (output / "words").read_text() == f"promises {2**64 - 1} promises\n"
    assert dict(status.metrics) == {"seed": float(2**64 - 1)}
    assert dict(status.artifacts) == {"w": (output / "words").as_uri(), "s": "s3://b/k"}


async def test_a_result_file_is_as_good_as_a_line(orchestrator: local_orchestrator.Orchestrator) -> None:
    """result.json in the output directory is the result, whatever was printed."""
    await orchestrator.begin(
        "file", f"""{RESULT}; echo '{{"metrics": {{"a": 1}}}}' > $SIMULATION_OUTPUT_DIR/result.json"""
    )
    assert dict((await orchestrator.ends("file")).metrics) == {"a": 1.0}


@pytest.mark.parametrize(
    ("script", "kind", "retryable", "words"),
    [
        ("echo no reef >&2; exit 65", "infeasible", False, "no reef"),
        ("echo broken >&2; exit 1", "simulation", None, "broken"),
        ("kill -9 $$", "infrastructure", None, "killed by signal 9"),
        ("exec /nonexistent/simulator", "infrastructure", False, "can't be executed"),
        (
            "echo '{}' > $SIMULATION_OUTPUT_DIR/result.json; echo '[' > $SIMULATION_OUTPUT_DIR/result.json",
            "simulation",
            None,
            "result.json",
        ),
    ],
)
async def test_a_failure_has_its_kind(
    orchestrator: local_orchestrator.Orchestrator,
    broker: servers.NatsServer,
    request: pytest.FixtureRequest,
    script: str,
    kind: str,
    retryable: bool | None,
    words: str,
) -> None:
    """The exit code decides the kind of a failure; status and event agree, with the simulation's last words."""
    simulation_id = f"failure-{request.node.callspec.indices['script']}"
    await orchestrator.begin(simulation_id, script)
    status = await orchestrator.ends(simulation_id)
    assert (status.state, status.error_kind) == (pb.SIMULATION_STATE_FAILED, kind)
    assert (status.retryable if status.HasField("retryable") else None) is retryable
    assert words in status.message
    event = (await local_orchestrator.published(broker.url, simulation_id, "failed"))[-1]
    assert isinstance(event.payload, run_events_pb2.RunFailed)
    assert run_events_pb2.ErrorKind.Name(event.payload.error_kind) == f"ERROR_KIND_{kind.upper()}"
    assert event.payload.HasField("retryable") == status.HasField("retryable")
    assert event.payload.message == status.message


async def test_a_known_id_starts_nothing(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """The same id and work again is ALREADY_EXISTS, other work FAILED_PRECONDITION; ended and restarted too."""
    script = f"echo started >> {tmp_path}/starts; {RESULT}"
    for again in range(3):
        if again == 2:
            await orchestrator.restart(crash=True)
        response = await orchestrator.begin("known", script, sha="one")
        assert response.outcome == (pb.START_OUTCOME_ALREADY_EXISTS if again else pb.START_OUTCOME_ACCEPTED)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await orchestrator.begin("known", script, sha="two")
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        await orchestrator.ends("known")
    assert (tmp_path / "starts").read_text() == "started\n"


async def test_a_batch_judges_each_command_alone(orchestrator: local_orchestrator.Orchestrator) -> None:
    """In a batch, good commands are taken on beside known ones, conflicting ones and ones without meaning."""
    await orchestrator.begin("batch-known", RESULT)
    request = pb.StartSimulationsRequest(
        commands=[
            local_orchestrator.command("batch-new", RESULT),
            local_orchestrator.command("batch-known", RESULT),
            local_orchestrator.command("batch-known", RESULT, sha="other"),
            local_orchestrator.command("../batch-escape", RESULT),
            local_orchestrator.command("batch-without-sha", RESULT, sha=""),
            local_orchestrator.command("batch-new", RESULT),
        ]
    )
    responses = (await orchestrator.calls.StartSimulations(request, timeout=10)).responses
    assert [(one.simulation_id, one.outcome, one.status_code) for one in responses] == [
        ("batch-new", pb.START_OUTCOME_ACCEPTED, 0),
        ("batch-known", pb.START_OUTCOME_ALREADY_EXISTS, 0),
        ("batch-known", pb.START_OUTCOME_REJECTED, grpc.StatusCode.FAILED_PRECONDITION.value[0]),
        ("../batch-escape", pb.START_OUTCOME_REJECTED, grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        ("batch-without-sha", pb.START_OUTCOME_REJECTED, grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        ("batch-new", pb.START_OUTCOME_ALREADY_EXISTS, 0),
    ]
    assert (await orchestrator.ends("batch-new")).state == pb.SIMULATION_STATE_COMPLETED


async def test_an_unusable_order_is_an_invalid_argument(orchestrator: local_orchestrator.Orchestrator) -> None:
    """An id that can't name a directory is refused with what it must look like."""
    with pytest.raises(grpc.aio.AioRpcError, match="names a directory") as refused:
        await orchestrator.begin("a/b", RESULT)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_slots_bound_what_runs_at_once(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """With two slots never more than two simulations run, and they start in the order of arrival."""
    script = (
        f"echo + >> {tmp_path}/trace; echo $SIMULATION_ID >> {tmp_path}/order; sleep 0.05; echo - >> {tmp_path}/trace"
    )
    names = [f"slots-{number:02d}" for number in range(10)]
    commands = [local_orchestrator.command(name, script) for name in names]
    await orchestrator.calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)
    for name in names:
        await orchestrator.ends(name)
    at_once = most = 0
    for sign in (tmp_path / "trace").read_text().split():
        at_once += 1 if sign == "+" else -1
        most = max(most, at_once)
    assert most == 2
    order = (tmp_path / "order").read_text().split()
    # Two start side by side: neighbours may swap.
    assert all(abs(order.index(name) - number) <= 1 for number, name in enumerate(names))


async def test_status_knows_what_it_does_not_know(orchestrator: local_orchestrator.Orchestrator) -> None:
    """An unknown id is NOT_FOUND in its own status, and the known ones are answered."""
    await orchestrator.begin("status-known", RESULT)
    request = pb.GetSimulationStatusRequest(simulation_ids=["status-unknown", "status-known"])
    unknown, known = (await orchestrator.calls.GetSimulationStatus(request, timeout=10)).statuses
    assert (unknown.simulation_id, unknown.state) == ("status-unknown", pb.SIMULATION_STATE_NOT_FOUND)
    assert known.state != pb.SIMULATION_STATE_NOT_FOUND


async def test_capacity_is_told_at_once_and_at_changes(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """A watcher sees idle slots, then full ones with a queue, then idle ones again."""
    watch = fresh.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=30)
    seen = await anext(aiter(watch))
    assert (seen.slots, seen.in_use, seen.queued) == (2, 0, 0)
    assert seen.max_message_bytes == 4 * 1024 * 1024

    async def until(in_use: int, queued: int) -> None:
        async for capacity in watch:
            if (capacity.in_use, capacity.queued) == (in_use, queued):
                return

    script = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    for number in range(3):
        await fresh.begin(f"capacity-{number}", script)
    await until(in_use=2, queued=1)
    (tmp_path / "go").touch()
    await until(in_use=0, queued=0)
    watch.cancel()


async def test_the_message_limit_is_settable_and_told(broker: servers.NatsServer, tmp_path: Path) -> None:
    """A request over the told limit is RESOURCE_EXHAUSTED, one under it is taken."""
    more = ["--max-message-bytes", "100000"]
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, more=more) as orchestrator:
        told = await anext(aiter(orchestrator.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=10)))
        assert told.max_message_bytes == 100_000
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await orchestrator.begin("limit-over", "#" * 101_000)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await orchestrator.begin("limit-under", "#" * 90_000)).outcome == pb.START_OUTCOME_ACCEPTED


async def test_the_built_in_simulator_is_the_default(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Without a choice of simulator the small fish run, and events name their model's version."""
    config = (servers.ROOT / "examples" / "reef_base.yaml").read_text().replace("max_ticks: 700", "max_ticks: 5")
    async with (
        servers.GrpcProgram(
            "ems_worker.local.orchestrator",
            ["--insecure", "--server", broker.url, "--data-dir", str(tmp_path / "data")],
            log=tmp_path / "log",
        ) as program,
        grpc.aio.insecure_channel(program.target) as channel,
    ):
        calls = pb_grpc.OrchestratorClientServiceStub(channel)
        await calls.StartSimulation(local_orchestrator.command("fish", config), timeout=10)
        stored = await local_orchestrator.published(broker.url, "fish", "completed")
    completed = stored[-1].payload
    assert isinstance(completed, run_events_pb2.RunCompleted)
    assert set(completed.metrics) == {"population", "mean_lifespan", "food_eaten"}
    assert completed.model_version == "reef-1"
    series = tmp_path / "data" / "runs" / "fish" / "output" / "fish.csv"
    assert completed.artifacts["time_series"] == series.as_uri()
    assert series.read_text().startswith("tick,population")


async def test_a_data_directory_has_one_orchestrator(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """A second orchestrator on the same data ends at once with a clear error, and no traceback."""
    second = local_orchestrator.Orchestrator(broker.url, tmp_path)
    second.log = tmp_path / "second.log"
    second.start()
    assert await second.wait(timeout=10) == 1
    assert second.last_words().startswith("error: another orchestrator uses")


async def test_a_wrong_command_line_is_a_usage_error(tmp_path: Path) -> None:
    """An open quote in the simulator's command line is told, with exit code 2."""
    broken = local_orchestrator.Orchestrator("nats://127.0.0.1:1", tmp_path, simulator="sh 'open")
    broken.start()
    assert await broken.wait(timeout=10) == 2
    assert "--simulator: No closing quotation" in broken.last_words()


async def test_results_keep_numbers_exact(orchestrator: local_orchestrator.Orchestrator) -> None:
    """Metrics arrive as the doubles that were printed; null and NaN are left out."""
    metrics = {"third": 1 / 3, "tiny": 5e-324, "large": 2**53, "none": None, "nan": float("nan")}
    await orchestrator.begin("exact", f"cat <<'END'\n{json.dumps({'metrics': metrics})}\nlater words\nEND")
    status = await orchestrator.ends("exact")
    assert dict(status.metrics) == {"third": 1 / 3, "tiny": 5e-324, "large": float(2**53)}


async def test_a_caller_that_goes_away_loses_nothing(orchestrator: local_orchestrator.Orchestrator) -> None:
    """A start whose deadline passes before the reply either never arrived or runs to its end."""
    names = [f"gone-{number}" for number in range(30)]
    calls = [
        orchestrator.calls.StartSimulation(local_orchestrator.command(name, "true"), timeout=0.001 + number / 5000)
        for number, name in enumerate(names)
    ]
    await asyncio.gather(*calls, return_exceptions=True)

    async def none_open() -> bool:
        statuses = [(await orchestrator.status(name)).state for name in names]
        return not {pb.SIMULATION_STATE_QUEUED, pb.SIMULATION_STATE_RUNNING}.intersection(statuses)

    await wait.until(none_open, what="all accepted runs to end")


async def test_a_simulation_gets_no_credentials(
    broker: servers.NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestrator's environment goes on to it, but for what is NATS' and the platform's."""
    theirs = {"NATS_USER": "orchestrator", "NATS_PASSWORD": "hidden", "EMS_NATS_PLAINTEXT": "true"}
    for name, value in {**theirs, "REEF_DATA": "kept"}.items():
        monkeypatch.setenv(name, value)
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as one:
        await one.begin("environment", 'env > "$SIMULATION_OUTPUT_DIR/env"')
        await one.ends("environment")
        [written] = one.data_dir.glob("runs/*/output/env")
        found = dict(line.split("=", 1) for line in written.read_text().splitlines() if "=" in line)
    assert found["REEF_DATA"] == "kept"
    assert found["SIMULATION_ID"] == "environment"
    assert [name for name in found if name.startswith(("NATS_", "EMS_"))] == []
