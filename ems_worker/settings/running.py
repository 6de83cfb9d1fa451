"""Platforms of `ems up` on this machine, as the other programs of the same user find them.

Each has a file in a directory that only its user can enter, named by the port of its NATS server: address and
credentials, as a context of the `nats` command. The platform holds a lock on it while it runs, so that the file that a
killed one left behind is told from that of a running one: credentials go to no server that came after it.
"""

import contextlib
import dataclasses
import json
import os
import socket
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from ems_worker import errors
from ems_worker.settings import private
from ems_worker.settings.ways import Access

_NAME = "ems-worker"
# The names under which a platform's NATS server is reached; `localhost` may be another server on ::1, so a platform is
# always addressed by its number.
_HOSTS = ("127.0.0.1", "localhost")


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """A platform that runs: the way into its NATS, and its orchestrator.

    User and password, or (`ems up --secured`) files of an nkey and a CA, and the prefix of this user's inboxes.
    """

    path: Path
    url: str
    user: str | None
    password: str | None = dataclasses.field(repr=False)
    orchestrator: str
    orchestrator_token: str | None = None
    nkey: str | None = None
    ca: str | None = None
    inbox_prefix: str | None = None

    def context(self) -> bytes:
        """As a context of the `nats` command, which ignores what it doesn't know."""
        content = {"description": "ems up", **dataclasses.asdict(self)}
        del content["path"]
        content = {name: value for name, value in content.items() if value is not None}
        return json.dumps(content, indent=2).encode() + b"\n"


def directory(environ: Mapping[str, str]) -> Path:
    """Where this user's platforms are announced; made where missing.

    Raises errors.FileUnwritable where there is no place that only this user can enter.
    """
    first, *others = _places(environ)
    try:
        return private.directory(first)
    except errors.FileUnwritable:
        for place in others:
            with contextlib.suppress(errors.FileUnwritable):
                return private.directory(place)
        raise


@contextlib.contextmanager
def announced(platform: Platform) -> Iterator[None]:
    """The platform can be found for the time of the `with`. Raises errors.FileUnwritable."""
    descriptor = private.write(platform.path, platform.context(), prepare=_lock)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), platform.path.stat()):  # else the next platform is there
                platform.path.unlink()
        os.close(descriptor)


def path_for(port: int, environ: Mapping[str, str]) -> Path:
    """The file of the platform whose NATS server has this port. Raises errors.FileUnwritable."""
    return directory(environ) / f"{port}.json"


def find(access: Access, environ: Mapping[str, str]) -> Platform | None:
    """The platform that runs at this address, where the access has no credentials of its own.

    Raises errors.SettingsError for a file that others than this user could have written or read.
    """
    own = (access.user, access.token, access.creds, access.nkey, access.ca, access.cert, access.key, access.tls_first)
    if os.name != "posix" or len(access.servers) != 1 or any(own):
        return None
    server = access.servers[0]
    parts = urllib.parse.urlsplit(server if "://" in server else f"nats://{server}")
    if parts.scheme not in ("nats", "tls") or parts.hostname not in _HOSTS or "@" in parts.netloc:
        return None
    for place in _places(environ):
        found = at(place / f"{parts.port or 4222}.json")
        if found is not None and (parts.scheme == "nats" or found.url.startswith("tls://")):
            return found
    return None


def at(path: Path) -> Platform | None:
    """The platform that holds this file; None where there is none. Raises errors.SettingsError as `find` does."""
    if not private.own(path.parent):
        return None
    try:
        descriptor, content = private.read(path)
    except FileNotFoundError:
        return None
    try:
        if _lock(descriptor, shared=True):
            return None  # nobody holds it: its platform was killed
        found = json.loads(content)
        del found["description"]
        if "nkey" in found:
            found |= {"user": None, "password": None}
        return Platform(path, **found)
    except (ValueError, KeyError, TypeError) as failed:
        raise errors.SettingsError(f"{path} is not what a platform writes there: remove it") from failed
    finally:
        os.close(descriptor)


def joined(access: Access, environ: Mapping[str, str]) -> Access:
    """The access with the address and credentials of the platform that it leads to, if it does and has none itself."""
    found = find(access, environ)
    if found is None:
        return access
    if found.nkey is not None:
        # Neither needs to be read anew for the next platform here: no server learns the nkey, and none but ours has a
        # certificate of this CA.
        return dataclasses.replace(
            access,
            servers=(found.url,),
            nkey=Path(found.nkey),
            ca=Path(found.ca) if found.ca is not None else None,
            inbox_prefix=found.inbox_prefix,
        )
    return dataclasses.replace(
        access, servers=(found.url,), user=found.user, password=found.password, platform=found.path
    )


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where platforms may be announced, in the order of preference; the last is a place that others can write to."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # After su or sudo it may be somebody else's.
    with contextlib.suppress(OSError):
        if runtime.startswith("/") and Path(runtime).stat().st_uid == os.geteuid():
            yield Path(runtime, _NAME)
    state = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    if state.startswith("/"):
        # By host: home directories are shared between machines.
        yield Path(state, _NAME, socket.gethostname())
    yield Path(tempfile.gettempdir(), f"{_NAME}-{os.geteuid()}")


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether we have the lock now."""
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
