"""Child processes of the local platform: each is started, watched, and ended together with its own children."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ems_worker import errors
from ems_worker.settings import private

_POLL_SECONDS = 0.02
_TAIL_BYTES = 4096
# Files that a child creates are readable only by its user.
_UMASK = 0o077
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PlatformFailed(errors.EmsError):
    """A part of the local platform can't be started or kept running; the text names the part, the cause and the log."""


class DirectoryUnusable(PlatformFailed, errors.FileUnwritable):
    """The directory of the platform can't be created or written."""


def identity(pid: int) -> str:
    """Distinguishes this process from a later one with the same id; empty if the process is gone or a zombie.

    The identity is the start time of the process: on Linux from /proc, counted from the boot and therefore together
    with the id of that boot; elsewhere from ps.
    """
    if _BOOT_ID.exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if state in "ZX" else f"{fields[18]} {_BOOT_ID.read_text().strip()}"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    listed = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=False)  # noqa: S603 - a number
    return listed.stdout.decode().strip()


@contextlib.contextmanager
def lock(path: Path, holder: str) -> Iterator[None]:
    """Reserves a directory for one `holder`, such as "orchestrator", by a lock on a file in it.

    Raises PlatformFailed if another process has the lock, DirectoryUnusable if the directory can't be written.
    """
    try:
        descriptor = private.file(path)
    except OSError as failed:
        raise DirectoryUnusable(f"{path.parent} can't be written: {failed.strerror}") from failed
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as locked:
            raise PlatformFailed(f"another {holder} uses {path.parent}: give each its own directory") from locked
        yield
    finally:
        os.close(descriptor)


class Child:
    """A process in its own session, with its output appended to a log file. Its files are private to its user.

    The session keeps Ctrl-C in the terminal from reaching it, so that its owner decides in which order processes stop.
    A Child isn't bound to an event loop: one loop may start it and another end it. It can be started again after it
    has ended.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = dict(env) if env is not None else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the last start; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    @property
    def exit_code(self) -> int | None:
        """The exit code; negative if a signal ended the process, None while it runs and before the first start."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is running now."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process. Raises PlatformFailed if it can't be executed."""
        if self.running:
            return
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(private.file(self.log, os.O_WRONLY | os.O_APPEND), "ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the command is ours, or the user's own choice
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,
                    umask=_UMASK,
                )
        except OSError as failed:
            raise PlatformFailed(f"{self.name} can't be started: {failed}") from failed

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process and its children. Does nothing if the process has ended."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def wait(self, timeout: float) -> int | None:
        """Waits for the end of the process; its exit code, or None if it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return self.exit_code

    async def stop(self, grace: float) -> None:
        """Sends SIGTERM, and SIGKILL after `grace` seconds. Does nothing if the process isn't running."""
        self.signal(signal.SIGTERM)
        if await self.wait(grace) is None:
            await self.kill()

    async def kill(self) -> None:
        """Sends SIGKILL and waits for the end of the process."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self.wait(timeout=10)

    def last_words(self) -> str:
        """The last lines of its log, for an error message; empty if there is no log."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-10:])
        return ""
