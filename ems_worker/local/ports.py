"""TCP ports that a server can keep across its restarts."""

import contextlib
import errno
import random
import socket
from pathlib import Path

from ems_worker.local import process

LOOPBACK = "127.0.0.1"
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL_START = 32_768
_FIRST = 10_240
_TRIES = 200


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
