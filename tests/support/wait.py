"""Waits for a condition, or for a time. This is the only code in the tests that polls."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

_FIRST_POLL_SECONDS = 0.01
_LONGEST_POLL_SECONDS = 0.05


@overload
async def until(probe: Callable[[], Awaitable[T]], *, timeout: float = ..., what: str = ...) -> T: ...
@overload
async def until(probe: Callable[[], T], *, timeout: float = ..., what: str = ...) -> T: ...
async def until(probe: Callable[[], T | Awaitable[T]], *, timeout: float = 15.0, what: str = "") -> T:
    """Calls `probe`, plain or async, ever less often until its result is true; returns that result.

    Raises AssertionError after `timeout` seconds; its message names `what` and the last result.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_POLL_SECONDS
    while True:
        result = probe()
        value = cast("T", await result if inspect.isawaitable(result) else result)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s for {what or probe}; the last result was {value!r}")
        await asyncio.sleep(pause)
        pause = min(1.2 * pause, _LONGEST_POLL_SECONDS)


async def let_pass(seconds: float) -> None:
    """Lets time pass where the time is the subject of a test, such as an outage of that length."""
    await asyncio.sleep(seconds)
