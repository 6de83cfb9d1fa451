"""What tests of the services share."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from ems_worker.service.steering import executor, extend
from tests.support import broker, servers
from tests.support.desk import Desk


@pytest.fixture(autouse=True)
def _at_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply waits for the examination of a small plan, however busy the machine is, and changes don't rest.

    While they rest, they would be looked at once more although nothing woke them.
    """
    monkeypatch.setattr(extend, "_EXAMINATION_SECONDS", 60.0)
    monkeypatch.setattr(executor, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A worker that accepts plans of up to 1,000 jobs."""
    async with Desk.open(tmp_path / "data", max_jobs=1000) as desk:
        yield desk


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A NATS server for all tests of this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def client(desk: Desk, server: servers.NatsServer) -> AsyncIterator[Client]:
    """A plain client of a server on which the desk's worker answers."""
    queries = desk.services.queries
    async with broker.connected(server.url) as served, broker.plain(server) as (client, _):
        await broker.serve(served, queries.handlers())
        yield client
