"""Work that goes on for as long as the worker does: should it end by itself, the worker ends with it, visibly."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from ems_worker import ending


async def supervise(name: str, work: Callable[[], Awaitable[object]]) -> NoReturn:
    """Does work that has no end, as a task of its own.

    A TaskGroup takes no notice of a child that returns or that was cancelled, which a foreign library may cause. So
    raises RuntimeError then; a worker without this part would look well and do half its work.
    """
    try:
        await work()
    except asyncio.CancelledError as error:
        if ending.of_task():
            raise
        raise RuntimeError(f"{name} was cancelled, and the worker isn't ending") from error
    raise RuntimeError(f"{name} has ended, and the worker isn't ending")
