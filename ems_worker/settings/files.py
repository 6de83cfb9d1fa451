"""Files that settings name: certificates, keys, credentials."""

import os
import stat
from pathlib import Path

from ems_worker import errors

_OTHERS = stat.S_IRWXO
_GROUP = stat.S_IRWXG


def read(path: Path, what: str) -> bytes:
    """The content of a file. `what` names it in the message of the errors.SettingsError for an unreadable file."""
    try:
        return path.read_bytes()
    except OSError as failed:
        raise errors.SettingsError(f"{what} {path} can't be read: {failed.strerror}") from failed


def check_private(path: Path, what: str) -> None:
    """Raises errors.SettingsError for a file that other users can read, or that this user can't read.

    `what` follows the path in the message, as in "holds a secret". Files that belong to root may be readable by their
    group: that is how files are mounted into containers that run as another user.
    """
    try:
        status = path.stat()
    except OSError as failed:
        raise errors.SettingsError(f"{path} can't be read: {failed.strerror}") from failed
    if os.name != "posix":
        return
    forbidden = _OTHERS if status.st_uid == 0 and os.geteuid() != 0 else _OTHERS | _GROUP
    if status.st_mode & forbidden:
        raise errors.SettingsError(
            f"{path} {what} and may be read by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 {path}"
        )
