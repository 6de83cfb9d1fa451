"""How many calls are open at once: a semaphore whose size can be changed, and one that changes it by itself."""

import asyncio
from collections import deque

from ems_worker.core import aimd


class Window:
    """`async with window as began:` waits until fewer than `size` others are inside; `began`: the loop's time then."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, size: int) -> None:
        """Takes effect at once for those who wait; those inside stay."""
        self.size = size
        self._admit()

    async def __aenter__(self) -> float:
        if self._inside < self.size and not self._waiting:
            self._inside += 1
            return _now()
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
        return _now()

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._inside < self.size:
            turn = self._waiting.popleft()
            self._inside += 1
            turn.set_result(None)


class AdaptiveWindow(Window):
    """Between one and `most`, by what became of the calls; `core.aimd` has the rule."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._calls = aimd.full(most)
        self._shrunk_at = float("-inf")

    def answered(self, kind: str, began: float) -> None:
        """A call of this kind that began then has just had a good answer."""
        self._adopt(aimd.answered(self._calls, kind, _now() - began))

    def overloaded(self, began: float) -> None:
        """A call that began then was told to slow down, or had no answer in time.

        Of the calls that were open together only the first shrinks the window: they all met the same overload.
        """
        if began > self._shrunk_at:
            self._shrunk_at = _now()
            self._adopt(aimd.overloaded(self._calls))

    def _adopt(self, calls: aimd.CallWindow) -> None:
        self._calls = calls
        self.resize(calls.calls)


def _now() -> float:
    return asyncio.get_running_loop().time()
