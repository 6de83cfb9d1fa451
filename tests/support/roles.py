"""A real broker with one user per role, configured as in deploy/nats and by `ems up --secured`."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from nats.aio.client import Client

from ems_worker import nats_access
from ems_worker.adapters.jetstream import provision
from ems_worker.local import keys, ports
from tests.support import broker, servers

ROLES = ("publisher", "worker", "orchestrator", "analysis", "dashboard", "operator", "admin")


class SecuredBroker:
    """The broker, and the keys of its users."""

    def __init__(self, made: keys.Keys, server: servers.NatsServer) -> None:
        self.keys = made
        self.server = server

    @classmethod
    def new(cls, directory: Path) -> Self:
        """A broker with new keys on a free port, not started yet."""
        port = ports.free_port()
        made = keys.make(directory / "keys", f"tls://{ports.LOOPBACK}:{port}")
        return cls(made, servers.NatsServer(directory / "nats", port=port, more=made.configuration()))

    async def start(self) -> None:
        """Starts the broker; the user `admin` then creates all streams."""
        await self.server.start()
        await provision(self.keys.access("admin"), 5)

    @contextlib.asynccontextmanager
    async def user(self, role: str) -> AsyncIterator["User"]:
        """A connection as the user of this role, by plain nats-py."""
        access = self.keys.access(role)
        user = User(nats_access.client(access))
        await user.client.connect(**nats_access.options(access), error_cb=user.on_error, allow_reconnect=False)
        try:
            yield user
        finally:
            await user.client.close()


class User:
    """A connection, and the subjects that the broker has denied it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.denied: list[str] = []

    async def on_error(self, error: Exception) -> None:
        """Records the subject of a permissions violation."""
        if nats_access.is_violation(error):
            self.denied.append(str(error).split('"')[1])

    async def publishes(self, subject: str, data: bytes = b"?", reply: str = "") -> bool:
        """Whether the user may publish this. The broker reports a violation before it answers the ping of a flush."""
        self.denied.clear()
        await self.client.publish(subject, data, reply=reply)
        await broker.subscribed(self.client)
        return not self.denied

    async def subscribes(self, subject: str) -> bool:
        """Whether the user may subscribe to this subject."""
        self.denied.clear()
        subscription = await self.client.subscribe(subject)
        await broker.subscribed(self.client)
        if self.denied:
            return False
        await subscription.unsubscribe()
        return True
