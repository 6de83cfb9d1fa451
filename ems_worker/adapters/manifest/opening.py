"""Opens the database: makes sure of one worker and of a whole file that is ours, applies settings and migrations."""

import contextlib
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import connecting, lock, migrate, place
from ems_worker.settings import private

APPLICATION_ID = 0x454D5357  # 'EMSW', as the first migration sets it
# How long to wait while another program writes.
BUSY_SECONDS = 5.0
# What a data directory of ours contains: the database with its companions, and exports.
_OURS = ("manifest.db*", "backups", "*.manifest.jsonl", ".*.part")
# A file up to this size is checked before it is used: a fraction of a second. A larger one is checked meanwhile.
CHECKED_AT_ONCE = 16 * 1024 * 1024
MOUNTS = Path("/proc/self/mountinfo")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

# FULL: a commit is on disk before its request is answered. The log is truncated after a large expansion.
_SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA cache_size = -8192",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA foreign_keys = ON",
)


def is_large(path: Path) -> bool:
    """Whether the file, with its log, is so large that `opened` doesn't check all of it."""
    files = (path, path.with_name(f"{path.name}-wal"))
    try:
        return sum(file.stat().st_size for file in files if file.exists()) > CHECKED_AT_ONCE
    except OSError:
        return False  # `opened` says what is wrong


def make_directory(path: Path) -> None:
    """Creates the manifest's directory if it is missing, readable by its owner only.

    An existing directory that holds nothing but our files is restricted to its owner too. Raises errors.FileUnwritable
    if it can't be created.
    """
    private.data_directory(path, _OURS)


@contextlib.asynccontextmanager
async def opened(path: Path, migrations: Sequence[str]) -> AsyncIterator[connecting.Connection]:
    """The connection that writes, to a database that is locked, checked and migrated.

    Raises errors.ManifestUnusable, with the remedy, if the database can't be used, and errors.FileUnwritable if the
    file can't be created or written.
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
                # Errors that sqlite3 raises by itself have no error name.
                if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
                    raise damaged(path, str(error)) from error
                raise errors.ManifestUnusable(f"{path} can't be used: {error}") from error
            yield connection
        finally:
            await connection.close()


def _check_disk(path: Path) -> None:
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return  # not Linux: SQLite refuses the file systems that it recognises
    kind = place.network(mounts, path.parent.resolve())
    if kind is not None:
        raise errors.ManifestUnusable(
            f"{path} is on a network file system ({kind}), which can damage it: name a data directory on a disk of "
            "this machine (EMS_DATA_DIR)"
        )


def _create(path: Path) -> None:
    """Creates the file if it is missing. It and its log, which inherits its mode, are readable by the owner only."""
    try:
        private.database(path)
        mode = path.stat().st_mode
    except OSError as error:
        raise errors.FileUnwritable(f"{path} can't be opened: {error.strerror}") from error
    if mode & stat.S_IWOTH:
        # The mode of a file of our own was corrected already.
        raise errors.ManifestUnusable(
            f"{path} belongs to another user and is writable by everybody (mode {stat.S_IMODE(mode):04o}): "
            f"chmod o-w {path}"
        )


async def _check(connection: aiosqlite.Connection, path: Path) -> None:
    if not is_large(path):
        problems = [row[0] for row in await connection.execute_fetchall("PRAGMA quick_check(5)")]
        if problems != ["ok"]:
            raise damaged(path, "; ".join(problems))
    tables = list(await connection.execute_fetchall("SELECT name FROM sqlite_schema LIMIT 1"))
    owner = await migrate.scalar(connection, "PRAGMA application_id")
    if tables and owner != APPLICATION_ID:
        raise errors.ManifestUnusable(f"{path} is the database of another program; name another file")
    mode = await migrate.scalar(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise errors.ManifestUnusable(
            f"{path} can't have a write-ahead log here; the manifest needs a local file system"
        )


def damaged(path: Path, what: str) -> errors.ManifestUnusable:
    """The error about a damaged file, with the remedy."""
    return errors.ManifestUnusable(
        f"{path} is damaged ({' '.join(what.split())}): restore a backup of it (ems-worker restore BACKUP), or move it "
        f"away together with {path.name}-wal and {path.name}-shm to begin with an empty manifest"
    )
