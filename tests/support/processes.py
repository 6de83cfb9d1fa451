"""Finds the processes of a test by the name of its directory, which their command line or environment contains."""

import contextlib
import os
import signal
from pathlib import Path


def mentioning(text: str) -> dict[int, str]:
    """The running processes whose command line or environment contains the text: process id to command line.

    With the temporary directory of a test as the text, these are all processes that the test started and their
    descendants, even if their parents have ended.
    """
    matching = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # the process has ended
            command = (entry / "cmdline").read_bytes()
            if text.encode() in command + b"\0" + (entry / "environ").read_bytes():
                matching[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return matching


def stop(pid: int) -> None:
    """Sends SIGSTOP and waits until every thread of the process has stopped."""
    os.kill(pid, signal.SIGSTOP)
    while any(_state(thread) not in "TXZ" for thread in Path(f"/proc/{pid}/task").iterdir()):
        os.sched_yield()


def _state(thread: Path) -> str:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # the thread has ended
        return "X"
