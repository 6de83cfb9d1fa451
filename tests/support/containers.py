"""Containers for tests: whether there is an engine, and a broker in a container that can be cut off the network.

No image is pulled: that of the broker is built from the nats-server that other tests run as a process. All ports are
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

# If this variable is set, a missing engine is a failure.
REQUIRED = "REQUIRE_CONTAINERS"

_UNIX = "unix://"
_DEFAULT_HOST = "unix:///var/run/docker.sock"
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

# The reaper of testcontainers is an image that would have to be pulled. The fixtures end their containers themselves.
testcontainers_config.ryuk_disabled = True


def require_engine() -> None:
    """Skips the test with the reason if no engine answers, or fails it if containers are required."""
    if reason := _missing():
        skip_or_fail(f"no container engine answers (.ci/engine starts one): {reason}")


def skip_or_fail(reason: str) -> None:
    """Skips the test, or fails it if containers are required."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason} ({REQUIRED} is set)")
    pytest.skip(reason)


@functools.cache
def _missing() -> str:
    """Why there is no engine; empty if there is one."""
    host = os.environ.get("DOCKER_HOST", _DEFAULT_HOST)
    if host.startswith(_UNIX):
        # If nothing listens, the docker client leaves its socket open, and that warning would fail the test.
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
    """The name of an image that contains only nats-server and a configuration without users."""
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
    """A network whose containers publish their ports on loopback only, as a context manager."""
    return Network(docker_network_kw={"options": {"com.docker.network.bridge.host_binding_ipv4": ports.LOOPBACK}})


class NatsContainer(DockerContainer):
    """nats-server with JetStream; its store survives restarts of the container."""

    def __init__(self, network: Network, *, name: str, port: int) -> None:
        command = f"--config /etc/nats/nats-server.conf --server_name {name}"
        super().__init__(nats_image(), command=command, network=network)
        self.with_bind_ports(_NATS_PORT, port)


class NatsServer(servers.NatsServer):
    """A `servers.NatsServer` in a container, for the same tests as the one in a process."""

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
        """Starts the container, creating it the first time, and waits until JetStream is ready."""
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

    async def disconnect(self) -> None:
        """Takes the container off its network, without closing connections. The server keeps running."""
        await asyncio.to_thread(self._on_network("disconnect"))

    async def reconnect(self) -> None:
        """Puts the container back on its network, at the same port."""
        await asyncio.to_thread(self._on_network("connect"))

    def _on_network(self, verb: str) -> functools.partial[None]:
        assert self._container is not None
        container = self._container.get_wrapped_container()
        network = container.client.networks.get(self._network.id)
        return functools.partial(getattr(network, verb), container)
