"""How many calls are open at once: a semaphore that can be resized, and one that resizes itself.

A slow call is set aside: it continues, and another call takes its slot. The number of calls aside is limited; beyond
it, slow calls keep their slots.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ems_worker.core.lifecycle import aimd

# The limit of calls aside, as a multiple of the window's size, and in all: a grpc.aio server in Python cancels calls
# when about a thousand are open.
ASIDE_FACTOR = 4
_MAX_ASIDE = 512
# How often we check whether a call is slow; what counts as slow changes with the answers to other calls.
CHECK_SECONDS = 0.5


def _ignore() -> None:
    """For calls whose setting aside needs no report."""


class Window:
    """Holds at most `size` calls, and at most `max_aside` calls beside them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.max_aside = min(ASIDE_FACTOR * size, _MAX_ASIDE)
        self.aside = 0
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        # The slots of calls, oldest first, and the next time at which they are checked.
        self._slots: dict[Slot, None] = {}
        self._next_check: asyncio.TimerHandle | None = None

    def resize(self, size: int) -> None:
        """Changes the size, at once for calls that wait; calls inside stay."""
        self.size = size
        self._admit()

    def slot(self, patience_seconds: Callable[[], float], on_aside: Callable[[], None] = _ignore) -> "Slot":
        """`async with window.slot(...) as slot:` waits until fewer than `size` calls are inside.

        `patience_seconds` is how long the call may take before it is set aside, which calls `on_aside`.
        """
        return Slot(self, patience_seconds, on_aside)

    async def enter(self) -> None:
        """Waits for a free slot and takes it."""
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
                self.leave()  # it had just got its slot
            raise

    def leave(self) -> None:
        """Frees a slot."""
        self._inside -= 1
        self._admit()

    def began(self, slot: "Slot") -> None:
        """A call got its slot. One timer checks all calls, because most take only a moment."""
        self._slots[slot] = None
        if self._next_check is None:
            self._next_check = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check)

    def ended(self, slot: "Slot") -> None:
        """A call ended."""
        del self._slots[slot]
        if slot.aside:
            self.aside -= 1
        else:
            self.leave()

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for slot in list(self._slots):
            if now - slot.began < CHECK_SECONDS:
                break
            slot.check(now)
        self._next_check = loop.call_later(CHECK_SECONDS, self._check) if self._slots else None

    def set_aside(self) -> bool:
        """Moves a call from inside to aside if there is room; whether there was."""
        if self.aside >= self.max_aside:
            return False
        self.aside += 1
        self.leave()
        return True

    def _admit(self) -> None:
        while self._waiting and self._inside < self.size:
            turn = self._waiting.popleft()
            # A cancelled waiter stays in the queue until its task runs.
            if not turn.done():
                self._inside += 1
                turn.set_result(None)


class Slot:
    """A call's slot in the window, for the duration of the `async with`. It `began` at that time of the event loop."""

    __slots__ = ("_on_aside", "_patience", "_window", "aside", "began")

    def __init__(self, window: Window, patience_seconds: Callable[[], float], on_aside: Callable[[], None]) -> None:
        self._window = window
        self._patience = patience_seconds
        self._on_aside = on_aside
        self.aside = False
        self.began = 0.0

    async def __aenter__(self) -> "Slot":
        await self._window.enter()
        self.began = asyncio.get_running_loop().time()
        self._window.began(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._window.ended(self)

    def check(self, now: float) -> None:
        """Sets the call aside if it is slow, and there is room for it."""
        if not self.aside and now - self.began >= self._patience() and self._window.set_aside():
            self.aside = True
            self._on_aside()


class AdaptiveWindow(Window):
    """A window that sizes itself between 1 and `max_size` by the results of calls; `core.aimd` has the rule."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self._calls = aimd.full(max_size)
        self._shrunk_at = float("-inf")

    def patience_seconds(self, kind: str, max_seconds: float) -> float:
        """How long a call of this kind may take before it is set aside; `max_seconds` is the upper limit."""
        return aimd.patience_seconds(self._calls, kind, max_seconds)

    def answered(self, kind: str, began: float) -> None:
        """A call of this kind that began at this time has just got a good answer."""
        self._adopt(aimd.answered(self._calls, kind, _now() - began, began > self._shrunk_at))

    def unanswered(self, kind: str, began: float) -> None:
        """A call of this kind that began at this time got no answer in time."""
        self._adopt(aimd.unanswered(self._calls, kind, _now() - began, began > self._shrunk_at))

    def overloaded(self, began: float) -> None:
        """The answer to a call that began at this time was to slow down.

        Of the calls that were open together only the first shrinks the window, because they met the same overload.
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
