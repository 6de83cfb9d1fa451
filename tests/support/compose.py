"""Runs deploy/compose.yaml with images built here; broker, orchestrator and worker can be stopped and started."""

import contextlib
import functools
import os
import secrets
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from ems_worker.local import ports
from tests.support import commands, containers, security, servers

_FILE = servers.ROOT / "deploy" / "compose.yaml"
_IMAGE = "ems-worker:test"
# Names the base image if the official Python image can't be pulled; deploy/base-image builds one.
_BASE_IMAGE = "BASE_IMAGE"


@functools.cache
def worker_image() -> str:
    """The image of the Dockerfile, including the local orchestrator; built once per session."""
    containers.require_engine()
    if _output(["docker", "build", "--help"], DOCKER_BUILDKIT="1") is None:
        containers.skip_or_fail("the docker client can't build with BuildKit (its buildx is missing)")
    base = os.environ.get(_BASE_IMAGE)
    arguments = ["--tag", _IMAGE, "--build-arg", "EXTRAS=design,local"]
    arguments += ["--build-arg", f"BASE_IMAGE={base}"] if base else []
    built = subprocess.run([servers.ROOT / "deploy" / "build-image", *arguments], capture_output=True, text=True)
    if built.returncode:
        pytest.fail(f"the image can't be built: {built.stderr[-3000:]}")
    return _IMAGE


class Platform:
    """The deployment: running with new volumes in `with Platform() as platform`, and removed afterwards."""

    def __init__(self) -> None:
        self.url = f"tls://{ports.LOOPBACK}:{(nats_port := ports.free_port())}"
        self._keys = contextlib.ExitStack()
        self._env_of_operator: Mapping[str, str] = {}
        self._http = f"http://{ports.LOOPBACK}:{(http_port := ports.free_port())}"
        self._project = f"ems-test-{secrets.token_hex(4)}"
        self._compose = [*_compose_command(), "--project-name", self._project, "--file", str(_FILE)]
        self._env = {
            "WORKER_IMAGE": worker_image(),
            "PLATFORM_IMAGE": worker_image(),
            "NATS_IMAGE": containers.nats_image(),
            "NATS_PORT": str(nats_port),
            "HTTP_PORT": str(http_port),
        }

    def __enter__(self) -> Self:
        try:
            self.compose("up", "--detach", "--no-build")
            self._env_of_operator = self._operator(Path(self._keys.enter_context(tempfile.TemporaryDirectory())))
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def down(self) -> None:
        """Stops the deployment and removes its volumes."""
        self._keys.close()
        self.compose("down", "--volumes", "--timeout", "5")

    @property
    def env(self) -> Mapping[str, str]:
        """The environment for commands that connect to it as the operator."""
        return self._env_of_operator

    def _operator(self, directory: Path) -> Mapping[str, str]:
        files = {name: directory / name for name in ("user.nk", "ca.pem")}
        for name, path in files.items():
            content = self.compose("run", "--rm", "-T", "--entrypoint", "cat", "ems", f"/keys/operator/{name}")
            security.private(path, content.encode())
        return commands.environment(
            EMS_SERVER=self.url,
            EMS_NATS_NKEY=str(files["user.nk"]),
            EMS_NATS_CA=str(files["ca.pem"]),
            EMS_NATS_INBOX_PREFIX="_INBOX_operator",
        )

    @property
    def ready(self) -> bool:
        """Whether the worker reports that it is ready."""
        try:
            with urllib.request.urlopen(f"{self._http}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as answer:
            answer.close()
            return False
        except OSError:
            return False

    def restart(self, service: str) -> None:
        """Stops a service in an orderly way and starts it again."""
        self.compose("stop", service)
        self.compose("start", service)

    def logs(self) -> str:
        """The logs of all services."""
        return self.compose("logs", "--no-color")

    def compose(self, *arguments: str) -> str:
        """Runs docker compose with these arguments; returns its output. Raises AssertionError if it fails."""
        done = subprocess.run(
            [*self._compose, *arguments], env={**os.environ, **self._env}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@functools.cache
def _compose_command() -> tuple[str, ...]:
    """The command docker compose, as a plugin of docker or as a program of its own."""
    containers.require_engine()
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) and _output([*command, "version"]) is not None:
            return command
    containers.skip_or_fail("there is no docker compose")
    raise AssertionError


def _output(command: list[str], **env: str) -> str | None:
    """The output of a command; None if it fails or doesn't exist."""
    try:
        done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
