"""The image: its user, its read-only file system, its health check, its shutdown, and its contents."""

import json
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest

from ems_worker import settings
from tests.support import compose, wait

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image() -> str:
    """The name of the image."""
    return compose.worker_image()


@pytest.fixture
def client(image: str) -> Iterator[docker.DockerClient]:
    """A client of the engine that has the image."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def worker(client: docker.DockerClient, image: str) -> Iterator[Any]:
    """A worker without a network and with a read-only root file system; its health is checked every second."""
    container = client.containers.run(
        image,
        detach=True,
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        healthcheck={"interval": 10**9},
    )
    yield container
    container.remove(force=True, v=True)


async def test_a_worker_becomes_healthy_and_stops_on_sigterm(worker: Any) -> None:
    """It is healthy without a broker, and as the first process of the container it receives SIGTERM and stops."""

    def health() -> bool:
        worker.reload()
        return bool(worker.attrs["State"]["Health"]["Status"] == "healthy")

    await wait.until(health, timeout=60, what="the health check")
    worker.stop(timeout=30)
    assert worker.wait()["StatusCode"] == 0
    events = [json.loads(line)["event"] for line in worker.logs().decode().splitlines()]
    assert events[0] == "worker.starting"
    assert events[-1] == "worker.stopped"


def test_the_health_check_fails_without_a_worker(client: docker.DockerClient, image: str) -> None:
    """If no worker answers, the command exits with 1 and names the address."""
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run(image, ["health"], network_mode="none", remove=True)
    assert failed.value.exit_status == 1
    assert "no worker answers at 127.0.0.1:8080" in failed.value.stderr.decode()


def test_the_image_runs_as_a_numeric_user_in_exec_form(client: docker.DockerClient, image: str) -> None:
    """Kubernetes can check runAsNonRoot only for a number, and a shell as the first process would swallow signals."""
    config = client.images.get(image).attrs["Config"]
    user, group = config["User"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert config["Entrypoint"] == ["ems-worker"]
    assert config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "ems-worker", "health"]
    assert list(config["Volumes"]) == ["/data"]


def test_the_environment_of_the_image_has_only_known_settings(client: docker.DockerClient, image: str) -> None:
    """The worker accepts the environment and takes its HTTP address and data directory from it."""
    config = client.images.get(image).attrs["Config"]
    env = dict(line.split("=", 1) for line in config["Env"])
    loaded, _ = settings.load({}, env)
    assert loaded.http_address == ("0.0.0.0", 8080)
    assert str(loaded.data_dir) == "/data"


def test_the_image_has_no_traces_of_the_build(client: docker.DockerClient, image: str) -> None:
    """Neither the files nor the history contain pip, sources or secrets."""
    inspection = (
        "import importlib.util, os;"
        "print([name for name in ('pip', 'setuptools', 'pytest') if importlib.util.find_spec(name)],"
        "[path for path in ('/src', '/etc/pip.conf', '/run/secrets', '/opt/build') if os.path.exists(path)])"
    )
    output = client.containers.run(
        image, ["-c", inspection], entrypoint="/opt/venv/bin/python", network_mode="none", remove=True
    )
    assert output.decode().split() == ["[]", "[]"]
    history = json.dumps(client.images.get(image).history())
    assert "secret" not in history
    assert "pip" not in history
