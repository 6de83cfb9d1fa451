"""A broker under test, and the same server seen by a plain client."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from ems_worker.adapters.jetstream import Broker
from ems_worker.adapters.jetstream.service import Answering
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.replies import Replies
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


# The manifest that the consumers of these tests feed.
OWNER = "5f0c"


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
            await broker.ensure(OWNER)
        yield broker


async def serve(broker: Broker, endpoints: Mapping[str, Answering], version: str = "1.2.3") -> Metrics:
    """Has the broker serve as the worker does, with replies to `_INBOX.` only; the metrics that count the others."""
    metrics = Metrics()
    await broker.serve(endpoints, version=version, allows=Replies(("_INBOX.",), broker.inbox, metrics).allows)
    return metrics


@contextlib.asynccontextmanager
async def plain(server: servers.NatsServer) -> AsyncIterator[tuple[Client, JetStreamContext]]:
    """nats-py's own client: what the rest of the world uses."""
    client = await nats.connect(server.url)
    try:
        yield client, client.jetstream()
    finally:
        await client.close()
