"""Files and directories that only their owner may read: made so, taken back from others, or refused."""

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
    """Makes a directory that only we can enter; one of ours that is wider is narrowed.

    Raises errors.FileUnwritable for what can't be made, or belongs to somebody else.
    """
    try:
        _make(path)
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid():
            found = path.stat()  # our own link: we chose where the directory is
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise errors.FileUnwritable(
                f"{path} is not a directory of this user's: another may have made it; move it away, or name another"
            )
        if found.st_mode & _OTHERS:
            path.chmod(0o700)
    except OSError as failed:
        raise errors.FileUnwritable(f"the directory {path} can't be made: {failed.strerror}") from failed
    return path


def data_directory(path: Path, ours: Sequence[str]) -> None:
    """Makes a directory for data that only we can enter.

    One that exists is narrowed where it holds nothing but what the patterns `ours` match. In any other the modes of the
    files in it have to do. Raises errors.FileUnwritable where it can't be made, and for a directory of ours in which
    others could replace our files.
    """
    try:
        _make(path)
        found = path.stat()
        # Somebody else's directory (a mounted volume, /tmp) is not ours to change.
        if found.st_uid != os.geteuid() or not found.st_mode & _OTHERS or found.st_mode & stat.S_ISVTX:
            return
        if all(any(fnmatch.fnmatch(one.name, pattern) for pattern in ours) for one in path.iterdir()):
            path.chmod(0o700)
        elif found.st_mode & _OTHERS_WRITE:
            raise errors.FileUnwritable(
                f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):04o}): chmod go-w {path}, or name a "
                "directory that holds nothing else"
            )
    except OSError as failed:
        raise errors.FileUnwritable(f"the directory {path} can't be made: {failed.strerror}") from failed


def file(path: Path, flags: int = os.O_RDWR) -> int:
    """A descriptor of this file, made where missing, that only its owner may read; one of ours is narrowed to that.

    Raises OSError.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def database(path: Path) -> None:
    """Makes a file for SQLite, as `file` does; its log and index, which SQLite makes like it, are narrowed too.

    Raises OSError.
    """
    os.close(file(path))
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            os.close(file(beside))


def own(path: Path) -> bool:
    """Whether this is a directory that we made; False where there is none, or somebody else's.

    Raises errors.SettingsError for one of ours that others can enter.
    """
    try:
        found = path.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    if found.st_mode & _OTHERS:
        raise errors.SettingsError(
            f"{path} holds credentials and may be entered by others (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"chmod 700 {path}"
        )
    return True


def write(path: Path, content: bytes, *, prepare: Callable[[int], object] = os.fsync) -> int:
    """Replaces a file as a whole by one that only we can read; its descriptor, for the caller to close.

    `prepare` gets the descriptor before the file has its name. Raises errors.FileUnwritable.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as made:
                made.write(content)
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
    """A descriptor of a file that is ours alone, for the caller to close, and its content.

    Raises FileNotFoundError, and errors.SettingsError for a file that somebody else made, may read, or put a link for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as failed:
        words = "it is a link" if failed.errno == errno.ELOOP else failed.strerror
        raise errors.SettingsError(f"{path} can't be read: {words}") from failed
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise errors.SettingsError(
                f"{path} holds credentials and is not this user's own file: it is not used; remove it"
            )
        if found.st_mode & _OTHERS:
            raise errors.SettingsError(
                f"{path} holds credentials and may be read by others (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"chmod 600 {path}"
            )
        return descriptor, os.read(descriptor, found.st_size)
    except BaseException:
        os.close(descriptor)
        raise


def _make(path: Path) -> None:
    """Path.mkdir gives its `mode` to the last directory only: with a wide umask, anybody could change its parents."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
