"""One NATS connection for a short-lived program, with nats-py's errors made ours."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from ems_worker import errors, nats_access
from ems_worker.settings import masking, running, ways
from ems_worker.settings.ways import Access

_CODE = "Nats-Service-Error-Code"
_ERROR = "Nats-Service-Error"
# With this many connection attempts a second a server that is just starting is met soon.
_RETRY_SECONDS = 0.25
# So often every server may refuse before we give up: one may be starting this moment.
_REFUSALS = 3
# How long a server that hears us may take to say so.
_PONG_SECONDS = 1
# OpenSSL's numbers for a certificate that is right but of a CA that we don't know.
_UNKNOWN_ISSUER = (18, 19, 20, 21)
# An idle connection whose server is gone is noticed after two of these.
_PING_SECONDS = 10


class ReplyTooLarge(errors.RequestRefused):
    """The reply doesn't fit into a message of this server; a smaller page may."""


class Connection:
    """Connected between `open` and `close`; reconnects by itself in between, and says so through `notice`."""

    def __init__(self, servers: str | Sequence[str] | Access, *, timeout: float, notice: Callable[[str], None]) -> None:
        self._access = ways.of(servers)
        self._timeout = timeout
        self._notice = notice
        self._client: Client = nats_access.client(self._access)
        self._last_error: Exception | None = None
        self._opened = False
        self._opening: asyncio.Timeout | None = None
        self._refusals = 0

    @property
    def client(self) -> Client:
        """nats-py's client; its errors are translated by `translated`."""
        return self._client

    @property
    def servers(self) -> str:
        """The servers for messages, without passwords."""
        return masking.urls(self._access.servers)

    async def open(self) -> None:
        """Connects. Raises BrokerUnavailable where no server lets us in within the timeout, SettingsError for settings
        that no connection can be made with."""
        self._access = running.joined(self._access, os.environ)
        options = nats_access.options(self._access)
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
        except (TimeoutError, OSError, ValueError, nats.errors.Error) as failed:
            await self.close()
            raise errors.BrokerUnavailable(_kept_out(self.servers, self._last_error or failed)) from failed
        self._opened = True

    async def close(self) -> None:
        """Ends the connection. Harmless twice."""
        self._opened = False
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.close()

    async def last(self, stream: str, subject: str) -> RawStreamMsg | None:
        """The last message of a subject; None where there is none, or no such stream."""
        with self.translated():
            try:
                return await self._client.jetstream().get_last_msg(stream, subject)
            except (nats.js.errors.NotFoundError, nats.errors.NoRespondersError):
                return None

    async def ask(self, subject: str, data: bytes, timeout: float) -> dict[str, Any]:
        """One request to the worker's service. Raises NotFound, RequestRefused, WorkerUnavailable or NoAnswer."""
        try:
            with self.translated():
                reply = await self._client.request(subject, data, timeout=timeout)
        except nats.errors.NoRespondersError as nobody:
            raise errors.WorkerUnavailable(
                f"no worker answers at {self.servers}; start one: ems-worker run"
            ) from nobody
        except errors.NoAnswer as late:
            if not await self._hears():
                raise
            raise errors.NoAnswer(
                f"the worker did not answer within {timeout:g} s: it is busy or hangs; "
                "look at `ems-worker health`, its /readyz and its log"
            ) from late
        _check(reply)
        document: dict[str, Any] = json.loads(reply.data)
        return document

    def too_large(self, what: str) -> errors.RequestRefused:
        """The error of a message that NATS doesn't take."""
        return errors.RequestRefused(
            f"{what} is larger than the {self._client.max_payload:,} bytes that the NATS server takes: "
            "raise max_payload in its configuration"
        )

    async def require_jetstream(self, timeout: float) -> None:
        """Raises errors.BrokerMisconfigured where NATS has no JetStream, for us; returns where that can't be told."""
        try:
            async with asyncio.timeout(timeout):
                await self._client.jetstream().account_info()
        except (nats.js.errors.ServiceUnavailableError, nats.js.errors.APIError) as off:
            raise errors.BrokerMisconfigured(
                f"NATS at {self.servers} has JetStream off, for this account or altogether: nothing can be stored "
                "there. Turn it on (nats-server --jetstream, or jetstream in its configuration)"
            ) from off
        except (nats.errors.Error, TimeoutError):
            return  # not allowed to ask

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """nats-py's errors as ours, but for those whose meaning depends on the question: nobody, or nothing there."""
        try:
            yield
        except (nats.errors.NoRespondersError, nats.js.errors.NoStreamResponseError, nats.js.errors.NotFoundError):
            raise
        except nats.errors.MaxPayloadError as refused:
            raise self.too_large("the message") from refused
        except nats.js.errors.APIError as refused:
            raise errors.RequestRefused(f"NATS refused it: {refused.description}") from refused
        except (nats.errors.TimeoutError, TimeoutError) as late:
            if self._client.is_connected:
                raise errors.NoAnswer(f"no answer from {self.servers} in time") from late
            raise errors.BrokerUnavailable(f"the connection to NATS at {self.servers} was lost") from late
        except (nats.errors.Error, OSError) as failed:
            raise errors.BrokerUnavailable(f"NATS at {self.servers}: {failed}") from failed

    async def _hears(self) -> bool:
        """Whether NATS itself answers: then it is somebody behind it who doesn't."""
        try:
            await self._client.flush(timeout=_PONG_SECONDS)
        except (nats.errors.Error, OSError):
            return False
        return True

    async def _on_error(self, error: Exception) -> None:
        self._last_error = nats_access.reason(self._last_error, error)
        if not self._opened and self._opening is not None and isinstance(error, ConnectionRefusedError):
            self._refusals += 1
            if self._refusals == _REFUSALS * len(self._access.servers):
                # Nobody listens anywhere: there is nothing to wait for.
                self._opening.reschedule(asyncio.get_running_loop().time())

    async def _on_disconnect(self) -> None:
        if self._opened:
            self._notice("the connection to NATS is lost, trying again")

    async def _on_reconnect(self) -> None:
        self._notice("connected to NATS again")


