"""Lines of a file that come in any order, one for each of a known number of places."""

import contextlib
import errno
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_ABSENT: Final = -1


class Spool:
    """Collects lines in a file of its own. The last line for a place is the one that counts.

    Methods raise OSError if the file can't be written.
    """

    def __init__(self, path: Path, places: int) -> None:
        """Creates the file `path`, or empties it."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        self._path = path
        self._starts = array("q", [_ABSENT]) * places
        self._sizes = array("L", [0]) * places
        self._size = 0
        self._filled = 0

    @property
    def complete(self) -> bool:
        """Whether every place has a line."""
        return self._filled == len(self._starts)

    @property
    def places(self) -> int:
        return len(self._starts)

    def add(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Adds lines, each with its place and a line feed at its end."""
        starts, size = self._starts, self._size
        data: list[bytes] = []
        for place, line in lines:
            self._filled += starts[place] == _ABSENT
            starts[place] = size
            self._sizes[place] = len(line)
            size += len(line)
            data.append(line)
        # Opened each time: there may be many experiments, and files left open. A file that was deleted isn't created.
        with self._path.open("r+b") as file:
            file.seek(self._size)
            file.write(b"".join(data))
        self._size = size

    def assemble(self, target: Path) -> None:
        """Writes the lines in the order of their places to the file `target`, which appears once it is complete."""
        scratch = target.with_name(f".{target.name}.part")
        with (
            self._path.open("rb", buffering=0) as collected,
            open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=1 << 20) as file,
        ):
            # Read one by one: a mapping of the file would count as memory of this process.
            for start, size in zip(self._starts, self._sizes, strict=True):
                line = os.pread(collected.fileno(), size, start)
                if len(line) != size:
                    raise OSError(errno.EIO, "lines are missing", str(self._path))
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)

    def delete(self) -> None:
        """Deletes the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
