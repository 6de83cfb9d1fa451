"""A log that survives a kill of its process, and of the machine."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path


class Log:
    """A log whose lines are on disk once `write` returns; waiting lines are written together."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._waiting: list[bytes] = []
        self._lock = asyncio.Lock()

    async def write(self, lines: Iterable[str]) -> None:
        self._waiting += [f"{line}\n".encode() for line in lines]
        async with self._lock:  # the previous holder may have written these lines already
            block, self._waiting = self._waiting, []
            if block:
                await asyncio.to_thread(self._sync, b"".join(block))

    def _sync(self, block: bytes) -> None:
        self._file.write(block)
        self._file.flush()
        os.fsync(self._file.fileno())
