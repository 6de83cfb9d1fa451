"""Backups of a manifest are complete or leave nothing behind, and errors name the right file."""

import asyncio
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest, copies
from ems_worker.cli import exits

AT = "20260101T000000Z"


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A manifest that no worker has open."""
    path = tmp_path / "data" / "manifest.db"
    async with Manifest.open(path):
        pass
    return path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("file", "exists"),
        ("dangling", "exists"),
        ("missing/copy.db", "copy.db can't be written: No such file"),
        ("file/copy.db", "copy.db can't be written: Not a directory"),
    ],
)
async def test_a_target_that_cannot_be_created_is_refused(
    database: Path, tmp_path: Path, target: str, words: str
) -> None:
    """The error names the target, and no file is added."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    before = names(tmp_path)
    with pytest.raises(errors.FileUnwritable, match=words) as refused:
        await copies.take(database, tmp_path / target)
    assert exits.of(refused.value) is exits.Exit.USAGE
    assert names(tmp_path) == before


async def test_nothing_is_left_of_a_failed_copy(tmp_path: Path) -> None:
    """A damaged manifest leaves no file that looks like a backup."""
    damaged = tmp_path / "manifest.db"
    damaged.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(errors.ManifestUnusable):
        await copies.take(damaged, tmp_path / "copy.db")
    assert names(tmp_path) == {"manifest.db"}


@pytest.mark.parametrize(
    ("source", "words"), [("", "is not a file"), ("absent.db", "does not exist"), ("file/x", "can't be")]
)
def test_a_backup_that_is_not_a_file_is_refused(tmp_path: Path, source: str, words: str) -> None:
    """It is refused before SQLite opens it, whose thread would outlive the event loop."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.FileUnreadable, match=words) as refused:
        asyncio.run(copies.restore(tmp_path / "new" / "manifest.db", tmp_path / source, AT))
    assert exits.of(refused.value) is exits.Exit.USAGE
    with pytest.raises(errors.FileUnreadable, match=words):
        asyncio.run(copies.take(tmp_path / source, tmp_path / "copy.db"))
    assert names(tmp_path) == {"file"}


async def test_a_manifest_is_not_restored_where_no_directory_can_be_created(database: Path, tmp_path: Path) -> None:
    """A file in the place of the data directory is reported as the reason."""
    await copies.take(database, tmp_path / "copy.db")
    (tmp_path / "file").touch()
    with pytest.raises(errors.FileUnwritable, match=r"file can't be created: File exists"):
        await copies.restore(tmp_path / "file" / "manifest.db", tmp_path / "copy.db", AT)
