"""Checks that the manifest's files are on a local disk, and that they stay there while a worker has them open."""

import os
import re
from pathlib import Path
from typing import Final

# File systems that other machines may write to. SQLite's log needs shared memory and reliable locks.
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
    """The type of the network file system that a path is on, which is absolute and has no links; None if it is local.

    `mounts` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    mounted, depth = None, -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.partition(" ")[0]
        if len(fields) < 5 or not kind:
            continue
        point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # Of several mounts at the same point the last hides the others.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            mounted, depth = kind, len(point.parts)
    return mounted if mounted in _NETWORK else None


class OpenFiles:
    """The files of an open database, the log beside it included, as they were when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {file: _identity(file) for file in (path, path.with_name(f"{path.name}-wal"))}

    @property
    def problem(self) -> str | None:
        """Why the next start won't find what is recorded, with the remedy; None if all is well."""
        for file, known in self._known.items():
            if known is not None and (now := _identity(file)) != known:
                change = "was deleted or moved away" if now is None else "was replaced by another file"
                return (
                    f"{file} {change} while this worker has it open: everything it records will be lost when it ends. "
                    f"Remedy: stop the worker; put {self._path.name} and {self._path.name}-wal back where they were or "
                    "restore a backup (ems-worker restore BACKUP); start the worker again"
                )
        return None


def _identity(path: Path) -> _Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
