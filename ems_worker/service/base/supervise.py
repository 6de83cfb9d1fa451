"""Work that runs for the life of the worker: if it ends by itself, the worker ends with an error."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from ems_worker import ending


async def supervise(name: str, work: Callable[[], Awaitable[object]]) -> NoReturn:
    """Runs work that has no end, in a task of its own. Raises RuntimeError if it ends all the same.

    A TaskGroup ignores a child that returns or was cancelled, which may happen inside a library. Without the error the
    worker would continue without this part and look healthy.
    """
    try:
        await work()
    except asyncio.CancelledError as error:
        if ending.of_task():
            raise
        raise RuntimeError(f"{name} was cancelled, and the worker isn't ending") from error
    raise RuntimeError(f"{name} has ended, and the worker isn't ending")
