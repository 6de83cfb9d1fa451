"""The schema's versions. `PRAGMA user_version` counts them; each step is one transaction, after a backup."""

import os
from collections.abc import Sequence
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
    """Brings the database to the version of `migrations`. Raises errors.ManifestUnusable if it is newer than that."""
    version = await scalar(connection, "PRAGMA user_version")
    if version > len(migrations):
        raise errors.ManifestUnusable(
            f"{path} has schema version {version}, this worker knows up to {len(migrations)}: "
            "install the newer worker, or use another data directory"
        )
    for number in range(version + 1, len(migrations) + 1):
        if number > 1:
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


async def backup(source: aiosqlite.Connection, target: Path) -> None:
    """Copies the database to `target`, which is created, or replaced, only when the copy is complete."""
    part = f"{target}.part"
    os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    async with aiosqlite.connect(part) as copy:
        await source.backup(copy)
        # A copy is one file: whoever moves it would leave its log behind.
        await copy.execute("PRAGMA journal_mode = DELETE")
    os.replace(part, target)


async def scalar(connection: aiosqlite.Connection, query: str) -> Any:
    """The single value of a query."""
    (row,) = await connection.execute_fetchall(query)
    return row[0]
