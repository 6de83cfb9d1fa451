"""Files that settings name: certificates, keys, credentials."""

import os
import stat
from pathlib import Path

from ems_worker import errors

_OTHERS = stat.S_IRWXO
_GROUP = stat.S_IRWXG


def read(path: Path, what: str) -> bytes:
    """The content of a file that is `what`. Raises errors.SettingsError where it can't be read."""
    try:
        return path.read_bytes()
    except OSError as failed:
        raise errors.SettingsError(f"{what} {path} can't be read: {failed.strerror}") from failed


def check_private(path: Path, what: str) -> None:
    """Raises errors.SettingsError for a file that others on this machine can read, or that can't be read by us.

    Its group may where it belongs to root: so files are mounted into containers that don't run as root.
    """
    try:
        found = path.stat()
    except OSError as failed:
        raise errors.SettingsError(f"{path} can't be read: {failed.strerror}") from failed
    if os.name != "posix":
        return
    forbidden = _OTHERS if found.st_uid == 0 and os.geteuid() != 0 else _OTHERS | _GROUP
    if found.st_mode & forbidden:
        raise errors.SettingsError(
            f"{path} {what} and may be read by others (mode {stat.S_IMODE(found.st_mode):04o}): chmod 600 {path}"
        )
