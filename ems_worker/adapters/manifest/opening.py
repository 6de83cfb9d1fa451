"""Opening the database: one worker, a file that is whole and ours, its settings, its schema."""

import contextlib
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import connecting, lock, migrate, place
from ems_worker.settings import private

APPLICATION_ID = 0x454D5357  # 'EMSW', as the first migration sets it
# How long to wait for somebody who writes with another program.
BUSY_SECONDS = 5.0
# What a data directory of ours has in it: the database with what belongs to it, and exports.
_OURS = ("manifest.db*", "*.manifest.jsonl", ".*.part")
_MOUNTS = Path("/proc/self/mountinfo")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

# FULL: a commit is on disk before its request is answered. The log is cut back after a large expansion.
_SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA foreign_keys = ON",
)


def make_directory(path: Path) -> None:
    """Makes the manifest's directory, where it is missing, for its owner only; one that holds nothing else becomes so.

    Raises errors.FileUnwritable where that can't be.
    """
    private.data_directory(path, _OURS)


@contextlib.asynccontextmanager
async def opened(path: Path, migrations: Sequence[str]) -> AsyncIterator[aiosqlite.Connection]:
    """The connection that writes, on a database that is locked, checked and of the present schema.

    Raises errors.ManifestUnusable, with the remedy, where that can't be, and errors.FileUnwritable where no file can be
    made or written there.
    """
    make_directory(path.parent)
    _check_disk(path)
    with lock.exclusive(path):
        _create(path)
        connection = await connecting.connect(path, isolation_level=None, cached_statements=256, timeout=BUSY_SECONDS)
        try:
            try:
                await _check(connection, path)
                await migrate.migrate(connection, path, migrations)
                for setting in _SETTINGS:
                    await connection.execute(setting)
            except aiosqlite.Error as error:
                # An error that sqlite3 itself raises has no code.
                if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
                    raise _damaged(path, str(error)) from error
                raise errors.ManifestUnusable(f"{path} can't be used: {error}") from error
            yield connection
        finally:
            await connection.close()


def _check_disk(path: Path) -> None:
    try:
        mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return  # no Linux: SQLite itself refuses what it notices
    kind = place.network(mounts, path.parent.resolve())
    if kind is not None:
        raise errors.ManifestUnusable(
            f"{path} is on a network file system ({kind}), which can damage it: name a data directory on a disk of "
            "this machine (EMS_DATA_DIR)"
        )


def _create(path: Path) -> None:
    """Makes the file if need be, so that it and its log, which inherits its mode, are the owner's only."""
    try:
        private.database(path)
        mode = path.stat().st_mode
    except OSError as error:
        raise errors.FileUnwritable(f"{path} can't be opened: {error.strerror}") from error
    if mode & stat.S_IWOTH:
        # Our own is narrowed.
        raise errors.ManifestUnusable(
            f"{path} belongs to another user, and everybody may write to it (mode {stat.S_IMODE(mode):04o}): "
            f"chmod o-w {path}"
        )


async def _check(connection: aiosqlite.Connection, path: Path) -> None:
    problems = [row[0] for row in await connection.execute_fetchall("PRAGMA quick_check(5)")]
    if problems != ["ok"]:
        raise _damaged(path, "; ".join(problems))
    tables = list(await connection.execute_fetchall("SELECT name FROM sqlite_schema LIMIT 1"))
    owner = await migrate.scalar(connection, "PRAGMA application_id")
    if tables and owner != APPLICATION_ID:
        raise errors.ManifestUnusable(f"{path} is another program's database; name another file")
    mode = await migrate.scalar(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise errors.ManifestUnusable(f"{path} can't have a write-ahead log here; it needs a local file system")


def _damaged(path: Path, what: str) -> errors.ManifestUnusable:
    return errors.ManifestUnusable(
        f"{path} is damaged ({what}): restore a backup of it (ems-worker restore BACKUP), or move it away with "
        f"{path.name}-wal and {path.name}-shm to begin with an empty manifest"
    )
