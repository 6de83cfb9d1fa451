"""Authenticating to NATS with nats-py: for the worker, the client and the local platform.

Options are made for each connection, because files may have been replaced since the last one.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import parser

from ems_worker import errors, nats_parser
from ems_worker.settings import files, running
from ems_worker.settings.ways import Access


class NotEncryptedError(nats.errors.Error):
    """The server doesn't ask for TLS, and we may not send anything to it without."""

    def __str__(self) -> str:
        return "the server offers no TLS, but TLS is required: nothing was sent to it"


_VIOLATION = "permissions violation"
_QUOTE = "'"
_LINE_BREAKS = {ord("\r"): " ", ord("\n"): " "}


class Client(NatsClient):
    """nats-py's client with four faults corrected, and a fast way for many messages.

    nats-py continues in plaintext if a server, or a middlebox in front of it, doesn't ask for TLS. After a message with
    a subject that isn't UTF-8, or with invalid headers (any client can publish one), it stops reading although it seems
    connected. So it does after the answer to a ping that it no longer waits for, and after a line that it can't read.
    And it reports the subject of a permissions violation in lower case.
    """

    def __init__(self, *, encrypted: bool) -> None:
        super().__init__()
        self._encrypted = encrypted
        self._receivers: dict[int, nats_parser.Receiver] = {}
        self._ps = nats_parser.Parser(self, self._receivers)

    async def subscribe_raw(self, subject: str, receiver: nats_parser.Receiver) -> Subscription:
        """A subscription whose messages go to a function as they were received, at once.

        nats-py makes an object of each message, puts it into a queue, and wakes a task for it.
        """
        subscription = await self.subscribe(subject, cb=_ignore)
        self._receivers[subscription._id] = receiver
        return subscription

    async def publish_raw(self, messages: Sequence[tuple[bytes, bytes, bytes, bytes]]) -> None:
        """Publishes messages as (subject, reply subject, headers, data), with one write for many of them.

        Subjects must be valid, and headers end with an empty line or be empty (`encoded_headers`). Raises what
        `publish` raises.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        commands: list[bytes] = []
        for subject, reply, headers, data in messages:
            if len(headers) + len(data) > self.max_payload:
                raise nats.errors.MaxPayloadError
            if headers:
                size = b"%d %d" % (len(headers), len(headers) + len(data))
                commands += (b"HPUB ", subject, b" ", reply, b" ", size, b"\r\n", headers, data, b"\r\n")
            else:
                commands += (b"PUB ", subject, b" ", reply, b" %d\r\n" % len(data), data, b"\r\n")
        command = b"".join(commands)
        if not self.is_connected and len(command) + self.pending_data_size > self._max_pending_size:
            raise nats.errors.OutboundBufferLimitError
        self.stats["out_msgs"] += len(messages)
        self.stats["out_bytes"] += len(command)
        await self._send_command(command)
        await self._flush_pending()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        receiver = self._receivers.get(sid)
        if receiver is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # None without any
        else:
            receiver(subject, reply, data, headers or b"")

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._receivers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    def _connect_command(self) -> bytes:
        # The CONNECT command has our credentials in it, and is the first thing that we send.
        server = self._current_server
        begun_with_tls = self.options["tls_handshake_first"] or (server is not None and server.uri.scheme == "wss")
        if self._encrypted and not begun_with_tls and not self._server_info.get("tls_required"):
            raise NotEncryptedError
        return super()._connect_command()

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def unreadable(self, error: Exception) -> None:
        """Closes the connection, because what the server sent can't be read."""
        reason = nats.errors.Error(f"the server sent what can't be read: {type(error).__name__}: {str(error)[:200]}")
        await self._error_cb(reason)
        await self._process_op_err(reason)

    async def _process_err(self, err_msg: str) -> None:
        if _VIOLATION not in err_msg:
            await super()._process_err(err_msg)
            return
        # The parser has put the message in lower case, which changes the subject in it: take the original.
        match = parser.ERR_RE.match(self._ps.buf)
        message = err_msg if match is None or not match[1] else match[1].decode("utf-8", "backslashreplace")
        await self._error_cb(nats.errors.Error(f"nats: {message.strip(_QUOTE)}"))

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        message: Msg = super()._build_message(sid, readable(subject).encode(), readable(reply).encode(), data, headers)
        return message

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (IndexError, ValueError):
            return None

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except BaseException:
            # nats-py would make its next attempt and leave this connection open.
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            raise


async def _ignore(_: Msg) -> None:
    """For subscriptions whose messages go to a receiver."""


