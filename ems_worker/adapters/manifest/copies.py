"""Backups of a manifest and their return: copied while the worker runs, checked before they count as one."""

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

    Raises errors.FileUnreadable where there is no manifest, errors.FileUnwritable where the target exists or can't be
    made, errors.ManifestUnusable where the manifest is damaged or the copy is not whole; then nothing is left of it.
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
    """Puts a backup in the manifest's place; what was there is moved aside, and its new name returned.

    The next start of the worker replays the streams from before the backup. `at` names the moment, for the file that
    is moved aside. Raises errors.ManifestUnusable while a worker runs, or where the backup is damaged or newer,
    errors.FileUnreadable where it is no file, errors.FileUnwritable where nothing can be put there; then nothing has
    changed.
    """
    _check_readable(backup)
    contents = await inspect(backup)
    # On a new machine there is nothing yet, not even the directory.
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


def _check_readable(path: Path) -> None:
    """What SQLite says of a file that it can't open helps nobody, and its thread outlives the event loop then."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise errors.FileUnreadable(f"{path} is no file")
        path.open("rb").close()
    except FileNotFoundError as error:
        raise errors.FileUnreadable(f"there is no {path}") from error
    except OSError as error:
        raise errors.FileUnreadable(f"{path} can't be read: {error.strerror}") from error


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise errors.FileUnwritable(f"{path} exists; a backup never overwrites anything: name another file")


@contextlib.contextmanager
def _whole_or_gone(copy: Path) -> Iterator[None]:
    """Nothing is left of a copy that could not be completed."""
    try:
        yield
    except BaseException:
        for part in (copy, copy.with_name(f"{copy.name}.part")):
            with contextlib.suppress(OSError):  # it was never there, or nothing can be changed there
                part.unlink()
        raise


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
