"""Directories in which platforms are announced, each test's own."""

import os
import tempfile
from pathlib import Path

_LOCK = Path(tempfile.gettempdir(), f"ems-tests-{os.getuid()}.lock")


def directory() -> str:
    """A new directory for XDG_RUNTIME_DIR.

    All of them share the lock under which a platform chooses its ports: those of tests that run at the same time would
    take them from each other.
    """
    runtime = tempfile.mkdtemp(prefix="ems")  # short, since sockets may be in it
    ours = Path(runtime, "ems-worker")
    ours.mkdir(mode=0o700)
    _LOCK.touch(mode=0o600)
    os.link(_LOCK, ours / "ports.lock")
    return runtime
