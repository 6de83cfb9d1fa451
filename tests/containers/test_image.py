"""The image: who it runs as, what it may write, how it is asked and stopped, what isn't in it."""

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
    return compose.worker_image()


@pytest.fixture
def client(image: str) -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def worker(client: docker.DockerClient, image: str) -> Iterator[Any]:
    """A worker without network, on a root filesystem that it can't write to; its health is asked every second."""
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


async def test_a_worker_becomes_healthy_and_stops_when_told(worker: Any) -> None:
    """Also while there is no broker; SIGTERM reaches it as the container's first process, and it ends in order."""

    def health() -> bool:
        worker.reload()
        return bool(worker.attrs["State"]["Health"]["Status"] == "healthy")

    await wait.until(health, timeout=60, what="the health check")
    worker.stop(timeout=30)
    assert worker.wait()["StatusCode"] == 0
    said = [json.loads(line)["event"] for line in worker.logs().decode().splitlines()]
    assert said[0] == "worker.starting"
    assert said[-1] == "worker.stopped"


def test_an_unhealthy_worker_is_told_from_a_healthy_one(client: docker.DockerClient, image: str) -> None:
    """The health check fails where no worker serves."""
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run(image, ["health"], network_mode="none", remove=True)
    assert failed.value.exit_status == 1
    assert "no worker answers at 127.0.0.1:8080" in failed.value.stderr.decode()


def test_the_image_runs_as_a_numeric_user_in_exec_form(client: docker.DockerClient, image: str) -> None:
    """Kubernetes' runAsNonRoot can check a number only; a shell as the first process would swallow signals."""
    config = client.images.get(image).attrs["Config"]
    user, group = config["User"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert config["Entrypoint"] == ["ems-worker"]
    assert config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "ems-worker", "health"]
    assert list(config["Volumes"]) == ["/data"]


def test_the_settings_of_the_image_are_settings(client: docker.DockerClient, image: str) -> None:
    """Its environment names only what the worker knows."""
    config = client.images.get(image).attrs["Config"]
    env = dict(line.split("=", 1) for line in config["Env"])
    loaded, _ = settings.load({}, env)
    assert loaded.http_address == ("0.0.0.0", 8080)
    assert str(loaded.data_dir) == "/data"


def test_nothing_of_the_build_is_in_the_image(client: docker.DockerClient, image: str) -> None:
    """No pip, no source, no secret: neither in the files nor in the history."""
    look = (
        "import importlib.util, os;"
        "print([name for name in ('pip', 'setuptools', 'pytest') if importlib.util.find_spec(name)],"
        "[path for path in ('/src', '/etc/pip.conf', '/run/secrets', '/opt/build') if os.path.exists(path)])"
    )
    said = client.containers.run(
        image, ["-c", look], entrypoint="/opt/venv/bin/python", network_mode="none", remove=True
    )
    assert said.decode().split() == ["[]", "[]"]
    history = json.dumps(client.images.get(image).history())
    assert "secret" not in history
    assert "pip" not in history
