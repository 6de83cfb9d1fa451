"""Connections that only read. Each query is one statement, so it sees one committed state of the manifest."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import connecting
from ems_worker.adapters.manifest.queries import READS
from ems_worker.adapters.manifest.reads import Read

_Row = TypeVar("_Row", bound=tuple[object, ...])


class ReadConnection:
    """One read-only connection. Its queries run one after another."""

    def __init__(self, connection: connecting.Connection, counts: Counter[str]) -> None:
        """`counts`: how often each query ran, which this connection adds to."""
        self.connection = connection
        self._counts = counts
        self._lock = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, counts: Counter[str]) -> "ReadConnection":
        uri = f"file:{quote(str(path))}?mode=ro"
        return cls(await connecting.connect(uri, uri=True, isolation_level=None), counts)

    async def close(self) -> None:
        """Interrupts a query that is running: it and those waiting raise errors.ManifestUnusable. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        await self.connection.interrupt()
        async with self._lock:
            await self.connection.close()

    async def all(self, read: Read[_Row], /, **values: Any) -> list[_Row]:
        """All rows of a query. Raises errors.ManifestUnusable if the database can't be read."""
        return _named(read, await self._fetch(read.name, values))

    async def one(self, read: Read[_Row], /, **values: Any) -> _Row | None:
        """The first row of a query; None if there is none."""
        rows = await self.all(read, **values)
        return rows[0] if rows else None

    async def together(self, *queries: tuple[Read[Any], Mapping[str, Any]]) -> list[list[Any]]:
        """The rows of some queries, which see the same committed state.

        A caller that is cancelled leaves them running: a transaction that stays open would hide later commits.
        """
        return await asyncio.shield(asyncio.create_task(self._together(queries)))

    async def value(self, name: str, /, **values: Any) -> Any:
        """The single value that a query is for; None if it is null or there is no row."""
        rows = list(await self._fetch(name, values))
        return rows[0][0] if rows else None

    async def _together(self, queries: Sequence[tuple[Read[Any], Mapping[str, Any]]]) -> list[list[Any]]:
        try:
            async with self._lock:
                for read, _ in queries:
                    self._begin(read.name)
                found = await self.connection.run(partial(_read_together, queries=queries))
        except aiosqlite.Error as error:
            raise _translated(error) from error
        return [_named(read, rows) for (read, _), rows in zip(queries, found, strict=True)]

    async def _fetch(self, name: str, values: Mapping[str, Any]) -> Iterable[Any]:
        try:
            async with self._lock:
                self._begin(name)
                return await self.connection.execute_fetchall(READS[name].text, values)
        except aiosqlite.Error as error:
            raise _translated(error) from error

    def _begin(self, name: str) -> None:
        if self._closed:
            raise errors.ManifestUnusable("the manifest is closed")
        self._counts[name] += 1


def _read_together(
    connection: sqlite3.Connection, queries: Sequence[tuple[Read[Any], Mapping[str, Any]]]
) -> list[list[Any]]:
    connection.execute("BEGIN")
    try:
        return [connection.execute(READS[read.name].text, values).fetchall() for read, values in queries]
    finally:
        connection.execute("COMMIT")


def _translated(error: aiosqlite.Error) -> errors.ManifestUnusable:
    return errors.ManifestUnusable(f"the manifest could not be read: {error}")


def _named(read: Read[_Row], rows: Iterable[Any]) -> list[_Row]:
    """Gives the values of each row their names. tuple.__new__ takes half the time of a NamedTuple's `_make`."""
    return list(map(partial(cast("Any", tuple.__new__), read.row), rows))
