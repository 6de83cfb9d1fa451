"""What nats-py needs to be let into NATS, made anew for every connection: files may have been replaced meanwhile."""

import contextlib
import logging
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.protocol import parser

from ems_worker import errors
from ems_worker.settings import files, running
from ems_worker.settings.ways import Access


class NotEncryptedError(nats.errors.Error):
    """The server didn't ask for TLS, and nothing may go to it without."""

    def __str__(self) -> str:
        return "the server offers no TLS, and TLS is asked for: nothing was sent to it"


# A control line's words are parted by spaces and tabs. nats-py's own patterns take vertical tabs and form feeds for
# space too, and a subject may have them: it would break off the connection, and again with each redelivery.
_WORD = rb"([^ \t\r\n]+)[ \t]+"
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+" + _WORD + _WORD + rb"(" + _WORD + rb")?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG[ \t]+" + _WORD + _WORD + rb"(" + _WORD + rb")?(\d+)[ \t]+(\d+)\r\n")


_VIOLATION = "permissions violation"
_QUOTE = "'"


class Client(NatsClient):
    """nats-py's client without three of its ways.

    It goes on in plaintext where a server (or whoever stands before it) doesn't ask for TLS. It reads no more, though
    it seems connected, after a message whose subjects are no UTF-8 or whose headers are none, as anybody can publish
    it. And it writes the subject of a permissions violation in lower case.
    """

    def __init__(self, *, encrypted: bool) -> None:
        super().__init__()
        self._encrypted = encrypted

    def _connect_command(self) -> bytes:
        # What it makes has our credentials in it, and is the first that is sent.
        server = self._current_server
        begun_with_tls = self.options["tls_handshake_first"] or (server is not None and server.uri.scheme == "wss")
        if self._encrypted and not begun_with_tls and not self._server_info.get("tls_required"):
            raise NotEncryptedError
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        if _VIOLATION not in err_msg:
            await super()._process_err(err_msg)
            return
        # The parser has put the server's words in lower case; a subject among them would be of no use.
        found = parser.ERR_RE.match(self._ps.buf)
        words = err_msg if found is None or not found[1] else found[1].decode("utf-8", "backslashreplace")
        await self._error_cb(nats.errors.Error(f"nats: {words.strip(_QUOTE)}"))

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        message: Msg = super()._build_message(sid, _readable(subject), _readable(reply), data, headers)
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
            # nats-py would go on to its next attempt and leave this connection open.
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            raise


def is_violation(error: Exception) -> bool:
    """Whether an error says only that a message or subscription wasn't allowed: the connection lives on."""
    return _VIOLATION in str(error).lower()


def _readable(subject: bytes) -> bytes:
    """As UTF-8, with escapes for what isn't."""
    return subject.decode("utf-8", "backslashreplace").encode()


class _NoEndOfTls(logging.Filter):
    """asyncio's remark at the end of every TLS connection of nats-py, which means nothing to anybody."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("returning true from eof_received()")


_NO_END_OF_TLS = _NoEndOfTls()


def client(access: Access) -> Client:
    """A client that isn't connected yet; `connect` it with `options(access)`."""
    if access.encrypted:
        logging.getLogger("asyncio").addFilter(_NO_END_OF_TLS)  # as often as one likes: it is there once
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
        # The next one at this address has others; and where it has ended, whoever answers there gets none.
        given["user"] = _of_platform(access.platform, lambda found: found.user or "")
        given["password"] = _of_platform(access.platform, lambda found: found.password or "")
    elif access.user is not None:
        given |= {"user": access.user, "password": access.password}
    if access.token is not None:
        given["token"] = access.token
    if access.creds is not None:
        content = _secret(access.creds, "the NATS credentials")
        if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
            raise errors.SettingsError(f"{access.creds} is no file of NATS credentials (nsc generate creds makes one)")
        given["user_credentials"] = str(access.creds)
    if access.nkey is not None:
        seed = _secret(access.nkey, "the nkey's seed").strip()
        if not seed.startswith(b"SU"):
            raise errors.SettingsError(f"{access.nkey} is no seed of a user's nkey (nk -gen user makes one)")
        given["nkeys_seed_str"] = seed.decode("ascii", "replace")
    if access.encrypted:
        given["tls"] = _context(access)
        given["tls_handshake_first"] = access.tls_first
    return given


def reason(known: Exception | None, error: Exception) -> Exception:
    """Which of two errors of a connection, one after the other, says why there is none.

    A server that lets nobody in says why and closes; the reset that nats-py may report next says nothing.
    """
    if isinstance(known, nats.errors.Error | ssl.SSLError) and isinstance(
        error, ConnectionResetError | BrokenPipeError
    ):
        return known
    return error


def _of_platform(path: Path, secret: Callable[[running.Platform], str]) -> Callable[[], str]:
    """What a platform that runs says now; empty where it has ended. nats-py asks for it at each connection."""

    def now() -> str:
        with contextlib.suppress(errors.SettingsError):  # it would end nats-py's attempts without a word
            if (found := running.at(path)) is not None:
                return secret(found)
        return ""

    return now


def _secret(path: Path, what: str) -> bytes:
    files.check_private(path, "is a secret")
    return files.read(path, what)


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
    except OSError as failed:
        raise errors.SettingsError(f"the CA certificates {access.ca} can't be used: {_words(failed)}") from failed
    if access.cert is not None and access.key is not None:
        files.check_private(access.key, "is a secret")
        try:
            # The empty password: else a key with one would be asked for on the terminal.
            context.load_cert_chain(access.cert, access.key, password="")
        except OSError as failed:
            raise errors.SettingsError(
                f"the certificate {access.cert} with its key {access.key} can't be used: {_words(failed)}"
            ) from failed
    return context


def _words(error: OSError) -> str:
    return error.strerror or str(error)
