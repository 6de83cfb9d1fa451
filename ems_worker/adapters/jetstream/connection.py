"""A connection to NATS that reconnects until it is closed."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import nats.errors
from nats.aio.msg import Msg

from ems_worker import errors, nats_access, ticks
from ems_worker.adapters.jetstream.refusals import Refusals
from ems_worker.settings import ways
from ems_worker.settings.ways import Access

# Everything that nats-py's calls raise: its own errors, those of the socket, and asyncio's timeout.
FOREIGN = (nats.errors.Error, OSError, TimeoutError)

_INBOX = "_INBOX"
_DIAL_SECONDS = 4.0
_SOCKET_SECONDS = 2
# Two pings go unanswered and the third notices it: a half-open connection lasts 27 seconds at most.
PING_SECONDS = 9
_MAX_OUTSTANDING_PINGS = 2
_CHECK_SECONDS = 1.0
_CLOSE_SECONDS = 1.5
_CANCEL_SECONDS = 0.1
_MIN_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 2.0


class NoResponders(errors.BrokerUnavailable):
    """The server answered that nothing listens on the subject of the request."""


class Listener(Protocol):
    """A part of the adapter that lives on the connection."""

    async def connected(self, client: nats_access.Client) -> None:
        """Sets up the subscriptions on a new connection, before anything else uses it."""

    def lost(self) -> None:
        """The connection is lost, with everything that was in flight on it."""


def _nothing(*_: object) -> None:
    pass


class Connection:
    """Keeps a nats-py client connected, and replaces it with a new one whenever it loses its connection.

    nats-py's own reconnection isn't used. A client that gets `-ERR` (an expired user, a message too large) closes for
    good all the same, and one whose socket is half open may wait indefinitely for that socket to close. So there is
    one way to reconnect: a new client, and a new setup of the listeners.
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
        # Unique, to distinguish it from the inboxes of other clients with the same prefix.
        self.inbox = f"{(self._access.inbox_prefix or _INBOX).rstrip('.')}.{secrets.token_hex(11)}"
        self._name = name
        self._on_disconnected = on_disconnected
        self._on_reconnected = on_reconnected
        self.on_error = on_error
        self.refusals = Refusals()
        self._listeners: list[Listener] = []
        self._client: nats_access.Client | None = None
        self._up = asyncio.Event()
        self._closed = asyncio.Event()
        self._last_error: Exception | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def where(self) -> str:
        """The servers' addresses for error messages, without passwords."""
        return self._access.where

    @property
    def client(self) -> nats_access.Client:
        """The client of the current connection; raises BrokerUnavailable without a connection."""
        if self._client is None or not self._client.is_connected:
            raise errors.BrokerUnavailable(f"not connected to NATS at {self.where}{self._because()}")
        return self._client

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes, headers included."""
        return self.client.max_payload

    async def open(self, timeout: float | None) -> None:
        """Connects. Without a timeout it retries until it succeeds.

        With a timeout (seconds) it raises BrokerUnavailable once it has tried every server, or at the timeout. Raises
        SettingsError for settings that can't work.
        """
        # Report at once what a retry can't fix: contradicting settings, missing files.
        nats_access.options(self._access)
        if timeout is None:
            self._keeper = asyncio.create_task(self._keep(None))
            await self._up.wait()
            return
        try:
            async with asyncio.timeout(timeout):
                client = await self._dial()
                self._keeper = asyncio.create_task(self._keep(client))
                await self._up.wait()
        except TimeoutError as error:
            await self.close()
            raise errors.BrokerUnavailable(
                f"no NATS server answered within {timeout:g} s at {self.where}{self._because()}"
            ) from error

    async def close(self) -> None:
        """Sends what is buffered and closes, within two seconds. Closing twice is harmless."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            # nats-py swallows a cancellation that arrives while it closes a connection: cancel again until it ends.
            while not keeper.done():
                keeper.cancel()
                await asyncio.wait((keeper,), timeout=_CANCEL_SECONDS)
        client, self._client = self._client, None
        if client is not None:
            await self._discard(client)
        self._up.clear()

    async def listen(self, listener: Listener) -> None:
        """Sets up `listener` on the current connection, if any, and on every later one."""
        self._listeners.append(listener)
        if self._client is not None and self._client.is_connected:
            with contextlib.suppress(*FOREIGN):  # lost meanwhile: the next connection sets it up
                await listener.connected(self._client)

    async def ready(self, timeout: float) -> nats_access.Client:
        """The client, once connected; raises BrokerUnavailable after `timeout` seconds without a connection."""
        await self.until_connected(timeout)
        return self.client

    async def until_connected(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for a connection; whether there is one."""
        if not self.connected:
            if self._client is not None:
                # A client of nats-py is closed for a while before it calls back. `_up` is still set then, so waiting
                # for it would return at once, and a caller that waits in a loop would starve the keeper task.
                self._up.clear()
                self._closed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._up.wait()
        return self.connected

    async def request(self, subject: str, data: bytes, timeout: float) -> Msg:
        """The reply to a request.

        Raises NoResponders, and BrokerUnavailable if no reply comes within `timeout` seconds.
        """
        client = await self.ready(timeout)
        # On a lost connection, nats-py would let the request wait until its timeout.
        lost = asyncio.create_task(self._closed.wait())
        asking = asyncio.create_task(client.request(subject, data, timeout=timeout))
        try:
            await asyncio.wait((asking, lost), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise errors.BrokerUnavailable(f"the connection to {self.where} was lost before {subject} was answered")
            return asking.result()
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nothing answers on {subject} at {self.where}") from error
        except FOREIGN as error:
            raise errors.BrokerUnavailable(f"no answer on {subject} at {self.where}: {_message(error)}") from error
        finally:
            for task in (asking, lost):
                task.cancel()

    async def _keep(self, client: nats_access.Client | None) -> None:
        failures, reported = 0, ""
        first = True
        while True:
            try:
                client = client or await self._dial()
                for listener in self._listeners:
                    await listener.connected(client)
            except (errors.BrokerUnavailable, *FOREIGN) as error:
                if failures == 0 or str(error) != reported:
                    # Once for an outage, and again when its reason changes, but not at every attempt.
                    reported = str(error)
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
            # With jitter, so that the clients of a server don't all reconnect at the same instant.
            await asyncio.sleep(_pause_seconds(0))

    async def _dial(self) -> nats_access.Client:
        try:
            options = nats_access.options(self._access) | {"inbox_prefix": self.inbox}
        except errors.SettingsError as error:  # files that are being replaced: the next attempt may succeed
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
                    # nats-py tries each server twice without a pause; the pauses between rounds are ours.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=_SOCKET_SECONDS,
                    ping_interval=PING_SECONDS,
                    max_outstanding_pings=_MAX_OUTSTANDING_PINGS,
                    error_cb=self._note_error,
                    closed_cb=on_closed,
                )
        except Exception as error:  # a broken server can make nats-py raise anything: the next attempt may succeed
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
            # The connection survives. Every denied message brings this error, so report the first of each kind only.
            if self.refusals.record_violation(error):
                self.on_error(error)
            return
        self._last_error = nats_access.reason(self._last_error, error)
        if self._client is not None:
            self.on_error(error)

    async def _until_lost(self, client: nats_access.Client) -> None:
        closed = self._closed
        while not closed.is_set() and client.is_connected:
            # Poll as well: a client that can't close its half-open socket never calls back.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ticks.until_next(_CHECK_SECONDS)):
                    await closed.wait()

    async def _discard(self, client: nats_access.Client) -> None:
        with contextlib.suppress(*FOREIGN):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close()

    def _because(self) -> str:
        return f": {_message(self._last_error)}" if self._last_error is not None else ""


def _pause_seconds(failures: int) -> float:
    pause = min(_MAX_PAUSE_SECONDS, _MIN_PAUSE_SECONDS * 2.0**failures)
    return pause * random.uniform(0.5, 1.5)  # noqa: S311  jitter, not a secret


def _message(error: Exception) -> str:
    return str(error).removeprefix("nats: ").strip("'\"") or type(error).__name__
