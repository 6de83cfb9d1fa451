"""A broker and an orchestrator that keep running while a test stops and starts the worker, a real command."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats

from ems_worker.local import ports
from tests.support import commands, servers, wait


@dataclass(frozen=True, slots=True)
class Site:
    """The running servers, and the settings of a worker for them."""

    directory: Path
    nats: servers.NatsServer
    settings: dict[str, str]

    def worker(self) -> servers.Program:
        """The worker, not started yet."""
        command = [str(Path(commands.SCRIPTS) / "ems-worker"), "run"]
        return servers.Program("ems-worker", command, log=self.directory / "worker.log", env=self.settings)

    async def ready(self) -> None:
        """Waits until the worker is ready."""
        http = self.settings["EMS_HTTP"]
        await wait.until(lambda: commands.ready(http), timeout=30, what="the worker to be ready")

    def database(self) -> sqlite3.Connection:
        """A read-only connection to the manifest."""
        connection = sqlite3.connect(f"file:{self.directory / 'data' / 'manifest.db'}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        return connection


@asynccontextmanager
async def site(directory: Path, *orchestrator: str) -> AsyncIterator[Site]:
    """Starts a nats-server and the no-op orchestrator; `orchestrator` are flags of `tests.support.oracle`."""
    async with servers.NatsServer(directory / "nats") as broker:
        flags = ["--server", broker.url, *orchestrator]
        async with servers.GrpcProgram("tests.support.oracle", flags, log=directory / "oracle.log") as oracle:
            settings = commands.environment(
                EMS_SERVER=broker.url,
                EMS_ORCHESTRATOR=oracle.target,
                EMS_DATA_DIR=str(directory / "data"),
                EMS_HTTP=f"{ports.LOOPBACK}:{ports.free_port()}",
            )
            yield Site(directory, broker, settings)


async def changed(site: Site, verb: str, request: dict[str, str]) -> dict[str, object]:
    """The reply of the worker to a control request."""
    connection = await nats.connect(site.nats.url)
    try:
        reply = await connection.request(f"ems.api.{verb}", json.dumps(request).encode(), timeout=10)
        return dict(json.loads(reply.data))
    finally:
        await connection.close()
