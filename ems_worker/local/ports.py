"""TCP ports that a server can keep across its restarts."""

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
_USUAL_EPHEMERAL_START = 32_768
_FIRST = 10_240
_TRIES = 200
_POLL_SECONDS = 0.05


def free_port() -> int:
    """A loopback port that nobody listens on, below the ephemeral range.

    An ephemeral port (what binding to port 0 gives) can be taken by any outgoing connection while its server is down;
    on loopback even by the very client that reconnects to it. A port below that range stays free for the restart.
    """
    choose = random.SystemRandom()
    last = max(_ephemeral_start() - 1, _FIRST + 1_000)
    for _ in range(_TRIES):
        port = choose.randint(_FIRST, last)
        if is_free(port):
            return port
    raise process.PlatformFailed(f"no free TCP port on {LOOPBACK} between {_FIRST} and {last}; name one yourself")


def prefer(port: int) -> int:
    """This port where nobody listens on it, else another one."""
    return port if is_free(port) else free_port()


def chosen(port: int | None, part: str) -> int:
    """The port that this part of a platform is to have, any free one for None.

    Raises PlatformFailed where somebody listens there: what answers on it later would not be our part.
    """
    if port is None:
        return free_port()
    if not is_free(port):
        raise process.PlatformFailed(f"port {port} is taken: {part} can't listen there; choose another")
    return port


@contextlib.asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Lets one platform of this user at a time look for ports and start on them.

    Two that start at once would both find the usual ports free, and the second would fail, or take the first one's
    parts for its own. Raises errors.FileUnwritable where this user has no directory for the lock.
    """
    # In a directory that only we can enter: in one that all may write to, others could make it first.
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
    """Whether a server could listen on this loopback port now."""
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
    return _USUAL_EPHEMERAL_START