def encoded_headers(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent; empty if there are none. Line breaks in values become spaces."""
    if not headers:
        return b""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
        lines = "".join([f"{name}: {value.translate(_LINE_BREAKS)}\r\n" for name, value in headers.items()])
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def headers(raw: bytes) -> dict[str, str]:
    """The headers of a message as it was received. Lines that aren't headers are left out."""
    found: dict[str, str] = {}
    for line in raw.split(b"\r\n")[1:]:
        name, separator, value = line.partition(b":")
        if separator:
            found[name.strip().decode("utf-8", "replace")] = value.strip().decode("utf-8", "replace")
    return found


def status(headers: bytes) -> tuple[str, str]:
    """The status of a message and its description, both empty if it has none: b"NATS/1.0 404 No Messages"."""
    line = headers.partition(b"\r\n")[0].decode("utf-8", "replace")
    _, _, rest = line.partition(" ")
    code, _, description = rest.strip().partition(" ")
    return code, description


def is_violation(error: Exception) -> bool:
    """Whether the error only denies a message or a subscription: the connection survives it."""
    return _VIOLATION in str(error).lower()


def readable(subject: bytes) -> str:
    """A subject as text, with escapes for bytes that aren't UTF-8."""
    return subject.decode("utf-8", "backslashreplace")


class _TlsEofFilter(logging.Filter):
    """Drops a warning that asyncio logs, to no purpose, at the end of every TLS connection of nats-py."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("returning true from eof_received()")


_TLS_EOF_FILTER = _TlsEofFilter()


def client(access: Access) -> Client:
    """A client that isn't connected yet; call its `connect` with `options(access)`."""
    if access.encrypted:
        logging.getLogger("asyncio").addFilter(_TLS_EOF_FILTER)  # idempotent: it is added once
    return Client(encrypted=access.encrypted)


def options(access: Access) -> dict[str, Any]:
    """The keyword arguments of nats-py's `connect`.

    Raises errors.SettingsError for settings that contradict each other, plaintext that isn't allowed, and files that
    can't be used.
    """
    access.check()
    given: dict[str, Any] = {"servers": list(access.servers)}
    if access.inbox_prefix is not None:
        given["inbox_prefix"] = access.inbox_prefix.rstrip(".")
    if access.platform is not None:
        # The next platform at this address has other credentials. If this one has ended, a stranger there gets none.
        given["user"] = _from_platform(access.platform, lambda platform: platform.user or "")
        given["password"] = _from_platform(access.platform, lambda platform: platform.password or "")
    elif access.user is not None:
        given |= {"user": access.user, "password": access.password}
    if access.token is not None:
        given["token"] = access.token
    if access.creds is not None:
        content = _secret(access.creds, "the NATS credentials")
        if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
            raise errors.SettingsError(
                f"{access.creds} is not a NATS credentials file (`nsc generate creds` makes one)"
            )
        given["user_credentials"] = str(access.creds)
    if access.nkey is not None:
        seed = _secret(access.nkey, "the nkey's seed").strip()
        if not seed.startswith(b"SU"):
            raise errors.SettingsError(f"{access.nkey} is not the seed of a user nkey (`nk -gen user` makes one)")
        given["nkeys_seed_str"] = seed.decode("ascii", "replace")
    if access.encrypted:
        given["tls"] = _context(access)
        given["tls_handshake_first"] = access.tls_first
    return given


def reason(known: Exception | None, error: Exception) -> Exception:
    """Which of two successive errors says why there is no connection.

    A server that refuses a client gives its reason and closes; nats-py may then report a reset, which explains nothing.
    """
    if isinstance(known, nats.errors.Error | ssl.SSLError) and isinstance(
        error, ConnectionResetError | BrokenPipeError
    ):
        return known
    return error


def _from_platform(path: Path, secret: Callable[[running.Platform], str]) -> Callable[[], str]:
    """A function that nats-py calls at each connection: the running platform's secret, empty if it has ended."""

    def current() -> str:
        with contextlib.suppress(errors.SettingsError):  # it would silently end nats-py's attempts
            if (platform := running.at(path)) is not None:
                return secret(platform)
        return ""

    return current


def _secret(path: Path, description: str) -> bytes:
    files.check_private(path, "is a secret")
    return files.read(path, description)


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
    except OSError as failed:
        raise errors.SettingsError(f"the CA certificates {access.ca} can't be used: {_message(failed)}") from failed
    if access.cert is not None and access.key is not None:
        files.check_private(access.key, "is a secret")
        try:
            # Without a password argument, OpenSSL would ask for the key's password on the terminal.
            context.load_cert_chain(access.cert, access.key, password="")
        except OSError as failed:
            raise errors.SettingsError(
                f"the certificate {access.cert} with its key {access.key} can't be used: {_message(failed)}"
            ) from failed
    return context


def _message(error: OSError) -> str:
    return error.strerror or str(error)
