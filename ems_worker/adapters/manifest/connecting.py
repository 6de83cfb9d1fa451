"""Connections to SQLite that are closed even if their caller is cancelled while they open."""

import asyncio
from pathlib import Path
from typing import Any

import aiosqlite


async def connect(database: Path | str, **options: Any) -> aiosqlite.Connection:
    """Like aiosqlite.connect, but a caller that is cancelled meanwhile leaves no connection behind.

    The connection's thread would hand it to an event loop that may be closed by then.
    """

    async def connected() -> aiosqlite.Connection:
        return await aiosqlite.connect(database, **options)

    opening = asyncio.create_task(connected())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await (await opening).close()
        raise
