"""The local orchestrator describes itself: its calls can be made by hand, with no protos at hand."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import local_orchestrator, servers, wait

SERVICE = "fes.orchestrator.v1.OrchestratorClientService"


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where an orchestrator listens."""
    folder = tmp_path_factory.mktemp("reflection")
    broker = servers.run_sync(servers.NatsServer(folder / "nats"))
    with tempfile.TemporaryDirectory(prefix="ems") as short:
        path = Path(short, "grpc.sock")
        command = [sys.executable, "-m", "ems_worker.local.orchestrator", "--listen", f"unix:{path}"]
        command += ["--server", broker.url, "--data-dir", str(folder / "data"), "--simulator", local_orchestrator.SHELL]
        one = servers.Program("orchestrator", command, log=folder / "orchestrator.log")
        one.start()
        asyncio.run(wait.until(path.exists, timeout=20, what="the orchestrator to listen"))
        yield path
        asyncio.run(one.stop(grace=10))
    asyncio.run(broker.stop())


def curl(folder: Path, socket: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`buf curl` in an empty folder: it learns everything by reflection."""
    buf = Path(sys.executable).with_name("buf")
    command = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(socket)]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=30)


def called(folder: Path, socket: Path, call: str, request: dict[str, Any]) -> Any:
    ended = curl(folder, socket, "--data", json.dumps(request), f"http://localhost/{SERVICE}/{call}")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_its_services_are_listed(socket: Path, tmp_path: Path) -> None:
    """With those of health and of reflection itself."""
    ended = curl(tmp_path, socket, "--list-services", "http://localhost")
    assert set(ended.stdout.split()) >= {SERVICE, "grpc.health.v1.Health"}


def test_a_simulation_is_started_by_hand(socket: Path, tmp_path: Path) -> None:
    """JSON in, JSON out; an unknown field is refused, as the schema is known."""
    command = {"simulationId": "by-hand-p000000-r000-a1", "config": "dHJ1ZQ==", "configSha": "abc"}
    assert called(tmp_path, socket, "StartSimulation", command)["outcome"] == "START_OUTCOME_ACCEPTED"
    asked = called(tmp_path, socket, "GetSimulationStatus", {"simulationIds": [command["simulationId"]]})
    assert asked["statuses"][0]["simulationId"] == command["simulationId"]
    ended = curl(tmp_path, socket, "--data", '{"nonsense": 1}', f"http://localhost/{SERVICE}/StartSimulation")
    assert ended.returncode != 0
    assert "nonsense" in ended.stderr
