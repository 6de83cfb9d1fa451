"""The local orchestrator runs simulations by the protocol of docs/orchestrator.md."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, servers
from tests.support.shell_simulations import RESULT


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
    """One orchestrator for all tests of this module that need no state of their own."""
    orchestrator = local_orchestrator.Orchestrator(broker.url, tmp_path_factory.mktemp("shared"), shared=True)
    yield orchestrator
    asyncio.run(orchestrator.stop(grace=10))


@pytest.fixture
async def orchestrator(shared: local_orchestrator.Orchestrator) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """The shared orchestrator with a channel for this test; its simulations are shell scripts."""
    async with shared:
        yield shared


async def test_a_simulation_gets_its_inputs_as_the_protocol_states(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Environment and command line provide the exact bytes of the configuration, seed, id and output directory."""
    script = tmp_path / "simulator.sh"
    result = r"{\"metrics\": {\"seed\": $SIMULATION_SEED}, \"artifacts\": {\"a\": \"arguments\", \"s\": \"s3://b/k\"}}"
    script.write_text(
        'echo "$1 $2 $SIMULATION_ID" > "$3/arguments"\n'
        'cp "$SIMULATION_CONFIG" "$SIMULATION_OUTPUT_DIR/config"\n'
        f'echo "{result}"\n'
    )
    simulator = f"sh {script} {{simulation_id}} {{seed}} {{output_dir}}"
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, simulator=simulator) as orchestrator:
        order = local_orchestrator.command("inputs", "a: {b: 1}\n", seed=2**64 - 1)
        await orchestrator.calls.StartSimulation(order, timeout=10)
        status = await orchestrator.ends("inputs")
    assert status.state == pb.SIMULATION_STATE_COMPLETED, status.message
    output = orchestrator.data_dir / "runs" / "inputs" / "output"
    assert (output / "config").read_text() == "a: {b: 1}\n"
    assert (output / "arguments").read_text() == f"inputs {2**64 - 1} inputs\n"
    assert dict(status.metrics) == {"seed": float(2**64 - 1)}
    assert dict(status.artifacts) == {"a": (output / "arguments").as_uri(), "s": "s3://b/k"}


async def test_a_result_file_takes_precedence_over_printed_lines(orchestrator: local_orchestrator.Orchestrator) -> None:
    """If the output directory has a result.json, that is the result, whatever the simulation prints."""
    await orchestrator.begin(
        "file", f"""{RESULT}; echo '{{"metrics": {{"a": 1}}}}' > $SIMULATION_OUTPUT_DIR/result.json"""
    )
    assert dict((await orchestrator.ends("file")).metrics) == {"a": 1.0}


async def test_a_run_gets_an_empty_directory(orchestrator: local_orchestrator.Orchestrator) -> None:
    """The output of a run is kept when its id is forgotten, but the next run with this id doesn't see it."""
    output = orchestrator.data_dir / "runs" / "reused" / "output"
    output.mkdir(parents=True)
    (output / "result.json").write_text('{"metrics": {"stale": 1}}')
    await orchestrator.begin("reused", f"ls $SIMULATION_OUTPUT_DIR > $SIMULATION_OUTPUT_DIR/seen; {RESULT}")
    assert dict((await orchestrator.ends("reused")).metrics) == {"population": 12.0}
    assert (output / "seen").read_text() == "seen\n"


@pytest.mark.parametrize(
    ("script", "kind", "retryable", "message"),
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
async def test_the_exit_code_determines_the_kind_of_a_failure(
    orchestrator: local_orchestrator.Orchestrator,
    broker: servers.NatsServer,
    request: pytest.FixtureRequest,
    script: str,
    kind: str,
    retryable: bool | None,
    message: str,
) -> None:
    """Status and event agree on the error kind, and their message has the end of stderr."""
    simulation_id = f"failure-{request.node.callspec.indices['script']}"
    await orchestrator.begin(simulation_id, script)
    status = await orchestrator.ends(simulation_id)
    assert (status.state, status.error_kind) == (pb.SIMULATION_STATE_FAILED, kind)
    assert (status.retryable if status.HasField("retryable") else None) is retryable
    assert message in status.message
    event = (await local_orchestrator.published(broker.url, simulation_id, "failed"))[-1]
    assert isinstance(event.payload, run_events_pb2.RunFailed)
    assert run_events_pb2.ErrorKind.Name(event.payload.error_kind) == f"ERROR_KIND_{kind.upper()}"
    assert event.payload.HasField("retryable") == status.HasField("retryable")
    assert event.payload.message == status.message


async def test_the_built_in_simulator_is_the_default(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Without --simulator, runs use the fish model, and events name its version."""
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


async def test_metrics_are_exact(orchestrator: local_orchestrator.Orchestrator) -> None:
    """Metrics are the doubles that the simulation prints; null and NaN are omitted."""
    metrics = {"third": 1 / 3, "tiny": 5e-324, "large": 2**53, "none": None, "nan": float("nan")}
    await orchestrator.begin("exact", f"cat <<'END'\n{json.dumps({'metrics': metrics})}\na later line\nEND")
    status = await orchestrator.ends("exact")
    assert dict(status.metrics) == {"third": 1 / 3, "tiny": 5e-324, "large": float(2**53)}


async def test_a_simulation_gets_no_credentials(
    broker: servers.NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulations inherit the environment of the orchestrator, without the variables of NATS and of the platform."""
    credentials = {"NATS_USER": "orchestrator", "NATS_PASSWORD": "hidden", "EMS_NATS_PLAINTEXT": "true"}
    for name, value in {**credentials, "REEF_DATA": "kept"}.items():
        monkeypatch.setenv(name, value)
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        await orchestrator.begin("environment", 'env > "$SIMULATION_OUTPUT_DIR/env"')
        await orchestrator.ends("environment")
        [written] = orchestrator.data_dir.glob("runs/*/output/env")
        inherited = dict(line.split("=", 1) for line in written.read_text().splitlines() if "=" in line)
    assert inherited["REEF_DATA"] == "kept"
    assert inherited["SIMULATION_ID"] == "environment"
    assert [name for name in inherited if name.startswith(("NATS_", "EMS_"))] == []
