"""Ends the processes of a platform when the platform itself is gone, even if it was killed by SIGKILL.

`python -m ems_worker.local.guardian RUNS` reads process ids from standard input, one per line. The input ends when the
platform closes it or dies. The guardian then ends those processes that still run, in reverse order: the worker before
the orchestrator, so that it can record results, and the broker last, so that both can publish. Finally it kills
simulations without an orchestrator. After an orderly stop there is nothing left to end.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ems_worker.local import process
from ems_worker.local.orchestrator import simulation

_GRACE_SECONDS = 15.0
_POLL_SECONDS = 0.05
_EXIT_SECONDS = 2 * _GRACE_SECONDS


class Guardian:
    """Starts the guardian's process and talks to it, on the side of the platform. Use it in a `with` statement."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Guardian":
        command = [sys.executable, "-P", "-m", "ems_worker.local.guardian", str(self._runs)]
        # In its own session, the guardian survives a signal to the process group of the platform.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(_EXIT_SECONDS)

    def watch(self, pid: int) -> None:
        """Has this process end with the platform. Raises PlatformFailed if the guardian is gone."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(f"{pid}\n".encode())
                self._process.stdin.flush()
            except BrokenPipeError as gone:
                raise process.PlatformFailed("the guardian of the platform's processes has ended") from gone


def main() -> int:
    """Reads process ids until the platform is gone, then ends the processes that still run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guarded = []
    for line in sys.stdin:
        pid = int(line)
        guarded.append((pid, process.identity(pid)))
    for pid, identity in reversed(guarded):
        _end(pid, identity)
    simulation.end_strays(Path(sys.argv[1]))
    return 0


def _end(pid: int, identity: str) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    terminated = False
    while identity and process.identity(pid) == identity:
        if not terminated:
            os.killpg(pid, signal.SIGTERM)
            terminated = True
        elif time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
