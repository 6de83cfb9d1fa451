"""Puts the files of runs into a directory: resumable, never outside of it, and never over another file unasked.

Names come from simulations and orchestrators: each part of a path must be an ordinary file name, and no link is
followed.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ems_worker import errors
from ems_worker.cli import exits, numbers, shell
from ems_worker.terminal import text

if TYPE_CHECKING:
    from ems_worker.adapters.orchestrator.output import File, Outputs

_MAX_NAME_BYTES = 255
_MAX_PARTS = 64
# Characters of a name that are kept in that of its partial file.
_PARTIAL_CHARACTERS = 40


class Downloads:
    """The downloads of one command, with what became of them."""

    def __init__(self, outputs: "Outputs", directory: Path, *, overwrite: bool, json: bool) -> None:
        self._outputs = outputs
        self._directory = directory
        self._overwrite = overwrite
        self._json = json
        self._done = self._bytes = self._present = self._elsewhere = 0
        # Files that were left because others are in their places, files whose names can't be used, and runs that the
        # orchestrator doesn't know.
        self.left = self.unsafe = self.gone = 0

    @property
    def found(self) -> bool:
        """Whether there was any file."""
        return bool(self._done or self._present or self._elsewhere or self.left or self.unsafe)

    async def fetch(self, run: str, file: "File") -> None:
        """Downloads a file unless it is there, or has no usable name."""
        if not file.path:
            self._elsewhere += 1
            self._tell(run, file, None, "elsewhere")
            return
        target = place(self._directory, run, file.path)
        if target is None:
            self.unsafe += 1
            self._tell(run, file, None, "unusable")
            return
        with _written(target):
            there = _existing(target)
            if there is not None and _same(there, file):
                self._present += 1
                self._tell(run, file, target, "present")
                return
            if there is not None and not (self._overwrite and stat.S_ISREG(there.st_mode)):
                self.left += 1
                self._tell(run, file, target, "left")
                return
            _make_folders(self._directory, target.parent)
            await self._fetch(run, file, target)
        self._done += 1
        self._tell(run, file, target, "replaced" if there is not None else "downloaded")

    def report(self) -> None:
        """Says in a line what was done."""
        files = numbers.counted(self._done, "file")
        facts = [f"{files} ({self._bytes:,} bytes) in {self._directory}" if self._done else ""]
        facts.append(f"{self._present:,} were there already" if self._present else "")
        facts.append(f"{self.left:,} left, because other files are in their places (--overwrite)" if self.left else "")
        facts.append(f"{self.unsafe:,} have names that can't be used" if self.unsafe else "")
        facts.append(f"{self._elsewhere:,} artifacts are elsewhere" if self._elsewhere else "")
        facts.append(f"the orchestrator no longer knows {self.gone:,} runs" if self.gone else "")
        if any(facts):
            shell.say("; ".join(filter(None, facts)))

    async def _fetch(self, run: str, file: "File", target: Path) -> None:
        """Continues the partial file, which has a name of its own for each state of the file."""
        key = hashlib.sha256(f"{file.path} {file.size} {file.modified_ns}".encode()).hexdigest()[:12]
        partial = target.with_name(f".{target.name[:_PARTIAL_CHARACTERS]}.{key}.partial")
        with _appended(partial) as written:
            size = written.tell()
            if size > file.size:
                size = written.truncate(0)
            whole = None
            async with contextlib.aclosing(self._outputs.artifact(run, file.path, offset=size)) as parts:
                async for part in parts:
                    # The first part's: a size that grows with each part is no limit.
                    whole = part.size if whole is None else whole
                    if size + len(part.data) > max(file.size, whole):
                        raise errors.RequestRefused(f"{run} {file.path}: more was sent than the file has")
                    written.write(part.data)
                    size += len(part.data)
            if size < (file.size if whole is None else whole):
                raise errors.OrchestratorUnavailable(f"{file.path} of {run} ended early: repeat the command to go on")
        if file.modified_ns:
            with contextlib.suppress(OverflowError):  # a time that no file can have
                os.utime(partial, ns=(file.modified_ns, file.modified_ns))
        partial.replace(target)
        self._bytes += size

    def _tell(self, run: str, file: "File", target: Path | None, what: str) -> None:
        if self._json:
            path = None if target is None else str(target)
            shell.out_json({"simulation_id": run, "path": file.name, "file": path, "bytes": file.size, "result": what})
        elif what == "elsewhere":
            shell.say(text.line(f"{run} {file.artifact} is elsewhere: {file.uri}"))
        elif what == "unusable":
            shell.say(text.line(f"{run}: {file.path[:200]!r} is not a safe path inside a directory"))
        elif what == "left":
            shell.say(text.line(f"{target} is there and differs: it is left as it is"))
        elif what == "replaced":
            shell.out(text.line(f"{target} (replaced)"))
        elif what == "downloaded":
            shell.out(text.line(str(target)))


def place(directory: Path, run: str, path: str) -> Path | None:
    """Where a file belongs; None for a path that leads elsewhere, or for a name that a file shouldn't have."""
    parts = path.split("/")
    usable = len(parts) <= _MAX_PARTS and all(map(_is_name, (run, *parts)))
    return directory.joinpath(run, *parts) if usable else None


def _is_name(part: str) -> bool:
    if part in ("", ".", "..") or "/" in part or "\\" in part or text.clean(part) != part or "\n" in part:
        return False
    try:
        return len(os.fsencode(part)) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def _make_folders(directory: Path, folder: Path) -> None:
    """Creates the folders of a file. A link in the place of one of them could lead anywhere."""
    directory.mkdir(parents=True, exist_ok=True)
    at = directory
    for part in folder.relative_to(directory).parts:
        at = at / part
        with contextlib.suppress(FileExistsError):
            at.mkdir()
        if not stat.S_ISDIR(at.lstat().st_mode):
            raise exits.Misused(f"{at} is in the way: it is not a directory")


def _existing(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _same(there: os.stat_result, file: "File") -> bool:
    """Whether a file has the size and the time of the one that could be downloaded."""
    same_time = not file.modified_ns or there.st_mtime_ns // 1000 == file.modified_ns // 1000
    return stat.S_ISREG(there.st_mode) and there.st_size == file.size and same_time


@contextlib.contextmanager
def _appended(partial: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with open(descriptor, "ab") as written:
        yield written


@contextlib.contextmanager
def _written(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        raise exits.Misused(f"{target} can't be written: {failed.strerror}") from failed
