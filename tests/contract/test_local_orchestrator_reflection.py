"""The local orchestrator supports reflection: its calls can be made by hand without the proto files."""

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
    """The socket of a running orchestrator."""
    folder = tmp_path_factory.mktemp("reflection")
    broker = servers.run_sync(servers.NatsServer(folder / "nats"))
    with tempfile.TemporaryDirectory(prefix="ems") as short:
        path = Path(short, "grpc.sock")
        command = [sys.executable, "-m", "ems_worker.local.orchestrator", "--listen", f"unix:{path}"]
        command += ["--server", broker.url, "--data-dir", str(folder / "data"), "--simulator", local_orchestrator.SHELL]
        orchestrator = servers.Program("orchestrator", command, log=folder / "orchestrator.log")
        orchestrator.start()
        asyncio.run(wait.until(path.exists, timeout=20, what="the orchestrator to listen"))
        yield path
        asyncio.run(orchestrator.stop(grace=10))
    asyncio.run(broker.stop())


def curl(folder: Path, socket: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `buf curl` in an empty folder, where it knows only what reflection tells it."""
    buf = Path(sys.executable).with_name("buf")
    command = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(socket)]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=30)


def called(folder: Path, socket: Path, call: str, request: dict[str, Any]) -> Any:
    """The response to a call, as JSON."""
    ended = curl(folder, socket, "--data", json.dumps(request), f"http://localhost/{SERVICE}/{call}")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_reflection_lists_the_services(socket: Path, tmp_path: Path) -> None:
    """The list has the service of the orchestrator and that of health."""
    ended = curl(tmp_path, socket, "--list-services", "http://localhost")
    assert set(ended.stdout.split()) >= {SERVICE, "grpc.health.v1.Health"}


def test_a_simulation_can_be_started_by_hand(socket: Path, tmp_path: Path) -> None:
    """Requests and responses are JSON, and an unknown field is refused because the schema is known."""
    command = {"simulationId": "by-hand-p000000-r000-a1", "config": "dHJ1ZQ==", "configSha": "abc"}
    assert called(tmp_path, socket, "StartSimulation", command)["outcome"] == "START_OUTCOME_ACCEPTED"
    asked = called(tmp_path, socket, "GetSimulationStatus", {"simulationIds": [command["simulationId"]]})
    assert asked["statuses"][0]["simulationId"] == command["simulationId"]
    ended = curl(tmp_path, socket, "--data", '{"nonsense": 1}', f"http://localhost/{SERVICE}/StartSimulation")
    assert ended.returncode != 0
    assert "nonsense" in ended.stderr