def _kept_out(servers: str, error: Exception) -> str:
    """Why there is no connection, and what to do about that: nobody is there, or somebody who doesn't let us in."""
    why = _words(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "; EMS_NATS_CA names the file of its CA" if error.verify_code in _UNKNOWN_ISSUER else ""
        return f"the certificate of NATS at {servers} isn't trusted ({why}){remedy}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with NATS at {servers} ({why}); EMS_NATS_CERT and EMS_NATS_KEY name a certificate of ours"
    if isinstance(error, nats_access.NotEncryptedError):
        return f"NATS at {servers}: {why}"
    if isinstance(error, nats.errors.Error) and "auth" in why.lower():
        return (
            f"NATS at {servers} doesn't let us in ({why}): the credentials are missing or wrong; give them with "
            "--context, or EMS_NATS_USER and EMS_NATS_PASSWORD, EMS_NATS_TOKEN, EMS_NATS_CREDS or EMS_NATS_NKEY; "
            "a platform of `ems up` says which context is its own"
        )
    return f"no NATS server at {servers} ({why}); start one, or name another with --server or NATS_URL"


def _words(error: Exception) -> str:
    """An error of the network in the words that people know it by."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return str(error).removeprefix("nats: ") or "no answer"


def _check(reply: Msg) -> None:
    headers: Mapping[str, str] = reply.headers or {}
    code = headers.get(_CODE)
    if code is None:
        return
    said = headers.get(_ERROR) or "the worker refused the request"
    if code == "404":
        raise errors.NotFound(said)
    if code == "413":
        raise ReplyTooLarge(said)
    raise errors.RequestRefused(said if code != "500" else f"the worker failed to answer: {said}")
