"""One worker per manifest: an exclusive file lock beside the database, which the system drops when its holder ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ems_worker import errors
from ems_worker.settings import private


@contextlib.contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Holds `{database}.lock` for the block.

    Raises errors.ManifestUnusable, naming the holder, if another process has it, and errors.FileUnwritable if the file
    can't be created. The file stays when the lock is released: removing it would let two processes lock two files of
    the same name.
    """
    path = Path(f"{database}.lock")
    try:
        handle = private.file(path)
    except OSError as error:
        raise errors.FileUnwritable(f"{path} can't be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise errors.ManifestUnusable(
                f"{database} is in use by another worker (process {holder}): stop it, or use another data directory"
            ) from error
        except OSError as error:
            raise errors.ManifestUnusable(
                f"{path} can't be locked: {error.strerror}; the manifest needs a local file system"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
