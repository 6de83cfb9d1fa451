"""Ends the platform's processes when the platform itself goes away, even by kill -9.

`python -m ems_worker.local.guardian RUNS` reads process ids from standard input, a line each. When its input ends,
because the platform closed it or died, whatever of these processes is still there is ended, the latest first: the
worker before the orchestrator, so that it can record, the broker last, so that they can publish. Then simulations that
nobody watches. After an orderly stop nothing is left to do.
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
_LAST_SECONDS = 2 * _GRACE_SECONDS


class Guardian:
    """The guardian's process, as the platform holds it. Use it inside `with`."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Guardian":
        command = [sys.executable, "-P", "-m", "ems_worker.local.guardian", str(self._runs)]
        # A session of its own: what ends the platform's process group must not end this.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(_LAST_SECONDS)

    def watch(self, pid: int) -> None:
        """This process is to end with the platform. Raises PlatformFailed where the guardian is gone."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(f"{pid}\n".encode())
                self._process.stdin.flush()
            except BrokenPipeError as gone:
                raise process.PlatformFailed("the process that guards the platform's processes has ended") from gone


def main() -> int:
    """Reads process ids until the platform is gone, then ends what is left."""
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
    asked = False
    while identity and process.identity(pid) == identity:
        if not asked:
            os.killpg(pid, signal.SIGTERM)
            asked = True
        elif time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
