"""Opens files that a simulation may have replaced by something else: only regular files, and without waiting."""

import os
import stat
from pathlib import Path

# Without O_NONBLOCK, opening a pipe would wait for a writer.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def opened(path: Path) -> int:
    """A descriptor to read a file from; links are followed. Raises OSError, also if it isn't a regular file."""
    return checked(os.open(path, READ))


def checked(descriptor: int) -> int:
    """The same descriptor. If it isn't one of a regular file, it is closed; raises FileNotFoundError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError("not a regular file")
    return descriptor
