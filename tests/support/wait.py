"""Waiting for a condition: the one place in the tests that polls."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

_POLL_SECONDS = 0.01


@overload
async def until(probe: Callable[[], Awaitable[T]], *, timeout: float = ..., what: str = ...) -> T: ...
@overload
async def until(probe: Callable[[], T], *, timeout: float = ..., what: str = ...) -> T: ...
async def until(probe: Callable[[], T | Awaitable[T]], *, timeout: float = 15.0, what: str = "") -> T:
    """Calls `probe` (plain or async) again and again until it gives something true, and gives that back.

    Raises AssertionError after `timeout` seconds, with `what` was awaited and what the probe gave last.
    """
    deadline = time.monotonic() + timeout
    while True:
        given = probe()
        value = cast("T", await given if inspect.isawaitable(given) else given)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s for {what or probe}, the last look gave {value!r}")
        await asyncio.sleep(_POLL_SECONDS)
