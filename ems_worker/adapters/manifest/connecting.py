"""Connections to SQLite that are closed whatever becomes of whoever asked for one."""

import asyncio
from pathlib import Path
from typing import Any

import aiosqlite


async def connect(database: Path | str, **options: Any) -> aiosqlite.Connection:
    """As aiosqlite.connect, but a caller that is cancelled meanwhile leaves no connection behind.

    Its thread would tell of the opened database to an event loop that may be closed by then.
    """

    async def opened() -> aiosqlite.Connection:
        return await aiosqlite.connect(database, **options)

    opening = asyncio.create_task(opened())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await (await opening).close()
        raise
