"""Backups of a manifest and their return: copied while the worker runs, checked before they count as one."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import lock, migrate, opening

# The fact that a restored manifest carries until a worker has caught up with what came after its backup.
RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a manifest holds, to tell one copy from another."""

    experiments: int
    runs: int
    ended_runs: int


async def take(database: Path, target: Path) -> Contents:
    """Copies the manifest to `target` while a worker may be running, and checks the copy.

    Raises errors.ManifestUnusable where there is none, it can't be read, or the copy is not whole; then there is no
    target.
    """
    _check_there(database)
    _check_free(target)
    try:
        async with aiosqlite.connect(f"file:{database}?mode=ro", uri=True) as source:
            await migrate.backup(source, target)
        return await inspect(target)
    except (OSError, aiosqlite.Error) as error:
        _drop(target)
        raise errors.ManifestUnusable(f"{database} could not be copied to {target}: {error}") from error
    except errors.ManifestUnusable:
        _drop(target)
        raise


async def restore(database: Path, backup: Path, at: str) -> tuple[Contents, Path | None]:
    """Puts a backup in the manifest's place; what was there is moved aside, and its new name returned.

    The next start of the worker replays the streams from before the backup. `at` names the moment, for the file that
    is moved aside. Raises errors.ManifestUnusable while a worker runs, or where the backup is damaged or newer; then
    nothing has changed.
    """
    _check_there(backup)
    contents = await inspect(backup)
    # On a new machine there is nothing yet, not even the directory.
    opening.make_directory(database.parent)
    with lock.exclusive(database):
        fresh = database.with_name(f"{database.name}.restoring")
        _drop(fresh)
        try:
            async with aiosqlite.connect(f"file:{backup}?mode=ro", uri=True) as source:
                await migrate.backup(source, fresh)
            async with aiosqlite.connect(fresh) as copy:
                await copy.execute("INSERT OR REPLACE INTO remembered (name, value) VALUES (?, ?)", (RESTORED, at))
                await copy.commit()
        except (OSError, aiosqlite.Error) as error:
            _drop(fresh)
            raise errors.ManifestUnusable(f"{backup} could not be restored: {error}") from error
        aside = _move_aside(database, at)
        os.replace(fresh, database)
    return contents, aside


async def inspect(path: Path) -> Contents:
    """Checks a file that is to be a manifest. Raises errors.ManifestUnusable with what is wrong."""
    try:
        async with aiosqlite.connect(f"file:{path}?mode=ro", uri=True) as connection:
            problems = [row[0] for row in await connection.execute_fetchall("PRAGMA quick_check(5)")]
            owner = await migrate.scalar(connection, "PRAGMA application_id")
            version = await migrate.scalar(connection, "PRAGMA user_version")
            if problems != ["ok"]:
                raise errors.ManifestUnusable(f"{path} is damaged: {'; '.join(problems)}")
            if owner != opening.APPLICATION_ID:
                raise errors.ManifestUnusable(f"{path} is another program's database")
            if version > len(migrate.steps()):
                raise errors.ManifestUnusable(f"{path} is of schema version {version}: install the newer worker")
            return Contents(
                await migrate.scalar(connection, "SELECT count(*) FROM experiments"),
                await migrate.scalar(connection, "SELECT count(*) FROM runs"),
                await migrate.scalar(connection, "SELECT count(*) FROM runs WHERE finished_ms IS NOT NULL"),
            )
    except sqlite3.DatabaseError as error:
        raise errors.ManifestUnusable(f"{path} can't be read as a manifest: {error}") from error


def _check_there(path: Path) -> None:
    if not path.exists():
        raise errors.ManifestUnusable(f"there is no {path}")


def _check_free(path: Path) -> None:
    if path.exists():
        raise errors.ManifestUnusable(f"{path} exists; a backup never overwrites anything: name another file")


def _drop(path: Path) -> None:
    path.unlink(missing_ok=True)


def _move_aside(database: Path, at: str) -> Path | None:
    """The database with its log, which may hold commits that it doesn't have itself yet, under another name."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.replaced-{at}")
    for suffix in ("", "-wal", "-shm"):
        part = database.with_name(database.name + suffix)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + suffix))
    return aside
