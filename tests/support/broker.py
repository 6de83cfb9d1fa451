"""A broker under test, the same server seen by a plain client, and a link between them that can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from ems_worker.adapters.jetstream import Broker
from tests.support import servers


@dataclass
class Heard:
    """What the broker's callbacks told."""

    disconnected: int = 0
    reconnected: int = 0
    errors: list[Exception] = field(default_factory=list)

    def on_disconnected(self) -> None:
        self.disconnected += 1

    def on_reconnected(self) -> None:
        self.reconnected += 1


@contextlib.asynccontextmanager
async def connected(url: str, heard: Heard | None = None, *, ensure: bool = True) -> AsyncIterator[Broker]:
    """A broker whose streams are there, unless `ensure` is off."""
    heard = heard or Heard()
    async with Broker.connect(
        [url],
        name="test",
        timeout=5,
        on_disconnected=heard.on_disconnected,
        on_reconnected=heard.on_reconnected,
        on_error=heard.errors.append,
    ) as broker:
        if ensure:
            await broker.ensure()
        yield broker


@contextlib.asynccontextmanager
async def plain(server: servers.NatsServer) -> AsyncIterator[tuple[Client, JetStreamContext]]:
    """nats-py's own client: what the rest of the world uses."""
    client = await nats.connect(server.url)
    try:
        yield client, client.jetstream()
    finally:
        await client.close()


class Link:
    """A TCP relay to a server. Frozen, it swallows what is sent without a word: a half-open connection."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def freeze(self) -> None:
        """From now on nothing passes on the connections that are open; new ones work."""
        for pipe in self._pipes:
            pipe.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, far_writer]
        for source, target in ((reader, far_writer), (far_reader, writer)):
            pipe = asyncio.create_task(self._relay(source, target))
            self._pipes.add(pipe)

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
            target.close()
