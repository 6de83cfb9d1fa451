"""The ways to NATS and to the orchestrator: addresses, who we are, and what protects them."""

import dataclasses
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from ems_worker import errors
from ems_worker.settings import targets

_ENCRYPTED = ("tls", "wss")


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """One way of proving who we are at most: user and password (or in the address), token, creds file, or nkey file.

    `cert` and `key` are our own certificate, `ca` whom we trust instead of the system's. Any of them, or one address
    with `tls://`, demands TLS of all servers. `plaintext` allows to do without though the server isn't on this machine.
    `platform` is the file of the platform of `ems up` that user and password are from: each connection reads it anew.
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
        """Whether TLS is demanded of every server."""
        files = (self.cert, self.key, self.ca)
        return self.tls_first or any(files) or any(_scheme(server) in _ENCRYPTED for server in self.servers)

    @property
    def where(self) -> str:
        """The servers for messages, without what may be secret in their addresses."""
        return ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in self.servers)

    def check(self) -> None:
        """Raises errors.SettingsError for what contradicts itself, and for plaintext that nobody allowed."""
        ways = {
            "a user": self.user is not None,
            "a token": self.token is not None,
            "a creds file": self.creds is not None,
            "an nkey": self.nkey is not None,
        }
        given = [name for name, there in ways.items() if there]
        if len(given) > 1:
            raise errors.SettingsError(f"NATS: {' and '.join(given)} are given; one of them is who we are")
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
        open_ = [server for server in self.servers if not is_local(server) and _scheme(server) not in _ENCRYPTED]
        if open_:
            raise errors.SettingsError(
                f"NATS at {dataclasses.replace(self, servers=tuple(open_)).where} would be reached without encryption. "
                "Use tls://HOST:PORT (with EMS_NATS_CA for a CA of your own), or allow it: EMS_NATS_PLAINTEXT=true"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """How to reach the orchestrator: its gRPC target, and what protects the way.

    Any of `ca`, `cert` and `key` asks for TLS. `token` is the file of a bearer token that every call carries.
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
        """Whether it is reached by TLS."""
        return self.tls or any((self.ca, self.cert, self.key))

    def check(self) -> None:
        """Raises errors.SettingsError for what contradicts itself, and for plaintext that nobody allowed."""
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
    """Addresses alone as an Access."""
    if isinstance(servers, Access):
        return servers
    return Access((servers,) if isinstance(servers, str) else tuple(servers))


def is_local(server: str) -> bool:
    """Whether a NATS URL, or `host:port`, is on this machine, by its words alone: names aren't looked up."""
    rest = server.partition("://")[2] if "://" in server else server
    return targets.is_loopback(urllib.parse.urlsplit(f"//{rest}").hostname or "")


def _scheme(server: str) -> str:
    return server.partition("://")[0] if "://" in server else "nats"
