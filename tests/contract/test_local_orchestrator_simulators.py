"""The local orchestrator runs the simulator that a plan names, and fills command lines from configurations."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.local import registry
from ems_worker.local.orchestrator import model
from ems_worker.local.orchestrator.command import Command
from ems_worker.local.orchestrator.store import Store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import servers
from tests.support.local_orchestrator import Orchestrator, command

SHOW = r"""#!/bin/sh
printf '%s\n' "$@" > "$SIMULATION_OUTPUT_DIR/words"
echo $PYTHONPATH > "$SIMULATION_OUTPUT_DIR/env"
echo score=0.5
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program in a directory of its own."""
    (tmp_path / "work").mkdir()
    show = tmp_path / "work" / "show.sh"
    show.write_text(SHOW)
    show.chmod(0o755)
    return show


def named(simulation_id: str, simulator: str, config: str = "x: 1\n") -> pb.StartSimulationCommand:
    """The command that starts a run of a named simulator."""
    order = command(simulation_id, config)
    order.labels["ems.simulator"] = simulator
    return order


def added(orchestrator: Orchestrator, text: str, program: Path, **more: str) -> registry.Simulator:
    """A named simulator of this orchestrator."""
    parsed = Command.parse(text) if not more else Command.parse(text, config_format="json")
    simulator = registry.described(parsed, program.parent, {"PYTHONPATH": "/my/lib"})
    registry.add(orchestrator.data_dir, simulator)
    return simulator


async def test_a_plan_names_its_simulator(broker: servers.NatsServer, tmp_path: Path, program: Path) -> None:
    """It may be added while the orchestrator runs; it runs in its own directory and environment, with its version."""
    async with Orchestrator(broker.url, tmp_path) as orchestrator:
        simulator = added(orchestrator, "./show.sh {a.b} {args} {output}", program)
        await orchestrator.calls.StartSimulation(
            named("named", simulator.name, "a: {b: 'x  y'}\nc: [1, 2]\n"), timeout=10
        )
        status = await orchestrator.ends("named")
        output = orchestrator.data_dir / "runs" / "named" / "output"
    assert status.state == pb.SIMULATION_STATE_COMPLETED, status.message
    assert dict(status.metrics) == {"score": 0.5}
    assert status.model_version == simulator.model_version
    words = ["x  y", "--a.b", "x  y", "--c", "[1,2]", str(output)]
    assert (output / "words").read_text().splitlines() == words
    assert (output / "env").read_text() == "/my/lib\n"


async def test_an_unknown_simulator_is_refused_by_its_name(
    broker: servers.NatsServer, tmp_path: Path, program: Path
) -> None:
    """Other commands of the batch are not; and a known run stays known when its simulator is gone."""
    async with Orchestrator(broker.url, tmp_path) as orchestrator:
        simulator = added(orchestrator, "./show.sh", program)
        await orchestrator.calls.StartSimulation(named("known", simulator.name), timeout=10)
        await orchestrator.ends("known")
        (orchestrator.data_dir / "simulators" / simulator.name / "simulator.json").unlink()
        await orchestrator.restart()
        orders = [named("known", simulator.name), named("new", "nobody"), named("bad", "../x")]
        request = pb.StartSimulationsRequest(commands=orders)
        known, new, bad = (await orchestrator.calls.StartSimulations(request, timeout=10)).responses
        assert known.outcome == pb.START_OUTCOME_ALREADY_EXISTS
        assert {new.outcome, bad.outcome} == {pb.START_OUTCOME_REJECTED}
        assert new.message == "there is no simulator 'nobody' here: `ems run` adds one"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await orchestrator.calls.StartSimulation(orders[1], timeout=10)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("x: 1\n", "the configuration has no 'lr', which the command line needs as {lr}"),
        ("lr: 'a\\0b'\n".replace("'", '"'), "NUL"),
        ("- 1\n", "the configuration can't be read"),
    ],
)
async def test_a_run_whose_command_line_cannot_be_filled_fails(
    broker: servers.NatsServer, tmp_path: Path, config: str, message: str
) -> None:
    """It says why, and isn't retried; the orchestrator goes on."""
    async with Orchestrator(broker.url, tmp_path, simulator="echo {lr}") as orchestrator:
        await orchestrator.begin("bad", config)
        await orchestrator.begin("good", "lr: 1\n")
        status = await orchestrator.ends("bad")
        assert (status.state, status.error_kind, status.retryable) == (pb.SIMULATION_STATE_FAILED, "simulation", False)
        assert message in status.message
        assert (await orchestrator.ends("good")).state == pb.SIMULATION_STATE_COMPLETED


@pytest.mark.parametrize("whole", [False, True])
async def test_a_program_may_get_its_configuration_as_json(
    broker: servers.NatsServer, tmp_path: Path, whole: bool
) -> None:
    """By {config.json}, or with --config-format json as {config} too."""
    text, more = ("cat {config}", ["--config-format", "json"]) if whole else ("cat {config.json}", [])
    async with Orchestrator(broker.url, tmp_path, simulator=text, more=more) as orchestrator:
        await orchestrator.begin("json", "a: {b: [1, 'x']}\nlr: 1e-3\n")
        await orchestrator.ends("json")
        printed = (orchestrator.data_dir / "runs" / "json" / "stdout").read_text()
    assert json.loads(printed) == {"a": {"b": [1, "x"]}, "lr": 0.001}


async def test_metrics_may_be_in_a_file(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Of a program that knows nothing of the protocol."""
    async with Orchestrator(broker.url, tmp_path) as orchestrator:
        await orchestrator.begin("file", """echo '{"score": 3, "name": "x"}' > $SIMULATION_OUTPUT_DIR/metrics.json""")
        assert dict((await orchestrator.ends("file")).metrics) == {"score": 3.0}


async def test_a_changed_program_is_reported(broker: servers.NatsServer, tmp_path: Path, program: Path) -> None:
    """Its later runs have another version, and the log says so."""
    async with Orchestrator(broker.url, tmp_path) as orchestrator:
        simulator = added(orchestrator, "./show.sh {x}", program)
        _change(program)
        await orchestrator.calls.StartSimulation(named("changed", simulator.name), timeout=10)
        version = (await orchestrator.ends("changed")).model_version
        assert version.startswith(f"{simulator.model_version}-changed-")
        assert "event=simulator.changed" in orchestrator.log.read_text()


def _change(program: Path) -> None:
    program.write_text(f"{SHOW}# changed\n")


async def test_a_database_of_the_version_before_is_used(tmp_path: Path) -> None:
    """Its runs have the orchestrator's own simulator."""
    path = tmp_path / "orchestrator.db"
    store = Store(path)
    await store.open()
    await store.admit([model.Order("run", b"config", "sha", 1, "exp")])
    await store.close()
    with sqlite3.connect(path) as db:
        db.executescript("ALTER TABLE runs DROP COLUMN simulator; PRAGMA user_version = 1;")
    db.close()
    store = Store(path)
    await store.open()
    assert await store.order("run") == model.Order("run", b"config", "sha", 1, "exp")
    order = model.Order("new", b"config", "sha", 1, "exp", "train-1")
    await store.admit([order])
    assert await store.order("new") == order
    await store.close()


def test_the_label_is_that_of_plans() -> None:
    """The worker sends the plan's `simulator` under this name."""
    from ems_worker.core.language import resources
    from ems_worker.local.orchestrator import simulators

    assert f"{resources.PREFIX}simulator" == simulators.LABEL
    assert registry.NAME.pattern == resources.NAME.pattern
