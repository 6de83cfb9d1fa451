"""Files that the worker doesn't use as its manifest: newer, damaged, foreign, locked, remote, writable by everybody."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest, copies, migrate, opening
from tests.support import manifests, wait

# The schema of the worker before the first release, as one of its manifests has it.
OLD_SCHEMA = Path(__file__).with_name("manifest_before_release.sql")
# The rows of a manifest of the first schema.
EARLIER = (Path(__file__).parents[1] / "service" / "manifest_language_1.sql").read_text()


def _query(path: Path, text: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An old worker reports both versions of the schema and leaves the newer database unchanged."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path, migrations=[*migrate.steps(), "CREATE TABLE later (x);"]):
        pass
    before = path.read_bytes()
    known = len(migrate.steps())
    with pytest.raises(errors.ManifestUnusable, match=f"schema version {known + 1}, this worker knows up to {known}"):
        async with Manifest.open(path):
            pytest.fail("it was opened")
    assert path.read_bytes() == before


async def test_an_older_file_is_refused_by_the_digest_of_its_schema(tmp_path: Path) -> None:
    """A file from before the first release has the same version and another schema; the error names the remedy."""
    path = tmp_path / "manifest.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"{OLD_SCHEMA.read_text()}\nPRAGMA user_version = 1;\nPRAGMA journal_mode = WAL;")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(errors.ManifestUnusable, match=r"before the first release.*ems export.*move the file away"):
        async with Manifest.open(path):
            pytest.fail("it was opened")
    with pytest.raises(errors.ManifestUnusable, match=r"before the first release.*ems export.*move the file away"):
        await copies.inspect(path)
    assert path.read_bytes() == before


async def test_what_an_owner_added_to_the_schema_does_not_matter(tmp_path: Path) -> None:
    """Statistics and an index of somebody's own change nothing that the worker needs."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path) as manifest:
        record = await manifests.running(manifest)
    connection = sqlite3.connect(path)
    connection.executescript("CREATE INDEX mine ON runs (host); ANALYZE;")
    connection.close()
    async with Manifest.open(path) as manifest:
        assert await manifest.experiment("reef") == record


async def test_a_migration_leaves_a_backup(tmp_path: Path) -> None:
    """The backup is a whole database of the old version; a new database needs none."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path) as manifest:
        record = await manifests.running(manifest)
    present = len(migrate.steps())
    assert "backup" not in " ".join(os.listdir(tmp_path))
    async with Manifest.open(path, migrations=[*migrate.steps(), "ALTER TABLE remembered ADD COLUMN at_ms INTEGER;"]):
        pass
    backup = tmp_path / f"manifest.db.v{present}.backup"
    assert _query(backup, "PRAGMA user_version") == [(present,)]
    async with Manifest.open(backup) as old:
        assert await old.experiment("reef") == record


async def test_a_manifest_of_the_first_schema_is_continued(tmp_path: Path) -> None:
    """Its experiments and runs are there, and later migrations were applied."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path, migrations=migrate.steps()[:1]):
        pass
    connection = sqlite3.connect(path)
    connection.executescript(f"DELETE FROM remembered; {EARLIER}")
    jobs = connection.execute("SELECT experiment_id, count(*) FROM v_jobs GROUP BY 1").fetchall()
    connection.close()
    async with Manifest.open(path) as manifest:
        record = await manifest.experiment("plain")
        assert record is not None
        assert (record.spec.language, record.spec.headings) == (1, {})
    assert _query(path, "PRAGMA user_version") == [(len(migrate.steps()),)]
    assert jobs
    assert _query(path, "SELECT experiment_id, count(*) FROM v_jobs GROUP BY 1") == jobs


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The part of it that succeeded is rolled back."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path) as manifest:
        record = await manifests.running(manifest)
    broken = "DROP VIEW v_jobs; INSERT INTO nowhere VALUES (1);"
    with pytest.raises(errors.ManifestUnusable, match=rf"schema version {len(migrate.steps()) + 1}.*nowhere"):
        async with Manifest.open(path, migrations=[*migrate.steps(), broken]):
            pytest.fail("it was opened")
    async with Manifest.open(path) as manifest:
        assert await manifest.experiment("reef") == record
    assert _query(path, "SELECT count(*) FROM v_jobs") == [(6,)]


