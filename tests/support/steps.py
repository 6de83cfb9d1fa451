"""Budgets of work, counted in steps: the same on every machine, however busy it is."""

import asyncio
import contextlib
import cProfile
import sys
from collections.abc import AsyncIterator, Callable
from types import FrameType

from tests.support.desk import background


def of(action: Callable[[], object]) -> int:
    """How many function calls the action makes in this thread: Python's and C's, and each resumption of a generator."""
    profiler = cProfile.Profile(subcalls=False)
    profiler.runcall(action)
    return sum(entry.callcount for entry in profiler.getstats())


@contextlib.asynccontextmanager
async def between_turns() -> AsyncIterator[Callable[[], int]]:
    """The most calls that the event loop's thread made between two turns of a task that wants one each millisecond."""
    made = longest = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    async def tick() -> None:
        nonlocal longest
        while True:
            before = made
            await asyncio.sleep(0.001)
            longest = max(longest, made - before)

    async with background(tick()):
        profile = sys.getprofile()
        sys.setprofile(count)
        try:
            yield lambda: longest
        finally:
            sys.setprofile(profile)
