"""The file system that a path is on, according to the text of /proc/self/mountinfo."""

from pathlib import Path

import pytest

from ems_worker.adapters.manifest import place

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /home rw,relatime shared:2 master:3 - nfs4 server:/home rw,vers=4.2,addr=10.0.0.5
31 30 8:2 / /home/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /scratch rw - lustre 10.0.0.6@tcp:/scratch rw
33 22 0:42 / /mnt/two\040words rw - fuse.sshfs you@host:/ rw
34 22 0:43 / /both rw - cifs //server/share rw
35 22 8:3 / /both rw - btrfs /dev/sdc1 rw
no line of it
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        ("/var/lib/ems", None),
        ("/home/you/ems-data", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/you", None),
        ("/home/local/ems-data", None),
        ("/scratch/ems", "lustre"),
        ("/mnt/two words/ems", "fuse.sshfs"),
        ("/mnt/two", None),
        ("/both/ems", None),
    ],
)
def test_a_network_file_system_is_recognised(path: str, kind: str | None) -> None:
    """The deepest mount point above the path decides; of several mounts at one point the last one does."""
    assert place.network(MOUNTS, Path(path)) == kind


def test_without_mounts_every_path_is_local() -> None:
    """An empty text names no file system."""
    assert place.network("", Path("/home")) is None
