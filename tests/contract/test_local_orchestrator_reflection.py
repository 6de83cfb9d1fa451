"""The local orchestrator describes itself: its calls can be made by hand, with no protos at hand."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import local_orchestrator, servers

SERVICE = "fes.orchestrator.v1.OrchestratorClientService"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an orchestrator listens."""
    folder = tmp_path_factory.mktemp("reflection")
    broker = servers.run_sync(servers.NatsServer(folder / "nats"))
    one = local_orchestrator.Orchestrator(broker.url, folder)
    one.start()
    asyncio.run(one.ready())
    yield one.target
    asyncio.run(one.stop(grace=10))
    asyncio.run(broker.stop())


def curl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`buf curl` in an empty folder: it learns everything by reflection."""
    buf = Path(sys.executable).with_name("buf")
    command = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)


def called(folder: Path, target: str, call: str, request: dict[str, Any]) -> Any:
    ended = curl(folder, "--data", json.dumps(request), f"http://{target}/{SERVICE}/{call}")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_its_services_are_listed(target: str, tmp_path: Path) -> None:
    """With those of health and of reflection itself."""
    ended = curl(tmp_path, "--list-services", f"http://{target}")
    assert set(ended.stdout.split()) >= {SERVICE, "grpc.health.v1.Health"}


def test_a_simulation_is_started_by_hand(target: str, tmp_path: Path) -> None:
    """JSON in, JSON out; an unknown field is refused, as the schema is known."""
    command = {"simulationId": "by-hand-p000000-r000-a1", "config": "dHJ1ZQ==", "configSha": "abc"}
    assert called(tmp_path, target, "StartSimulation", command)["outcome"] == "START_OUTCOME_ACCEPTED"
    asked = called(tmp_path, target, "GetSimulationStatus", {"simulationIds": [command["simulationId"]]})
    assert asked["statuses"][0]["simulationId"] == command["simulationId"]
    ended = curl(tmp_path, "--data", '{"nonsense": 1}', f"http://{target}/{SERVICE}/StartSimulation")
    assert ended.returncode != 0
    assert "nonsense" in ended.stderr
