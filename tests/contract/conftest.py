"""The broker's contract holds on any nats-server: as a process, and in a container where an engine answers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import containers, servers


@pytest.fixture(params=["process", pytest.param("container", marks=pytest.mark.long)])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    """A nats-server of the test's own."""
    made = (
        servers.NatsServer(tmp_path)
        if request.param == "process"
        else containers.NatsServer(request.getfixturevalue("network"))
    )
    async with made as one:
        yield one
