"""Locks by key, which exist only while they are in use."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(slots=True)
class _Used:
    """A lock, and how many tasks hold it or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class KeyedLocks(Generic[_Key]):
    """One lock for each key: tasks with the same key exclude each other."""

    def __init__(self) -> None:
        self._used: dict[_Key, _Used] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: _Key) -> AsyncIterator[None]:
        """Holds the lock of this key for the block."""
        used = self._used.setdefault(key, _Used())
        used.users += 1
        try:
            async with used.lock:
                yield
        finally:
            used.users -= 1
            # Not as soon as the lock is free: a task that waits for it would hold another one than those after it.
            if not used.users:
                del self._used[key]
