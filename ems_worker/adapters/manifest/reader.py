"""Connections that only read. Each query is one statement, and so sees one state of the manifest, wholly committed."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import connecting
from ems_worker.adapters.manifest.queries import READS
from ems_worker.adapters.manifest.rows import Row

CHUNK_ROWS = 2000


class Reader:
    """One read-only connection. While a query streams others wait: they would see the state that it sees."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self._lock = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> "Reader":
        return cls(await connecting.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None))

    async def close(self) -> None:
        """Ends a query that runs; its caller, and those that wait, get errors.ManifestUnusable. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        await self.connection.interrupt()
        async with self._lock:
            await self.connection.close()

    async def all(self, name: str, /, **values: Any) -> list[Row]:
        """All rows of a query. Raises errors.ManifestUnusable if the database can't be read."""
        try:
            async with self._lock:
                self._check()
                return _rows(await self.connection.execute_fetchall(READS[name].text, values))
        except aiosqlite.Error as error:
            raise _ours(error) from error

    async def one(self, name: str, /, **values: Any) -> Row | None:
        rows = await self.all(name, **values)
        return rows[0] if rows else None

    async def stream(self, name: str, values: Mapping[str, Any]) -> AsyncGenerator[list[Row], None]:
        """The rows of a query in chunks. Close it (contextlib.aclosing): others wait for that."""
        try:
            async with self._lock:
                self._check()
                async with self.connection.execute(READS[name].text, values) as cursor:
                    while rows := _rows(await cursor.fetchmany(CHUNK_ROWS)):
                        yield rows
        except aiosqlite.Error as error:
            raise _ours(error) from error

    def _check(self) -> None:
        if self._closed:
            raise errors.ManifestUnusable("the manifest is closed")


def _ours(error: aiosqlite.Error) -> errors.ManifestUnusable:
    return errors.ManifestUnusable(f"the manifest could not be read: {error}")


def _rows(found: Iterable[Any]) -> list[Row]:
    """aiosqlite calls them sqlite3.Row, but without a row factory they are plain tuples."""
    return list(found)
