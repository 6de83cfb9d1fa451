"""Files: base configurations below a root directory, and the manifest file of an ended experiment."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ems_worker import errors
from ems_worker.core.documents import documents, results
from ems_worker.core.records import JobRow
from ems_worker.errors import Problem

_PATH = ("base_config_file_path",)
# The directory in which Linux links each open file to its path.
_OPEN_FILES = Path("/proc/self/fd")
_MAX_BASE_BYTES = 16 * 1024 * 1024
_LINES_PER_WRITE = 1000


class BaseFiles:
    """Reads base configurations by relative path, only inside `root`, because the publisher of a plan sets the path.

    Raises errors.SettingsError if `root` is not a directory.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise errors.SettingsError(f"base_config_root: {root} is not a directory")
        self._root = root.resolve()

    def read(self, path: str) -> bytes:
        """The file's content. Raises errors.PlanRejected if the file is outside the root, missing or too large."""
        if "\0" in path or Path(path).is_absolute() or ".." in Path(path).parts:
            raise _refused(f"{path!r} must be a path inside the folder of base configurations, without '..'")
        try:
            return read_inside(self._root / path, [self._root])
        except OutsideError as outside:
            raise _refused(f"{path!r} is a link that leads out of the folder of base configurations") from outside
        except errors.FileUnreadable as failed:
            raise _refused(f"{path!r} {failed}") from failed


class OutsideError(errors.FileUnreadable):
    """A file is outside the directories that it must be in; `path` is its resolved path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"is {path}, outside")
        self.path = path


def read_inside(path: Path, roots: Sequence[Path]) -> bytes:
    """The content of a file whose resolved path is below one of the roots, which must be resolved themselves.

    Raises OutsideError before it opens any other file, and errors.FileUnreadable with a message to put after the
    file's name.
    """
    try:
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root) for root in roots):
            raise OutsideError(resolved)
        # Check the path of the opened file again: another process may have replaced the path with a link meanwhile.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            opened = (_OPEN_FILES / str(descriptor)).resolve() if _OPEN_FILES.is_dir() else resolved
            if not any(opened.is_relative_to(root) for root in roots):
                raise OutsideError(opened)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise errors.FileUnreadable("is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(_MAX_BASE_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(content) > _MAX_BASE_BYTES:
            raise errors.FileUnreadable(f"has more than {_MAX_BASE_BYTES:,} bytes")
        return content
    except OSError as error:
        raise errors.FileUnreadable(f"can't be read: {error.strerror}") from error
    except ValueError as error:  # a null byte in the path
        raise errors.FileUnreadable(f"can't be read: {error}") from error
    except RuntimeError as error:  # Path.resolve() raises this for a cycle of links
        raise errors.FileUnreadable("can't be read: it is a link that leads back to itself") from error


def _refused(message: str) -> errors.PlanRejected:
    return errors.PlanRejected([Problem("base_not_readable", _PATH[0], message, location=_PATH)])


def manifest_file(directory: Path, experiment_id: str) -> Path:
    """The manifest file of an experiment."""
    return directory / f"{experiment_id}.manifest.jsonl"


async def write_manifest(directory: Path, experiment_id: str, rows: AsyncIterator[JobRow]) -> Path:
    """Writes `<experiment_id>.manifest.jsonl`, a line for each job. The file appears only once it is complete.

    Raises errors.FileUnwritable.
    """
    target = manifest_file(directory, experiment_id)
    try:
        await _write(target, experiment_id, rows)
    except OSError as error:
        raise errors.FileUnwritable(f"{target} can't be written: {error.strerror}") from error
    return target


async def _write(target: Path, experiment_id: str, rows: AsyncIterator[JobRow]) -> None:
    file = await asyncio.to_thread(_begin, target)
    try:
        lines: list[bytes] = []
        async for row in rows:
            lines.append(documents.encode(results.line(results.result(experiment_id, row, whole=True))) + b"\n")
            if len(lines) == _LINES_PER_WRITE:
                await asyncio.to_thread(file.writelines, lines)
                lines = []
        await asyncio.to_thread(_finish, file, lines, target)
    finally:
        file.close()


def _begin(target: Path) -> BinaryIO:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(os.open(_scratch(target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _finish(file: BinaryIO, lines: list[bytes], target: Path) -> None:
    file.writelines(lines)
    file.flush()
    os.fsync(file.fileno())
    _scratch(target).replace(target)


def _scratch(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")
