"""The schema's versions. `PRAGMA user_version` counts them; each step is one transaction, after a backup.

The number alone doesn't tell a schema: until the first release, version 1 was another one. Its digest does.
"""

import functools
import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import aiosqlite

from ems_worker import errors


def steps() -> Sequence[str]:
    """The migrations of this package in order; the first creates a new database."""
    folder = resources.files(__package__).joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [file.read_text("utf-8") for file in files]


async def migrate(connection: aiosqlite.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Brings the database to the version of `migrations`.

    Raises errors.ManifestUnusable, with the remedy, if it is newer than that or has not the schema of its version.
    """
    version = await scalar(connection, "PRAGMA user_version")
    if version > len(migrations):
        raise errors.ManifestUnusable(
            f"{path} has schema version {version}, this worker knows up to {len(migrations)}: "
            "install the newer worker, or use another data directory"
        )
    await check(connection, path, migrations[:version])
    for number in range(version + 1, len(migrations) + 1):
        if version:  # a new database has nothing to lose
            await backup(connection, Path(f"{path}.v{number - 1}.backup"))
        try:
            await connection.executescript(
                f"BEGIN IMMEDIATE;\n{migrations[number - 1]}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except aiosqlite.Error as error:
            await connection.rollback()
            raise errors.ManifestUnusable(
                f"{path} could not be migrated to schema version {number} and is unchanged: {error}"
            ) from error


async def check(connection: aiosqlite.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Raises errors.ManifestUnusable if these migrations, all that it had, gave the database another schema.

    What they didn't create, such as an index that its owner added, doesn't matter.
    """
    expected = _schema(tuple(migrations))
    found = {
        (kind, name): text
        for kind, name, text in await connection.execute_fetchall("SELECT type, name, sql FROM sqlite_schema")
        if (kind, name) in expected
    }
    if _digest(found) != _digest(expected):
        raise errors.ManifestUnusable(
            f"{path} was created by a worker from before the first release, whose schema this one can't read (digest "
            f"{_digest(found)}, not {_digest(expected)}): export its experiments with that worker (ems export), then "
            f"move the file away together with {path.name}-wal and {path.name}-shm to begin with an empty manifest"
        )


@functools.lru_cache(maxsize=8)
def _schema(migrations: tuple[str, ...]) -> Mapping[tuple[str, str], str | None]:
    """What migrations create: the statement of each table, index and view, by its kind and name."""
    connection = sqlite3.connect(":memory:")
    try:
        for migration in migrations:
            connection.executescript(migration)
        rows = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    finally:
        connection.close()
    return {(kind, name): text for kind, name, text in rows}


def _digest(schema: Mapping[tuple[str, str], str | None]) -> str:
    """The beginning of the SHA-256 of a schema, which is enough to distinguish a few."""
    return hashlib.sha256(repr(sorted(schema.items())).encode()).hexdigest()[:12]


async def backup(source: aiosqlite.Connection, target: Path) -> None:
    """Copies the database to `target`, which is created, or replaced, only when the copy is complete."""
    part = f"{target}.part"
    os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    async with aiosqlite.connect(part) as copy:
        await source.backup(copy)
        # Without a write-ahead log the copy is a single file, which can be moved by itself.
        await copy.execute("PRAGMA journal_mode = DELETE")
    os.replace(part, target)


async def scalar(connection: aiosqlite.Connection, query: str) -> Any:
    """The single value of a query."""
    (row,) = await connection.execute_fetchall(query)
    return row[0]
