"""How many calls are open at once: a semaphore whose size can be changed, and one that changes it by itself.

A call that takes long is set aside: it goes on, and others go on in its place. So many may be aside; beyond that, calls
keep their places however long they take.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ems_worker.core.lifecycle import aimd

# Calls aside, in times the window, and at most: a server in Python cancels calls when about a thousand are open.
_ASIDE_TIMES = 4
_MOST_ASIDE = 512
# How often it is looked whether a call takes too long: what that is changes with the answers to others.
_LOOK_SECONDS = 0.5


def _nobody() -> None:
    """For calls that nobody has to hear of when they are set aside."""


class Window:
    """Has at most `size` calls in it, and beside it at most `most_aside`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.most_aside = min(_ASIDE_TIMES * size, _MOST_ASIDE)
        self.aside = 0
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, size: int) -> None:
        """Takes effect at once for those who wait; those inside stay."""
        self.size = size
        self._admit()

    def place(self, patience_seconds: Callable[[], float], on_aside: Callable[[], None] = _nobody) -> "Place":
        """`async with window.place(...) as place:` waits until fewer than `size` others are inside.

        `patience_seconds`: how long the call may take before it is set aside, which `on_aside` hears.
        """
        return Place(self, patience_seconds, on_aside)

    async def enter(self) -> None:
        if self._inside < self.size and not self._waiting:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in self._waiting:
                    self._waiting.remove(turn)
                self._admit()
            else:
                self.leave()  # it had just got its place
            raise

    def leave(self) -> None:
        self._inside -= 1
        self._admit()

    def set_aside(self) -> bool:
        """Takes one of those inside out, if there is room aside; whether there was."""
        if self.aside >= self.most_aside:
            return False
        self.aside += 1
        self.leave()
        return True

    def _admit(self) -> None:
        while self._waiting and self._inside < self.size:
            turn = self._waiting.popleft()
            # One that was cancelled is still in the queue until its task has its turn.
            if not turn.done():
                self._inside += 1
                turn.set_result(None)


class Place:
    """A call's place in the window, for the time of the `async with`; `began`: when it got it, in the loop's time."""

    __slots__ = ("_on_aside", "_patience", "_timer", "_window", "aside", "began")

    def __init__(self, window: Window, patience_seconds: Callable[[], float], on_aside: Callable[[], None]) -> None:
        self._window = window
        self._patience = patience_seconds
        self._on_aside = on_aside
        self._timer: asyncio.TimerHandle | None = None
        self.aside = False
        self.began = 0.0

    async def __aenter__(self) -> "Place":
        await self._window.enter()
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self._timer = loop.call_later(_LOOK_SECONDS, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        if self.aside:
            self._window.aside -= 1
        else:
            self._window.leave()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self.began >= self._patience() and self._window.set_aside():
            self.aside = True
            self._on_aside()
        else:
            self._timer = loop.call_later(_LOOK_SECONDS, self._look)


class AdaptiveWindow(Window):
    """Between one and `most`, by what became of the calls; `core.aimd` has the rule."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._calls = aimd.full(most)
        self._shrunk_at = float("-inf")

    def patience_seconds(self, kind: str, longest: float) -> float:
        """How long a call of this kind may take before it is set aside."""
        return aimd.patience_seconds(self._calls, kind, longest)

    def answered(self, kind: str, began: float) -> None:
        """A call of this kind that began then has just had a good answer."""
        self._adopt(aimd.answered(self._calls, kind, _now() - began, began > self._shrunk_at))

    def unanswered(self, kind: str, began: float) -> None:
        """A call of this kind that began then had no answer in time."""
        self._adopt(aimd.unanswered(self._calls, kind, _now() - began, began > self._shrunk_at))

    def overloaded(self, began: float) -> None:
        """A call that began then was told to slow down.

        Of the calls that were open together only the first shrinks the window: they all met the same overload.
        """
        if began > self._shrunk_at:
            self._adopt(aimd.overloaded(self._calls))

    def _adopt(self, calls: aimd.CallWindow) -> None:
        if calls.size < self._calls.size:
            self._shrunk_at = _now()
        self._calls = calls
        self.resize(calls.calls)


def _now() -> float:
    return asyncio.get_running_loop().time()
