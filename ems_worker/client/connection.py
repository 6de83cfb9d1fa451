"""A NATS connection for a short-lived program. It translates nats-py's errors into ours."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ems_worker import errors
from ems_worker.client import bus
from ems_worker.settings import masking, running, ways
from ems_worker.settings.ways import Access

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.api import RawStreamMsg

_CODE = "Nats-Service-Error-Code"
_ERROR = "Nats-Service-Error"
# Short, so that a server that is just starting is reached soon.
_RETRY_SECONDS = 0.25
# Every server may refuse this often before connecting fails: it may be just starting.
_REFUSALS = 3
# How long a working server may take to answer a PING.
_PONG_SECONDS = 1
_CLOSE_SECONDS = 2
# OpenSSL's error numbers for a valid certificate of an unknown CA.
_UNKNOWN_ISSUER = (18, 19, 20, 21)
# A lost connection that is idle is noticed after two of these.
_PING_SECONDS = 10
# How many refusals of subjects are remembered.
_DENIED = 100


class ReplyTooLarge(errors.RequestRefused):
    """The reply doesn't fit into a message. A smaller page may."""


class Connection:
    """A connection between `open` and `close`. It reconnects automatically and reports that to `notice`."""

    def __init__(self, servers: str | Sequence[str] | Access, *, timeout: float, notice: Callable[[str], None]) -> None:
        self._access = ways.of(servers)
        self._timeout = timeout
        self._notice = notice
        self._client: Client = bus.nats_access.client(self._access)
        self._last_error: Exception | None = None
        self._opened = False
        self._opening: asyncio.Timeout | None = None
        self._refusals = 0
        self._denied: list[str] = []

    @property
    def client(self) -> "Client":
        """nats-py's client. Use it inside `translated`."""
        return self._client

    @property
    def servers(self) -> str:
        """The servers as shown in messages, without passwords."""
        return masking.urls(self._access.servers)

    def denies(self, subject: str) -> bool:
        """Whether the server has said that this user may not publish or subscribe to a subject."""
        return any(f'"{subject}"' in denied for denied in self._denied)

    async def open(self) -> None:
        """Connects.

        Raises errors.BrokerUnavailable if no server accepts the connection within the timeout, and errors.SettingsError
        if the settings don't allow a connection.
        """
        self._access = running.joined(self._access, os.environ)
        options = bus.nats_access.options(self._access)
        try:
            async with asyncio.timeout(self._timeout) as self._opening:
                await self._client.connect(
                    **options,
                    name="ems",
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    connect_timeout=max(1, int(self._timeout)),
                    reconnect_time_wait=_RETRY_SECONDS,  # type: ignore[arg-type]  # seconds; declared int, used as float
                    max_reconnect_attempts=-1,
                    ping_interval=_PING_SECONDS,
                )
        except (TimeoutError, OSError, ValueError, bus.nats.errors.Error) as failed:
            await self.close()
            raise errors.BrokerUnavailable(_connect_error(self.servers, self._last_error or failed)) from failed
        self._opened = True

    async def close(self) -> None:
        """Sends what is buffered and closes the connection, within two seconds. Does nothing if it is closed."""
        self._opened = False
        with contextlib.suppress(bus.nats.errors.Error, OSError):
            # nats-py waits without end for a TLS connection whose end isn't confirmed.
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._client.close()

    async def last(self, stream: str, subject: str) -> "RawStreamMsg | None":
        """The last message of a subject; None if there is no message or no stream."""
        with self.translated():
            try:
                return await self._client.jetstream().get_last_msg(stream, subject)
            except (bus.nats.js.errors.NotFoundError, bus.nats.errors.NoRespondersError):
                return None

    async def ask(self, subject: str, data: bytes, timeout: float) -> dict[str, Any]:
        """Sends a request to the worker's service and returns the reply.

        Raises errors.NotFound, errors.RequestRefused, errors.WorkerUnavailable or errors.NoAnswer.
        """
        try:
            with self.translated():
                reply = await self._client.request(subject, data, timeout=timeout)
        except bus.nats.errors.NoRespondersError as nobody:
            raise errors.WorkerUnavailable(
                f"no worker answers at {self.servers}; start one: ems-worker run"
            ) from nobody
        except errors.NoAnswer as late:
            if not await self._broker_responds():
                raise
            raise errors.NoAnswer(
                f"the worker did not answer within {timeout:.3g} s: it is busy or hangs; "
                "check `ems-worker health`, its /readyz and its log"
            ) from late
        _check(reply)
        document: dict[str, Any] = json.loads(reply.data)
        return document

    def too_large(self, what: str) -> errors.RequestRefused:
        """The error for a message that is larger than NATS accepts."""
        return errors.RequestRefused(
            f"{what} is larger than the {self._client.max_payload:,} bytes that the NATS server accepts: "
            "raise max_payload in its configuration"
        )

    async def require_jetstream(self, timeout: float) -> None:
        """Raises errors.BrokerMisconfigured if JetStream is known to be off, for all accounts or for ours."""
        try:
            async with asyncio.timeout(timeout):
                await self._client.jetstream().account_info()
        except (bus.nats.js.errors.ServiceUnavailableError, bus.nats.js.errors.APIError) as off:
            raise errors.BrokerMisconfigured(
                f"NATS at {self.servers} has JetStream off, for this account or for all: nothing can be stored "
                "there. Turn it on (nats-server --jetstream, or jetstream in its configuration)"
            ) from off
        except (bus.nats.errors.Error, TimeoutError):
            return  # not allowed to ask

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Translates nats-py's errors into ours.

        Errors for a missing responder, stream or message pass through, as their meaning depends on the request.
        """
        try:
            yield
        except (
            bus.nats.errors.NoRespondersError,
            bus.nats.js.errors.NoStreamResponseError,
            bus.nats.js.errors.NotFoundError,
        ):
            raise
        except bus.nats.errors.MaxPayloadError as refused:
            raise self.too_large("the message") from refused
        except bus.nats.js.errors.APIError as refused:
            raise errors.RequestRefused(f"NATS refused the request: {refused.description}") from refused
        except (bus.nats.errors.TimeoutError, TimeoutError) as late:
            if self._client.is_connected:
                raise errors.NoAnswer(f"no answer from {self.servers} in time") from late
            raise errors.BrokerUnavailable(f"the connection to NATS at {self.servers} was lost") from late
        except (bus.nats.errors.Error, OSError) as failed:
            raise errors.BrokerUnavailable(f"NATS at {self.servers}: {failed}") from failed

    async def _broker_responds(self) -> bool:
        """Whether NATS itself answers. If it does, the missing answer is the worker's."""
        try:
            await self._client.flush(timeout=_PONG_SECONDS)
        except (bus.nats.errors.Error, OSError):
            return False
        return True

    async def _on_error(self, error: Exception) -> None:
        if bus.nats_access.is_violation(error):
            self._denied = [*self._denied[-_DENIED:], str(error)]
        self._last_error = bus.nats_access.reason(self._last_error, error)
        if not self._opened and self._opening is not None and isinstance(error, ConnectionRefusedError):
            self._refusals += 1
            if self._refusals == _REFUSALS * len(self._access.servers):
                # No server is listening: waiting longer is pointless.
                self._opening.reschedule(asyncio.get_running_loop().time())

    async def _on_disconnect(self) -> None:
        if self._opened:
            self._notice("the connection to NATS is lost; reconnecting")

    async def _on_reconnect(self) -> None:
        self._notice("reconnected to NATS")


