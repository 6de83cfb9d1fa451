"""A broker under test, and a plain client of the same server."""

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
class Callbacks:
    """What the broker reported to its callbacks."""

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
async def connected(url: str, callbacks: Callbacks | None = None, *, ensure: bool = True) -> AsyncIterator[Broker]:
    """A connected broker; unless `ensure` is off, its streams exist."""
    callbacks = callbacks or Callbacks()
    async with Broker.connect(
        [url],
        name="test",
        timeout=5,
        on_disconnected=callbacks.on_disconnected,
        on_reconnected=callbacks.on_reconnected,
        on_error=callbacks.errors.append,
    ) as broker:
        if ensure:
            await broker.ensure(OWNER)
        yield broker


async def serve(broker: Broker, endpoints: Mapping[str, Answering], version: str = "1.2.3") -> Metrics:
    """Serves endpoints as the worker does, with replies only to `_INBOX.`; returns the metrics that count refusals."""
    metrics = Metrics()
    await broker.serve(endpoints, version=version, allows=Replies(("_INBOX.",), broker.inbox, metrics).allows)
    return metrics


async def subscribed(client: Client) -> None:
    """Returns when the server has processed the client's subscriptions, and all else that it sent.

    nats-py's flush writes its ping at once, ahead of what is still in its buffer: only the second comes after it.
    """
    await client.flush()
    await client.flush()


@contextlib.asynccontextmanager
async def plain(server: servers.NatsServer) -> AsyncIterator[tuple[Client, JetStreamContext]]:
    """A client of nats-py, as other programs use it."""
    client = await nats.connect(server.url)
    try:
        yield client, client.jetstream()
    finally:
        await client.close()
