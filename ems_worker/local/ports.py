"""Chooses TCP ports that a server can keep across its restarts."""

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from ems_worker.local import process
from ems_worker.settings import private, running

LOOPBACK = "127.0.0.1"
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_EPHEMERAL_START = 32_768
_FIRST = 10_240
_MAX_TRIES = 200
_POLL_SECONDS = 0.05


def free_port() -> int:
    """A free loopback port below the ephemeral range.

    Binding to port 0 yields an ephemeral port. While its server is down, any outgoing connection can take such a port,
    even the client that is trying to reconnect. A port below that range stays free for the restart.
    """
    generator = random.SystemRandom()
    last = max(_ephemeral_start() - 1, _FIRST + 1_000)
    for _ in range(_MAX_TRIES):
        port = generator.randint(_FIRST, last)
        if is_free(port):
            return port
    raise process.PlatformFailed(f"found no free TCP port on {LOOPBACK} between {_FIRST} and {last}; choose one")


def prefer(port: int) -> int:
    """This port if it is free, otherwise another free port."""
    return port if is_free(port) else free_port()


def choose(port: int | None, part: str) -> int:
    """The port for a part of a platform: the given one, or any free port for None.

    Raises PlatformFailed if the given port is taken, since another program would then answer in place of the part.
    """
    if port is None:
        return free_port()
    if not is_free(port):
        raise process.PlatformFailed(f"port {port} is taken: {part} can't listen there; choose another")
    return port


@contextlib.asynccontextmanager
async def reserved() -> AsyncIterator[None]:
    """Lets one platform of this user at a time choose ports and start on them.

    Two platforms that start at the same time would both see the default ports free. The second would then fail, or
    mistake the parts of the first for its own. Raises errors.FileUnwritable if there is no directory for the lock.
    """
    # The directory is private, so that no other user can create the file first.
    descriptor = private.file(running.directory(os.environ) / "ports.lock")
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def is_free(port: int) -> bool:
    """Whether a server can listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as refused:
            if refused.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _ephemeral_start() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    return _DEFAULT_EPHEMERAL_START
