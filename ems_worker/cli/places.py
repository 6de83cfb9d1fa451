"""Where `ems run` runs: on a platform that runs already, or on one of its own that ends with it.

Other commands may use the platform of an `ems run` meanwhile. Each holds a lock on a file in its directory, and the
platform stays until all have let it go.
"""

import asyncio
import contextlib
import fcntl
import os
import shlex
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ems_worker import settings
from ems_worker.cli import exits, shell
from ems_worker.local import ports
from ems_worker.settings import private, running

DIRECTORY: Final = "ems-data"
_USUAL: Final = (f"nats://127.0.0.1:{settings.DEFAULT_NATS_PORT}",)
_GUESTS: Final = "guests"
_PROBE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.2
_INSTALL_LOCAL: Final = "pip install 'ems-worker[local]'"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The platform to use, as the command line says."""

    data_dir: str | None
    slots: int | None
    server: str | None
    context: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """A platform. `data_dir` is its directory if it is one of this machine; `own`: it ends with this command.

    `flags` are what other commands need to find it, or `ems up` to start an own one again; `server` is what they need
    while an own one runs.
    """

    access: settings.Access | str
    data_dir: Path | None
    own: bool
    flags: str
    server: str = ""


@contextlib.asynccontextmanager
async def find(wanted: Wanted, *, is_command: bool) -> AsyncIterator[Place]:
    """The platform that runs already, or a new one until the end.

    `is_command`: a command line is to be carried out, which only a platform of this machine can do.
    """
    access = shell.access(wanted.server, wanted.context)
    found = _running(wanted, access)
    if found is not None:
        # One that is being started is announced before it is ready.
        async with ports.reserved():
            found = _running(wanted, access)
    if found is not None:
        with _guest(found):
            yield _place_of(found)
    elif wanted.data_dir is None and _is_elsewhere(access, is_command=is_command):
        yield Place(access, None, own=False, flags=_flags(wanted))
    else:
        async with _own(Path(wanted.data_dir or DIRECTORY), wanted.slots) as place:
            yield place


def _running(wanted: Wanted, access: settings.Access) -> running.Platform | None:
    """The platform in the directory that is asked for, or at the address, or in the usual directory."""
    if wanted.data_dir is not None:
        return running.of_directory(Path(wanted.data_dir), os.environ)
    at_address = (each for each in running.platforms(os.environ) if each.url in access.servers)
    usual = access.servers == _USUAL
    return next(at_address, None) or (running.of_directory(Path(DIRECTORY), os.environ) if usual else None)


def _is_elsewhere(access: settings.Access, *, is_command: bool) -> bool:
    """Whether the server is one that this machine's platforms have nothing to do with."""
    if access.servers != _USUAL:
        return True
    return not is_command and _answers(settings.DEFAULT_NATS_PORT)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), _PROBE_SECONDS):
            return True
    except OSError:
        return False


def _place_of(found: running.Platform) -> Place:
    data_dir = None if found.data_dir is None else Path(found.data_dir)
    return Place(found.url, data_dir, own=False, flags=_server(found.url))


def _server(url: str) -> str:
    return "" if url.endswith(f":{settings.DEFAULT_NATS_PORT}") else f" --server {url}"


@contextlib.asynccontextmanager
async def _own(data_dir: Path, slots: int | None) -> AsyncIterator[Place]:
    """A platform that ends with this command."""
    try:
        from ems_worker.local import platform, up
    except ModuleNotFoundError as missing:
        raise exits.Misused(f"the local platform is not installed ({missing.name}): {_INSTALL_LOCAL}") from missing
    async with contextlib.AsyncExitStack() as stack:
        async with ports.reserved():
            # Another command may have started it a moment ago.
            found = running.of_directory(data_dir, os.environ)
            if found is None:
                options = up.with_ports(platform.Options(data_dir, slots=slots))
                started = await stack.enter_async_context(platform.Platform(options, shell.say))
        if found is not None:
            with _guest(found):
                yield _place_of(found)
            return
        watching = asyncio.create_task(started.watch())
        try:
            flags = "" if str(data_dir) == DIRECTORY else f" --data-dir {shlex.quote(str(data_dir))}"
            whole = Path(started.addresses.data_dir)
            url = started.addresses.nats_url
            yield Place(url, whole, own=True, flags=flags, server=_server(url))
            await _guests_leave(whole)
        finally:
            watching.cancel()


def _flags(wanted: Wanted) -> str:
    given = {"--server": wanted.server, "--context": wanted.context}
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given.items() if value is not None)


@contextlib.contextmanager
def _guest(found: running.Platform) -> Iterator[None]:
    """Keeps a platform of another `ems run` from ending."""
    if found.data_dir is None:
        yield
        return
    descriptor = private.file(Path(found.data_dir) / _GUESTS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


async def _guests_leave(data_dir: Path) -> None:
    """Waits until no other command uses our platform."""
    descriptor = private.file(data_dir / _GUESTS)
    said = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not said:
                    shell.say("waiting for another `ems run`, which uses this platform; Ctrl-C stops the platform")
                said = True
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        os.close(descriptor)
