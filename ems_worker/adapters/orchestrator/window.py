"""A semaphore whose size can be changed."""

import asyncio
from collections import deque


class Window:
    """`async with window:` waits until fewer than `size` others are inside."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, size: int) -> None:
        """Takes effect at once for those who wait; those inside stay."""
        self._size = size
        self._admit()

    async def __aenter__(self) -> None:
        if self._inside < self._size and not self._waiting:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._inside < self._size:
            turn = self._waiting.popleft()
            self._inside += 1
            turn.set_result(None)
