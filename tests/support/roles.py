"""A real broker with one user a role, as deploy/nats and `ems up --secured` have it; and what it refuses."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from nats.aio.client import Client

from ems_worker import nats_access
from ems_worker.adapters.jetstream import provision
from ems_worker.local import keys, ports
from tests.support import servers

ROLES = ("publisher", "worker", "orchestrator", "analysis", "dashboard", "operator", "admin")


class Site:
    """The broker, and its users' keys."""

    def __init__(self, made: keys.Keys, server: servers.NatsServer) -> None:
        self.keys = made
        self.server = server

    @classmethod
    def new(cls, directory: Path) -> Self:
        """With keys of its own, and a port that is free."""
        port = ports.free_port()
        made = keys.make(directory / "keys", f"tls://{ports.LOOPBACK}:{port}")
        return cls(made, servers.NatsServer(directory / "nats", port=port, more=made.configuration()))

    async def start(self) -> None:
        """With all streams, made by the administrator."""
        await self.server.start()
        await provision(self.keys.access("admin"), 5)

    @contextlib.asynccontextmanager
    async def user(self, role: str) -> AsyncIterator["User"]:
        """Somebody with this role's rights, by plain nats-py."""
        access = self.keys.access(role)
        one = User(nats_access.client(access))
        await one.client.connect(**nats_access.options(access), error_cb=one.note, allow_reconnect=False)
        try:
            yield one
        finally:
            await one.client.close()


class User:
    """A connection, and the subjects that the broker denied it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.denied: list[str] = []

    async def note(self, error: Exception) -> None:
        if nats_access.is_violation(error):
            self.denied.append(str(error).split('"')[1])

    async def _answered(self) -> None:
        # Twice: nats-py's ping may overtake what waits to be sent, and only ensures that it is sent.
        await self.client.flush()
        await self.client.flush()

    async def publishes(self, subject: str, data: bytes = b"?", reply: str = "") -> bool:
        """Whether the broker lets it: it says what it denies before it answers the ping of a flush."""
        self.denied.clear()
        await self.client.publish(subject, data, reply=reply)
        await self._answered()
        return not self.denied

    async def subscribes(self, subject: str) -> bool:
        """Whether the broker lets it."""
        self.denied.clear()
        subscription = await self.client.subscribe(subject)
        await self._answered()
        if self.denied:
            return False
        await subscription.unsubscribe()
        return True
