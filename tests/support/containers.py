"""Containers for tests: is there an engine, a broker in a container, a link to it that can be cut.

Nothing is pulled: the broker's image is made of the nats-server that the other tests run as a process. Everything is
published on loopback only.
"""

import asyncio
import functools
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

import docker
import docker.errors
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from ems_worker.local import nats_server, ports
from tests.support import servers, wait

# Where it is set, a missing engine is a failure.
REQUIRED = "REQUIRE_CONTAINERS"

_UNIX = "unix://"
_USUAL_HOST = "unix:///var/run/docker.sock"
_NATS_IMAGE = "ems-test-nats"
_NATS_PORT = 4222
_NATS_DOCKERFILE = """\
FROM scratch
COPY nats-server /nats-server
COPY nats-server.conf /etc/nats/nats-server.conf
ENTRYPOINT ["/nats-server"]
CMD ["--config", "/etc/nats/nats-server.conf"]
"""
_NATS_CONFIG = """\
listen: 0.0.0.0:4222
jetstream {
  store_dir: /data
  sync_interval: 100ms
}
"""

# testcontainers' own reaper is an image that would have to be pulled; the fixtures end what they start.
testcontainers_config.ryuk_disabled = True


def require_engine() -> None:
    """Skips the test with the reason where no engine answers; fails it where one has to be there."""
    if why := _missing():
        miss(f"no container engine answers (.ci/engine starts one): {why}")


def miss(reason: str) -> None:
    """Skips the test, or fails it where containers are required."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason} ({REQUIRED} is set)")
    pytest.skip(reason)


@functools.cache
def _missing() -> str:
    """Why there is no engine; empty where there is one."""
    host = os.environ.get("DOCKER_HOST", _USUAL_HOST)
    if host.startswith(_UNIX):
        # Docker's client leaves its socket open where nobody listens, which is a warning, and so a failure here.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(host.removeprefix(_UNIX))
            except OSError as failed:
                return f"{host}: {failed.strerror}"
    try:
        client = docker.from_env(timeout=10)
    except docker.errors.DockerException as failed:
        return str(failed)
    try:
        client.ping()
    except docker.errors.DockerException as failed:
        return str(failed)
    finally:
        client.close()
    return ""


@functools.cache
def nats_image() -> str:
    """The name of an image that has nothing but nats-server and a configuration that lets everybody in."""
    client = docker.from_env()
    try:
        with tempfile.TemporaryDirectory() as context:
            Path(context, "Dockerfile").write_text(_NATS_DOCKERFILE)
            shutil.copy(nats_server.find_executable(), Path(context, "nats-server"))
            Path(context, "nats-server.conf").write_text(_NATS_CONFIG)
            client.images.build(path=context, tag=_NATS_IMAGE, rm=True)
    finally:
        client.close()
    return _NATS_IMAGE


def loopback_network() -> Network:
    """A network whose containers publish their ports on loopback only; a context manager."""
    return Network(docker_network_kw={"options": {"com.docker.network.bridge.host_binding_ipv4": ports.LOOPBACK}})


class NatsContainer(DockerContainer):
    """nats-server with JetStream; its store lives as long as the container, over its restarts."""

    def __init__(self, network: Network, *, name: str, port: int) -> None:
        command = f"--config /etc/nats/nats-server.conf --server_name {name}"
        super().__init__(nats_image(), command=command, network=network)
        self.with_bind_ports(_NATS_PORT, port)


class NatsServer(servers.NatsServer):
    """A `servers.NatsServer` in a container: the same life, the same tests."""

    def __init__(self, network: Network) -> None:
        super().__init__(Path(os.devnull))
        self._network = network
        self._name = f"ems-{secrets.token_hex(4)}"
        self._container: NatsContainer | None = None

    @property
    def running(self) -> bool:
        if self._container is None:
            return False
        container = self._container.get_wrapped_container()
        container.reload()
        return bool(container.status == "running")

    async def __aexit__(self, *exception: object) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)

    async def start(self) -> None:
        """Starts the container, made at the first time, and returns when JetStream answers."""
        if self._container is None:
            self.port = ports.free_port()
            self._container = NatsContainer(self._network, name=self._name, port=self.port)
            await asyncio.to_thread(self._container.start)
        else:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        await wait.until(lambda: self._answers(self._name), what="nats-server in its container")

    async def stop(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.get_wrapped_container().stop, timeout=10)

    async def kill(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.get_wrapped_container().kill)

    async def cut(self) -> None:
        """Takes the container off its network. It runs on, and nobody is told."""
        await asyncio.to_thread(self._wire("disconnect"))

    async def mend(self) -> None:
        """Puts the container back on its network, at the port it had."""
        await asyncio.to_thread(self._wire("connect"))

    def _wire(self, verb: str) -> functools.partial[None]:
        assert self._container is not None
        container = self._container.get_wrapped_container()
        network = container.client.networks.get(self._network.id)
        return functools.partial(getattr(network, verb), container)
