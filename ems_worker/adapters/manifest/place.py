"""Where the manifest's files are: on a disk of this machine, and still there while a worker has them open."""

import os
import re
from pathlib import Path
from typing import Final

# Other machines write to these too. SQLite's log needs memory that all who have it open share, and locks that hold.
_NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "davfs"),
        *("ceph", "lustre", "gpfs", "beegfs", "glusterfs", "orangefs", "pvfs2", "gfs2", "ocfs2"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.juicefs"),
    }
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")

# Device and inode.
_Identity = tuple[int, int]


def network(mounts: str, path: Path) -> str | None:
    """The type of the network file system that an absolute path without links is on; None where it is on another.

    `mounts` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    found, longest = None, -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.partition(" ")[0]
        if len(fields) < 5 or not kind:
            continue
        point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # The last of several mounts at one place hides the others.
        if path.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found if found in _NETWORK else None


class Place:
    """The files of an open database, as they are when this is made."""

    def __init__(self, path: Path) -> None:
        """`path`: of the database, whose log is beside it."""
        self._path = path
        self._known = {file: _identity(file) for file in (path, path.with_name(f"{path.name}-wal"))}

    @property
    def lost(self) -> str | None:
        """Why what is recorded can't be found by the next start, in words with the remedy; None while it can."""
        for file, known in self._known.items():
            if known is not None and (now := _identity(file)) != known:
                what = "was deleted or moved away" if now is None else "was replaced by another file"
                return (
                    f"{file} {what} while this worker has it open: what it records is lost with its end. Remedy: stop "
                    f"it, put {self._path.name} back where it was together with {self._path.name}-wal, or restore a "
                    "backup (ems-worker restore BACKUP), and start it again"
                )
        return None


def _identity(path: Path) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
