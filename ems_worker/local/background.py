"""`ems up -d` and `ems down`: a platform in the background."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ems_worker import errors
from ems_worker.local import platform, process
from ems_worker.local.orchestrator import store
from ems_worker.settings import private, running

_POLL_SECONDS = 0.05
# The parts get less than this together, see platform.py.
_STOP_SECONDS = 60.0
_LOG = "up.log"


def start(data_dir: Path, arguments: Sequence[str]) -> platform.Addresses:
    """Starts `ems up` with these arguments in the background; returns when everything is ready.

    Raises PlatformFailed if it doesn't become ready, with its last messages.
    """
    log = _log(data_dir)
    earlier = log.stat().st_size
    command = [sys.executable, "-P", "-m", "ems_worker.cli.ems", "up", "--json", *arguments]
    with log.open("ab") as messages:
        child = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            start_new_session=True,
        )
    try:
        assert child.stdout is not None
        with child.stdout:
            ready = child.stdout.readline()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if not ready:
        with log.open("rb") as said:
            said.seek(earlier)
            reason = said.read().decode(errors="replace").strip().removeprefix("error: ")
        raise process.PlatformFailed(reason or f"`ems up` ended with {child.wait()}")
    child.returncode = 0  # it outlives us, of which subprocess would warn
    return platform.Addresses(**json.loads(ready))


def stop(found: running.Platform) -> int:
    """Stops a platform and waits for its end; returns how many runs its next start continues.

    Raises PlatformFailed if it can't be stopped.
    """
    if found.pid is None:
        raise process.PlatformFailed(f"{found.url} was started by an older version: stop it where it was started")
    _terminate(found, time.monotonic() + _STOP_SECONDS)
    left = store.left(Path(found.data_dir or ".") / "orchestrator" / "orchestrator.db")
    return left.interrupted + left.queued


def _terminate(found: running.Platform, deadline: float) -> None:
    pid = found.pid
    assert pid is not None
    identity = process.identity(pid)
    try:
        # Its process holds the lock on its announcement, so that this id is its own.
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as denied:
        raise process.PlatformFailed(f"process {pid} is not one of this user") from denied
    while identity and process.identity(pid) == identity:
        if time.monotonic() > deadline:
            raise process.PlatformFailed(f"process {pid} has not ended; its logs are in {found.data_dir}/logs")
        time.sleep(_POLL_SECONDS)


def _log(data_dir: Path) -> Path:
    try:
        private.data_directory(data_dir, platform.OURS)
        log = private.directory(data_dir / "logs") / _LOG
        os.close(private.file(log))
    except OSError as failed:
        raise process.DirectoryUnusable(f"{data_dir} can't be written: {failed.strerror}") from failed
    except errors.FileUnwritable as failed:
        raise process.DirectoryUnusable(str(failed)) from failed
    return log
