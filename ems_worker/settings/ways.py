"""How to connect to NATS and to the orchestrator: addresses, credentials and TLS."""

import dataclasses
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from ems_worker import errors
from ems_worker.settings import masking, targets

_ENCRYPTED = ("tls", "wss")


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How to connect to NATS.

    At most one kind of credentials is set: user and password (or in the address), a token, a creds file, or an nkey
    file. `cert` and `key` are the client certificate; `ca` replaces the system's CA certificates. Any of these three,
    or one address with `tls://`, requires TLS of every server. `plaintext` permits servers on other machines without
    TLS.
    `platform` is the file of the `ems up` platform that user and password come from; each new connection rereads it.
    """

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    token: str | None = dataclasses.field(default=None, repr=False)
    creds: Path | None = None
    nkey: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    tls_first: bool = False
    inbox_prefix: str | None = None
    plaintext: bool = False
    platform: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether every server must use TLS."""
        files = (self.cert, self.key, self.ca)
        return self.tls_first or any(files) or any(_scheme(server) in _ENCRYPTED for server in self.servers)

    @property
    def where(self) -> str:
        """The servers as messages name them: credentials masked, `nats://` left out."""
        return masking.urls(server.removeprefix("nats://") for server in self.servers)

    def check(self) -> None:
        """Raises errors.SettingsError for contradicting credentials, and for plaintext that is not permitted."""
        credentials = {
            "a user": self.user is not None,
            "a token": self.token is not None,
            "a creds file": self.creds is not None,
            "an nkey": self.nkey is not None,
        }
        given = [name for name, is_set in credentials.items() if is_set]
        if len(given) > 1:
            raise errors.SettingsError(f"NATS: {' and '.join(given)} are given; give only one of them")
        if (self.user is None) != (self.password is None):
            raise errors.SettingsError(
                "NATS: a user needs a password, and a password a user (nats_user, nats_password)"
            )
        if (self.cert is None) != (self.key is None):
            raise errors.SettingsError(
                "NATS: a certificate needs its key, and a key its certificate (nats_cert, nats_key)"
            )
        if self.encrypted or self.plaintext:
            return
        exposed = tuple(server for server in self.servers if not is_local(server))
        if exposed:
            raise errors.SettingsError(
                f"NATS at {dataclasses.replace(self, servers=exposed).where} would be reached without encryption. "
                "Use tls://HOST:PORT (with EMS_NATS_CA for a CA of your own), or allow it: EMS_NATS_PLAINTEXT=true"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """How to connect to the orchestrator.

    Any of `ca`, `cert` and `key` implies TLS. `token` is a file with the bearer token that is sent with every call.
    """

    target: str
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    plaintext: bool = False
    token: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.tls or any((self.ca, self.cert, self.key))

    def check(self) -> None:
        """Raises errors.SettingsError for half a certificate, and for plaintext that is not permitted."""
        if (self.cert is None) != (self.key is None):
            raise errors.SettingsError(
                "orchestrator: a certificate needs its key, and a key its certificate "
                "(orchestrator_cert, orchestrator_key)"
            )
        if not (self.encrypted or self.plaintext or targets.is_local(self.target)):
            raise errors.SettingsError(
                f"the orchestrator at {self.target} would be reached without encryption. Use TLS "
                "(EMS_ORCHESTRATOR_TLS=true, with EMS_ORCHESTRATOR_CA for a CA of your own), or allow it: "
                "EMS_ORCHESTRATOR_PLAINTEXT=true"
            )


def of(servers: "str | Sequence[str] | Access") -> Access:
    """An Access, made from addresses where only those are given."""
    if isinstance(servers, Access):
        return servers
    return Access((servers,) if isinstance(servers, str) else tuple(servers))


def is_local(server: str) -> bool:
    """Whether a NATS URL or `host:port` is on this machine. Decided from the text alone: names are not looked up."""
    rest = server.partition("://")[2] if "://" in server else server
    return targets.is_loopback(urllib.parse.urlsplit(f"//{rest}").hostname or "")


def _scheme(server: str) -> str:
    return server.partition("://")[0] if "://" in server else "nats"