def _zeros_inside(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\x00\xff" * (size // 8))


def _one_page(path: Path) -> None:
    """Damages a single page, which opening alone would not notice."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8192 * 4096)
        file.write(b"\xff")


def _text(path: Path) -> None:
    path.write_text("this is no database\n" * 200)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_zeros_inside, _one_page, _text, _cut])
async def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The worker doesn't start on a damaged manifest, and the error names the remedy."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path) as manifest:
        await manifests.running(manifest, manifests.spec(points=500))
    damage(path)
    with pytest.raises(errors.ManifestUnusable, match=r"damaged.*restore a backup"):
        async with Manifest.open(path):
            pytest.fail("it was opened")


@pytest.mark.parametrize("damage", [_zeros_inside, _one_page])
async def test_a_large_file_is_checked_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    """If it is damaged, the error is that of a small file."""
    monkeypatch.setattr(opening, "CHECKED_AT_ONCE", 100_000)
    path = tmp_path / "manifest.db"
    async with Manifest.open(path) as manifest:
        await manifests.running(manifest, manifests.spec(points=5_000))
    damage(path)
    async with Manifest.open(path) as manifest:
        assert await manifest.remembered("identity")
        with pytest.raises(errors.ManifestUnusable, match=r"damaged.*restore a backup"):
            await manifest.until_damaged()


async def test_the_check_of_a_large_file_that_is_whole_goes_on_until_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker would end if it returned. It reads the file once."""
    monkeypatch.setattr(opening, "CHECKED_AT_ONCE", 0)
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        pass
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        checking = asyncio.create_task(manifest.until_damaged())
        await wait.until(lambda: manifest.counters.reads["damage"] == 1)
        assert not checking.done()
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        assert await manifest.remembered("identity")


async def test_a_database_that_another_program_has_locked_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open transaction of another program is no reason to restore a backup."""
    monkeypatch.setattr(opening, "BUSY_SECONDS", 0.01)
    path = tmp_path / "manifest.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(errors.ManifestUnusable, match="can't be used: database is locked"):
            async with Manifest.open(path):
                pytest.fail("it was opened")
    finally:
        connection.close()


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """A wrong path adds no tables to the database of another program."""
    path = tmp_path / "bookmarks.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    with pytest.raises(errors.ManifestUnusable, match="of another program"):
        async with Manifest.open(path):
            pytest.fail("it was opened")
    assert _query(path, "SELECT name FROM sqlite_schema") == [("bookmarks",)]


@pytest.mark.parametrize("place", ["file/manifest.db", "directory"])
async def test_a_path_that_can_be_no_database_is_refused(tmp_path: Path, place: str) -> None:
    """A file in the place of the directory, or a directory in the place of the file, is reported by its path."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(errors.FileUnwritable, match=str(tmp_path)):
        async with Manifest.open(tmp_path / place):
            pytest.fail("it was opened")


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names its type and the remedy; nothing is created there, and a link to it doesn't hide it."""
    mounts = tmp_path / "mountinfo"
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / {shared.resolve()} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(opening, "MOUNTS", mounts)
    (tmp_path / "link").symlink_to(shared)
    for directory in (shared, tmp_path / "link"):
        with pytest.raises(errors.ManifestUnusable, match=r"network file system \(nfs4\).*EMS_DATA_DIR"):
            async with Manifest.open(directory / "manifest.db"):
                pass
    assert list(shared.iterdir()) == []
    async with Manifest.open(tmp_path / "local" / "manifest.db"):
        pass
    mounts.unlink()
    async with Manifest.open(shared / "manifest.db"):
        pass


async def test_a_file_that_everybody_may_write_is_restricted_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own file becomes ours alone; that of another user is refused."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path):
        pass
    path.chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(errors.ManifestUnusable, match=r"mode 0666.*chmod o-w"):
        async with Manifest.open(path):
            pass
    monkeypatch.undo()
    async with Manifest.open(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
