"""One connection to NATS that comes back for as long as it is open."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker import errors, nats_access
from ems_worker.adapters.jetstream.refusals import Refusals
from ems_worker.settings import ways
from ems_worker.settings.ways import Access

# Everything that nats-py lets out of its calls: its own errors, the socket's, and asyncio's time-out.
FOREIGN = (nats.errors.Error, OSError, TimeoutError)

_INBOX = "_INBOX"
_DIAL_SECONDS = 4.0
_SOCKET_SECONDS = 2
# Two unanswered pings and the third that notices: a half-open connection lasts 27 seconds at most.
_PING_SECONDS = 9
_PINGS = 2
_LOOK_SECONDS = 1.0
_CLOSE_SECONDS = 1.5
_CANCEL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class NoResponders(errors.BrokerUnavailable):
    """The server answered that nobody listens on the subject of the request."""


class Listener(Protocol):
    """What lives on a connection: it is told of every new one, before that is used, and of its loss."""

    async def connected(self, client: Client) -> None:
        """Sets up what a new connection doesn't have: subscriptions."""

    def lost(self) -> None:
        """The connection is gone, with all that was under way on it."""


def _nothing(*_: object) -> None:
    pass


class Connection:
    """Keeps one nats-py client connected, and replaces it by a new one whenever it is lost.

    nats-py's own reconnection isn't used: a client that is told `-ERR` (an expired user, a message too large) closes
    for good all the same, and one whose socket is half open may wait for ever for that socket to close. So the way
    back is always the same: a new client, and the listeners set up anew.
    """

    def __init__(
        self,
        servers: Access | Sequence[str],
        *,
        name: str,
        on_disconnected: Callable[[], None] = _nothing,
        on_reconnected: Callable[[], None] = _nothing,
        on_error: Callable[[Exception], None] = _nothing,
    ) -> None:
        self._access = ways.of(servers)
        # Of its own, so that one can tell it from the inboxes of others who have the same prefix.
        self.inbox = f"{(self._access.inbox_prefix or _INBOX).rstrip('.')}.{secrets.token_hex(11)}"
        self._name = name
        self._on_disconnected = on_disconnected
        self._on_reconnected = on_reconnected
        self.on_error = on_error
        self.refusals = Refusals()
        self._listeners: list[Listener] = []
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._closed = asyncio.Event()
        self._last_error: Exception | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def where(self) -> str:
        """The servers' addresses for messages, without the passwords that they may have in them."""
        return self._access.where

    @property
    def client(self) -> Client:
        """The client of the present connection; raises BrokerUnavailable where there is none."""
        if self._client is None or not self._client.is_connected:
            raise errors.BrokerUnavailable(f"not connected to NATS at {self.where}{self._because()}")
        return self._client

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, headers included, in bytes."""
        return self.client.max_payload

    async def open(self, timeout: float | None) -> None:
        """Connects. With a timeout in seconds, raises BrokerUnavailable once every server was tried, or at the timeout;
        without one, tries for ever. Raises SettingsError for settings that no connection can be made with."""
        # What can't be right later either is said now: settings that contradict, files that aren't there.
        nats_access.options(self._access)
        if timeout is None:
            self._keeper = asyncio.create_task(self._keep(None))
            await self._up.wait()
            return
        try:
            async with asyncio.timeout(timeout):
                client = await self._dial()
        except TimeoutError as error:
            raise errors.BrokerUnavailable(
                f"no NATS server answered within {timeout:g} s at {self.where}{self._because()}"
            ) from error
        self._keeper = asyncio.create_task(self._keep(client))
        await self._up.wait()

    async def close(self) -> None:
        """Sends what waits to be sent and closes; never takes longer than two seconds. Harmless twice."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            # nats-py swallows a cancellation that meets it while it lets go of a connection: so once more.
            while not keeper.done():
                keeper.cancel()
                await asyncio.wait((keeper,), timeout=_CANCEL_SECONDS)
        client, self._client = self._client, None
        if client is not None:
            await self._discard(client)
        self._up.clear()

    async def listen(self, listener: Listener) -> None:
        """From now on, `listener` is told of every connection; of the present one at once."""
        self._listeners.append(listener)
        if self._client is not None and self._client.is_connected:
            with contextlib.suppress(*FOREIGN):  # lost meanwhile: the next connection tells it again
                await listener.connected(self._client)

    async def ready(self, timeout: float) -> Client:
        """The client, once there is a connection; raises BrokerUnavailable after `timeout` seconds without one."""
        await self.until_connected(timeout)
        return self.client

    async def until_connected(self, timeout: float) -> bool:
        """Waits for a connection, `timeout` seconds at most; whether there is one."""
        if not self.connected:
            if self._client is not None:
                # nats-py is closed for a while before it says so. Waiting for an event that is still set would return
                # at once, and a caller that waits in a loop would keep the keeper from ever running.
                self._up.clear()
                self._closed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._up.wait()
        return self.connected

    async def request(self, subject: str, data: bytes, timeout: float) -> Msg:
        """The reply to a request. Raises NoResponders; BrokerUnavailable where none comes within `timeout` seconds."""
        client = await self.ready(timeout)
        # nats-py lets a request wait out its time on a connection that is gone.
        lost = asyncio.create_task(self._closed.wait())
        asking = asyncio.create_task(client.request(subject, data, timeout=timeout))
        try:
            await asyncio.wait((asking, lost), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise errors.BrokerUnavailable(f"the connection to {self.where} was lost before {subject} was answered")
            return asking.result()
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nobody answers on {subject} at {self.where}") from error
        except FOREIGN as error:
            raise errors.BrokerUnavailable(f"no answer on {subject} at {self.where}: {_words(error)}") from error
        finally:
            for task in (asking, lost):
                task.cancel()

    async def _keep(self, client: Client | None) -> None:
        failures, said = 0, ""
        first = True
        while True:
            try:
                client = client or await self._dial()
                for listener in self._listeners:
                    await listener.connected(client)
            except (errors.BrokerUnavailable, *FOREIGN) as error:
                if failures == 0 or str(error) != said:
                    # Once an outage, and again where its reason changes; not at every attempt.
                    said = str(error)
                    self.on_error(error)
                if client is not None:
                    await self._discard(client)
                    client = None
                await asyncio.sleep(_pause_seconds(failures))
                failures += 1
                continue
            self._client, failures = client, 0
            self._up.set()
            if not first:
                self._on_reconnected()
            first = False
            await self._until_lost(client)
            self._closed.set()
            self._up.clear()
            self._client = None
            for listener in self._listeners:
                listener.lost()
            self.refusals.clear()
            self._on_disconnected()
            await self._discard(client)
            client = None
            # A spread, so that all clients of a server don't come back in the same instant.
            await asyncio.sleep(_pause_seconds(0))

    async def _dial(self) -> Client:
        try:
            options = nats_access.options(self._access) | {"inbox_prefix": self.inbox}
        except errors.SettingsError as error:  # files that are being replaced: there will be another attempt
            raise errors.BrokerUnavailable(str(error)) from error
        client = nats_access.client(self._access)
        self._closed = closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                await client.connect(
                    **options,
                    name=self._name,
                    allow_reconnect=False,
                    # Twice a server, at once; the pauses between rounds are ours.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=_SOCKET_SECONDS,
                    ping_interval=_PING_SECONDS,
                    max_outstanding_pings=_PINGS,
                    error_cb=self._note_error,
                    closed_cb=on_closed,
                )
        except Exception as error:  # whatever a broken server makes nats-py raise: there will be another attempt
            await self._discard(client)
            if not isinstance(error, nats.errors.NoServersError):
                self._last_error = nats_access.reason(self._last_error, error)
            raise errors.BrokerUnavailable(f"no NATS server answers at {self.where}{self._because()}") from error
        except asyncio.CancelledError:
            await self._discard(client)
            raise
        return client

    async def _note_error(self, error: Exception) -> None:
        if nats_access.is_violation(error):
            # The connection lives on. One a message comes, so only the first of each kind is said.
            if self.refusals.note_violation(error):
                self.on_error(error)
            return
        self._last_error = nats_access.reason(self._last_error, error)
        if self._client is not None:
            self.on_error(error)

    async def _until_lost(self, client: Client) -> None:
        closed = self._closed
        while not closed.is_set() and client.is_connected:
            # Looked at every second too: a client that can't close its half-open socket never says that it closed.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await closed.wait()

    async def _discard(self, client: Client) -> None:
        with contextlib.suppress(*FOREIGN):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close()

    def _because(self) -> str:
        return f": {_words(self._last_error)}" if self._last_error is not None else ""


def _pause_seconds(failures: int) -> float:
    pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**failures)
    return pause * random.uniform(0.5, 1.5)  # noqa: S311  a spread, not a secret


def _words(error: Exception) -> str:
    return str(error).removeprefix("nats: ").strip("'\"") or type(error).__name__
