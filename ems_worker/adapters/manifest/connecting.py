"""Connections to SQLite that are closed even if their caller is cancelled while they open."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

_T = TypeVar("_T")
# aiosqlite's default: how many rows an iteration fetches at once.
_ITER_CHUNK = 64


class Connection(aiosqlite.Connection):
    """aiosqlite's connection, which can also run several statements in one go on its thread."""

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `work` returns. Handing over each statement by itself takes longer than most statements."""
        return cast("_T", await self._execute(work, self._conn))  # type: ignore[no-untyped-call]


async def connect(database: Path | str, **options: Any) -> Connection:
    """Like aiosqlite.connect, but a caller that is cancelled meanwhile leaves no connection behind.

    The connection's thread would hand it to an event loop that may be closed by then.
    """

    async def connected() -> Connection:
        connection = Connection(lambda: sqlite3.connect(database, **options), _ITER_CHUNK)
        return cast("Connection", await connection)

    opening = asyncio.create_task(connected())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await (await opening).close()
        raise
