"""Which processes of a test are there: what it started, directly or not, knows its directory by name."""

import contextlib
import os
import signal
from pathlib import Path


def mentioning(text: str) -> dict[int, str]:
    """Living processes whose command line or environment has this text: process id to command line.

    With a test's own temporary directory as text these are all that it started and their descendants, whatever their
    parent is by now.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # ended while we looked
            command = (entry / "cmdline").read_bytes()
            if text.encode() in command + b"\0" + (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def stop(pid: int) -> None:
    """SIGSTOP; returns once each of the process's threads has stopped, which takes a moment."""
    os.kill(pid, signal.SIGSTOP)
    while any(_state(thread) not in "TXZ" for thread in Path(f"/proc/{pid}/task").iterdir()):
        os.sched_yield()


def _state(thread: Path) -> str:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return "X"
