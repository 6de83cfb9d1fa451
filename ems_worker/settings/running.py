"""Announces a running platform of `ems up` to the other programs of its user, and finds it for them.

Each platform has a file, named by the port of its NATS server, in a directory that only its user can enter. It holds
the address and the credentials, as a context of the `nats` command. The platform keeps a lock on the file while it
runs. A file without a lock was left by a platform that was killed; it is ignored, so that its credentials are never
sent to another server that now listens on that port.
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
from ems_worker.settings.defaults import DEFAULT_NATS_PORT
from ems_worker.settings.ways import Access

_NAME = "ems-worker"
# Addresses at which a platform is looked up. Connections always use 127.0.0.1: on ::1, `localhost` may be another
# server.
_HOSTS = ("127.0.0.1", "localhost")


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """A running platform: address and credentials of its NATS server, and its orchestrator.

    `data_dir`, `http`, `simulator` and `started_in` say where its files are, where its worker reports its health, what
    it runs, and in which directory.

    The credentials are user and password. With `ems up --secured` they are the files of an nkey and a CA, and the
    prefix of the user's inboxes. `data_dir` is its directory, and `pid` the process that keeps it running.
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
    data_dir: str | None = None
    pid: int | None = None
    http: str | None = None
    simulator: str | None = None
    started_in: str | None = None

    def context(self) -> bytes:
        """The platform as a context of the `nats` command, which ignores unknown keys."""
        content = {"description": "ems up", **dataclasses.asdict(self)}
        del content["path"]
        content = {name: value for name, value in content.items() if value is not None}
        return json.dumps(content, indent=2).encode() + b"\n"


_FIELDS = frozenset(field.name for field in dataclasses.fields(Platform)) - {"path"}


def directory(environ: Mapping[str, str]) -> Path:
    """The directory that announces the platforms of this user; created if missing.

    Raises errors.FileUnwritable if no directory can be created that only this user can enter.
    """
    preferred, *others = _locations(environ)
    try:
        return private.directory(preferred)
    except errors.FileUnwritable:
        for location in others:
            with contextlib.suppress(errors.FileUnwritable):
                return private.directory(location)
        raise


@contextlib.contextmanager
def announced(platform: Platform) -> Iterator[None]:
    """Announces the platform for the duration of the `with` block. Raises errors.FileUnwritable."""
    descriptor = private.write(platform.path, platform.context(), prepare=_lock)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            # Otherwise the file is that of the next platform.
            if os.path.samestat(os.fstat(descriptor), platform.path.stat()):
                platform.path.unlink()
        os.close(descriptor)


def path_for(port: int, environ: Mapping[str, str]) -> Path:
    """The file for a platform whose NATS server has this port. Raises errors.FileUnwritable."""
    return directory(environ) / f"{port}.json"


def find(access: Access, environ: Mapping[str, str]) -> Platform | None:
    """The platform that runs at this address; None if there is none, or if the access has credentials of its own.

    Raises errors.SettingsError for a file that another user could have written or read.
    """
    own = (access.user, access.token, access.creds, access.nkey, access.ca, access.cert, access.key, access.tls_first)
    if os.name != "posix" or len(access.servers) != 1 or any(own):
        return None
    server = access.servers[0]
    parts = urllib.parse.urlsplit(server if "://" in server else f"nats://{server}")
    if parts.scheme not in ("nats", "tls") or parts.hostname not in _HOSTS or "@" in parts.netloc:
        return None
    for location in _locations(environ):
        platform = at(location / f"{parts.port or DEFAULT_NATS_PORT}.json")
        if platform is not None and (parts.scheme == "nats" or platform.url.startswith("tls://")):
            return platform
    return None


def platforms(environ: Mapping[str, str]) -> Iterator[Platform]:
    """All running platforms of this user. Files that `find` would refuse are none of them."""
    for location in _locations(environ):
        for path in sorted(location.glob("*.json")):
            with contextlib.suppress(errors.SettingsError):
                if (platform := at(path)) is not None:
                    yield platform


def of_directory(data_dir: Path, environ: Mapping[str, str]) -> Platform | None:
    """The platform that runs in this directory; None if there is none."""
    wanted = str(data_dir.resolve())
    return next((platform for platform in platforms(environ) if platform.data_dir == wanted), None)


def at(path: Path) -> Platform | None:
    """The running platform that this file announces; None if there is none. Raises errors.SettingsError like `find`."""
    if not private.is_own_directory(path.parent):
        return None
    try:
        descriptor, content = private.read(path)
    except FileNotFoundError:
        return None
    try:
        if _lock(descriptor, shared=True):
            return None  # not locked: its platform was killed
        fields = json.loads(content)
        del fields["description"]
        if "nkey" in fields:
            fields |= {"user": None, "password": None}
        # Another version may have written more.
        return Platform(path, **{name: value for name, value in fields.items() if name in _FIELDS})
    except (ValueError, KeyError, TypeError) as failed:
        raise errors.SettingsError(f"{path} was not written by a platform: remove it") from failed
    finally:
        os.close(descriptor)


def joined(access: Access, environ: Mapping[str, str]) -> Access:
    """The access, completed by address and credentials of the platform at its address if `find` finds one."""
    platform = find(access, environ)
    if platform is None:
        return access
    if platform.nkey is not None:
        # These need not be reread when a new platform starts at this address: the nkey is never sent to a server, and
        # only our server has a certificate of this CA.
        return dataclasses.replace(
            access,
            servers=(platform.url,),
            nkey=Path(platform.nkey),
            ca=Path(platform.ca) if platform.ca is not None else None,
            inbox_prefix=platform.inbox_prefix,
        )
    return dataclasses.replace(
        access, servers=(platform.url,), user=platform.user, password=platform.password, platform=platform.path
    )


def _locations(environ: Mapping[str, str]) -> Iterator[Path]:
    """The directories that may announce platforms, in order of preference; other users can write to the last."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # After su or sudo it may belong to another user.
    with contextlib.suppress(OSError):
        if runtime.startswith("/") and Path(runtime).stat().st_uid == os.geteuid():
            yield Path(runtime, _NAME)
    state = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    if state.startswith("/"):
        # One directory per host: machines may share home directories.
        yield Path(state, _NAME, socket.gethostname())
    yield Path(tempfile.gettempdir(), f"{_NAME}-{os.geteuid()}")


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Tries to lock the file; whether that succeeded."""
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