def _connect_error(servers: str, error: Exception) -> str:
    """Explains why connecting failed, and what to do about it."""
    why = _reason(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "; set EMS_NATS_CA to the file of its CA" if error.verify_code in _UNKNOWN_ISSUER else ""
        return f"the certificate of NATS at {servers} isn't trusted ({why}){remedy}"
    if isinstance(error, ssl.SSLError):
        return (
            f"the TLS handshake with NATS at {servers} failed ({why}); if the server requires a client certificate, "
            "set EMS_NATS_CERT and EMS_NATS_KEY"
        )
    if isinstance(error, bus.nats_access.NotEncryptedError):
        return f"NATS at {servers}: {why}"
    if isinstance(error, bus.nats.errors.Error) and "auth" in why.lower():
        return (
            f"NATS at {servers} refused the connection ({why}): the credentials are missing or wrong; give them with "
            "--context, or EMS_NATS_USER and EMS_NATS_PASSWORD, EMS_NATS_TOKEN, EMS_NATS_CREDS or EMS_NATS_NKEY; "
            "a platform of `ems up` prints its address for --server, and the context to use"
        )
    return (
        f"no NATS server at {servers} ({why}); start one (`ems up` starts a whole platform), or specify another with "
        "--server or NATS_URL"
    )


def _reason(error: Exception) -> str:
    """A network error in its usual wording."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return str(error).removeprefix("nats: ") or "no answer"


def _check(reply: "Msg") -> None:
    headers: Mapping[str, str] = reply.headers or {}
    code = headers.get(_CODE)
    if code is None:
        return
    message = headers.get(_ERROR) or "the worker refused the request"
    if code == "404":
        raise errors.NotFound(message)
    if code == "413":
        raise ReplyTooLarge(message)
    raise errors.RequestRefused(message if code != "500" else f"the worker failed to answer: {message}")
