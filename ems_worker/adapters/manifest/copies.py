"""Takes backups of a manifest while the worker runs, and restores them. Every copy is checked."""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import lock, migrate, opening

# A restored manifest remembers this fact until a worker has caught up with the messages since its backup.
RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Contents:
    """How much a manifest holds, to distinguish copies."""

    experiments: int
    runs: int
    ended_runs: int


async def take(database: Path, target: Path) -> Contents:
    """Copies the manifest to `target`, also while a worker is running, and checks the copy.

    Raises errors.FileUnreadable if there is no manifest, errors.FileUnwritable if the target exists or can't be
    created, errors.ManifestUnusable if the manifest or the copy is damaged. Nothing is left of a failed copy.
    """
    _check_readable(database)
    _check_free(target)
    try:
        with _whole_or_gone(target):
            async with aiosqlite.connect(f"file:{database}?mode=ro", uri=True) as source:
                await migrate.backup(source, target)
            return await inspect(target)
    except OSError as error:
        raise errors.FileUnwritable(f"{target} can't be written: {error.strerror}") from error
    except aiosqlite.Error as error:
        raise errors.ManifestUnusable(f"{database} could not be copied to {target}: {error}") from error


async def restore(database: Path, backup: Path, at: str) -> tuple[Contents, Path | None]:
    """Replaces the manifest by a backup; the present one is moved aside, and its new path returned.

    The next start of the worker replays the streams from before the backup. `at` is the time, for the name of the file
    that is moved aside. Raises errors.ManifestUnusable if a worker is running or the backup is damaged or newer than
    this worker, errors.FileUnreadable if it is not a file, errors.FileUnwritable if the manifest can't be written. Then
    nothing has changed.
    """
    _check_readable(backup)
    contents = await inspect(backup)
    # On a new machine not even the directory exists.
    opening.make_directory(database.parent)
    with lock.exclusive(database):
        fresh = database.with_name(f"{database.name}.restoring")
        try:
            with _whole_or_gone(fresh):
                async with aiosqlite.connect(f"file:{backup}?mode=ro", uri=True) as source:
                    await migrate.backup(source, fresh)
                async with aiosqlite.connect(fresh) as copy:
                    await copy.execute("INSERT OR REPLACE INTO remembered (name, value) VALUES (?, ?)", (RESTORED, at))
                    await copy.commit()
        except OSError as error:
            raise errors.FileUnwritable(f"{fresh} can't be written: {error.strerror}") from error
        except aiosqlite.Error as error:
            raise errors.ManifestUnusable(f"{backup} could not be restored: {error}") from error
        aside = _move_aside(database, at)
        os.replace(fresh, database)
    return contents, aside


async def inspect(path: Path) -> Contents:
    """Checks that a file is a whole manifest. Raises errors.ManifestUnusable, naming the problem."""
    try:
        async with aiosqlite.connect(f"file:{path}?mode=ro", uri=True) as connection:
            problems = [row[0] for row in await connection.execute_fetchall("PRAGMA quick_check(5)")]
            owner = await migrate.scalar(connection, "PRAGMA application_id")
            version = await migrate.scalar(connection, "PRAGMA user_version")
            if problems != ["ok"]:
                raise errors.ManifestUnusable(f"{path} is damaged: {'; '.join(problems)}")
            if owner != opening.APPLICATION_ID:
                raise errors.ManifestUnusable(f"{path} is the database of another program")
            if version > len(migrate.steps()):
                raise errors.ManifestUnusable(f"{path} has schema version {version}: install the newer worker")
            await migrate.check(connection, path, migrate.steps()[:version])
            return Contents(
                await migrate.scalar(connection, "SELECT count(*) FROM experiments"),
                await migrate.scalar(connection, "SELECT count(*) FROM runs"),
                await migrate.scalar(connection, "SELECT count(*) FROM runs WHERE finished_ms IS NOT NULL"),
            )
    except sqlite3.DatabaseError as error:
        raise errors.ManifestUnusable(f"{path} can't be read as a manifest: {error}") from error


def _check_readable(path: Path) -> None:
    """SQLite's own error for a file that it can't open is useless, and its thread then outlives the event loop."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise errors.FileUnreadable(f"{path} is not a file")
        path.open("rb").close()
    except FileNotFoundError as error:
        raise errors.FileUnreadable(f"{path} does not exist") from error
    except OSError as error:
        raise errors.FileUnreadable(f"{path} can't be read: {error.strerror}") from error


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise errors.FileUnwritable(f"{path} exists, and a backup never overwrites a file: name another")


@contextlib.contextmanager
def _whole_or_gone(copy: Path) -> Iterator[None]:
    """Removes what there is of a copy that fails."""
    try:
        yield
    except BaseException:  # also an interrupt by a person, who would take the rest for a copy
        for part in (copy, copy.with_name(f"{copy.name}.part")):
            with contextlib.suppress(OSError):  # it was not created, or the directory is read-only
                part.unlink()
        raise


def _move_aside(database: Path, at: str) -> Path | None:
    """Renames the database and its log, which may hold commits that the database file doesn't have yet."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.replaced-{at}")
    for suffix in ("", "-wal", "-shm"):
        part = database.with_name(database.name + suffix)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + suffix))
    return aside
