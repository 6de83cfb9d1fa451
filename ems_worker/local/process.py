"""One child process of the local platform: started, watched, ended with everything that it started itself."""

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
# What it writes is its user's only.
_UMASK = 0o077
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PlatformFailed(errors.EmsError):
    """A part of the local platform can't be started or kept running; the text says which, why, and where its log is."""


class DirectoryUnusable(PlatformFailed, errors.FileUnwritable):
    """The platform's directory can't be made or written."""


def identity(pid: int) -> str:
    """What tells this process from a later one with its number; empty where it is gone, or a zombie.

    When it started: in /proc counted from the boot, whose id belongs to it; elsewhere what ps says.
    """
    if _BOOT_ID.exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if state in "ZX" else f"{fields[18]} {_BOOT_ID.read_text().strip()}"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=False)  # noqa: S603 - a number
    return shown.stdout.decode().strip()


@contextlib.contextmanager
def lock(path: Path, holder: str) -> Iterator[None]:
    """Holds a directory for one `holder` by a lock on a file in it.

    Raises PlatformFailed where another has it, DirectoryUnusable where nothing can be written there.
    """
    try:
        descriptor = private.file(path)
    except OSError as failed:
        raise DirectoryUnusable(f"{path.parent} can't be written: {failed.strerror}") from failed
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise PlatformFailed(f"another {holder} uses {path.parent}: give each its own") from held
        yield
    finally:
        os.close(descriptor)


class Child:
    """A process in a session of its own, its output appended to a log file; what it writes only its user may read.

    A session of its own keeps Ctrl-C in the terminal from reaching it: its owner decides the order in which things
    stop. It isn't bound to an event loop, so one loop may start it and another end it. A Child can be started again
    after it ended.
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
        """None while it runs or was never started; negative: the signal that ended it."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is there now."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process. Raises PlatformFailed where it can't be executed."""
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
        """Sends a signal to the process and all that it started; nothing happens where they have ended."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def wait(self, timeout: float) -> int | None:
        """The exit code, or None where it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return self.exit_code

    async def stop(self, grace: float) -> None:
        """Asks it to end, and ends it after `grace` seconds. Harmless twice, or before a start."""
        self.signal(signal.SIGTERM)
        if await self.wait(grace) is None:
            await self.kill()

    async def kill(self) -> None:
        """Ends it now, without asking."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self.wait(timeout=10)

    def last_words(self) -> str:
        """The end of its log, for an error message; empty where there is none."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-10:])
        return ""
