"""Files and directories that only their owner may read.

They are created with those permissions. Existing ones of this user have their permissions tightened; those of other
users are refused.
"""

import errno
import fnmatch
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ems_worker import errors

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def directory(path: Path) -> Path:
    """Creates a directory that only this user can enter, or tightens the permissions of an existing one.

    Raises errors.FileUnwritable if the directory can't be created or belongs to another user.
    """
    try:
        _make(path)
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid():
            status = path.stat()  # a link of this user's own is followed
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise errors.FileUnwritable(
                f"{path} is not a directory of this user: another user may have created it. Move it away, or use "
                "another directory"
            )
        if status.st_mode & _OTHERS:
            path.chmod(0o700)
    except OSError as failed:
        raise errors.FileUnwritable(f"the directory {path} can't be created: {failed.strerror}") from failed
    return path


def data_directory(path: Path, ours: Sequence[str]) -> None:
    """Creates a directory for data that only this user can enter.

    An existing directory has its permissions tightened if all its entries match the patterns `ours`. Any other is left
    as it is; its files are protected by their own permissions. Raises errors.FileUnwritable if the directory can't be
    created, or if it belongs to this user and others could replace files in it.
    """
    try:
        _make(path)
        status = path.stat()
        # Another user's directory (a mounted volume, /tmp) is not ours to change.
        if status.st_uid != os.geteuid() or not status.st_mode & _OTHERS or status.st_mode & stat.S_ISVTX:
            return
        if all(any(fnmatch.fnmatch(entry.name, pattern) for pattern in ours) for entry in path.iterdir()):
            path.chmod(0o700)
        elif status.st_mode & _OTHERS_WRITE:
            raise errors.FileUnwritable(
                f"others may write to {path} (mode {stat.S_IMODE(status.st_mode):04o}): chmod go-w {path}, or use a "
                "directory that holds nothing else"
            )
    except OSError as failed:
        raise errors.FileUnwritable(f"the directory {path} can't be created: {failed.strerror}") from failed


def file(path: Path, flags: int = os.O_RDWR) -> int:
    """Opens a file that only its owner may read, creating it if missing; returns its descriptor.

    An existing file of this user has its permissions tightened. Raises OSError.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_mode & _OTHERS:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def database(path: Path) -> None:
    """Creates a database file like `file` does, and tightens the permissions of an existing write-ahead log and index.

    SQLite creates those two with the permissions of the database file. Raises OSError.
    """
    os.close(file(path))
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            os.close(file(beside))


def is_own_directory(path: Path) -> bool:
    """Whether this is a directory of this user.

    Raises errors.SettingsError if it is, but others can enter it.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    if status.st_mode & _OTHERS:
        raise errors.SettingsError(
            f"{path} holds credentials and may be entered by others (mode {stat.S_IMODE(status.st_mode):04o}): "
            f"chmod 700 {path}"
        )
    return True


def write(path: Path, content: bytes, *, prepare: Callable[[int], object] = os.fsync) -> int:
    """Replaces a file atomically by one that only this user can read; returns its descriptor for the caller to close.

    `prepare` is called with the descriptor before the file gets its name. Raises errors.FileUnwritable.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
            prepare(descriptor)
            fresh.replace(path)
        except BaseException:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
    except OSError as failed:
        raise errors.FileUnwritable(f"{path} can't be written: {failed.strerror}") from failed
    return descriptor


def read(path: Path) -> tuple[int, bytes]:
    """The descriptor, for the caller to close, and the content of a file that only this user can read.

    Raises FileNotFoundError, and errors.SettingsError for a link, for a file of another user, and for one that others
    may read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as failed:
        reason = "it is a link" if failed.errno == errno.ELOOP else failed.strerror
        raise errors.SettingsError(f"{path} can't be read: {reason}") from failed
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise errors.SettingsError(
                f"{path} is ignored: it holds credentials but is not a file of this user; remove it"
            )
        if status.st_mode & _OTHERS:
            raise errors.SettingsError(
                f"{path} holds credentials and may be read by others (mode {stat.S_IMODE(status.st_mode):04o}): "
                f"chmod 600 {path}"
            )
        return descriptor, os.read(descriptor, status.st_size)
    except BaseException:
        os.close(descriptor)
        raise


def _make(path: Path) -> None:
    """Creates a directory and its missing parents, all with mode 0700.

    Path.mkdir applies `mode` only to the last directory: with a permissive umask, others could write to the parents.
    """
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
