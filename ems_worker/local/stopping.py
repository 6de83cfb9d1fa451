"""Ctrl-C and other signals that stop a command: they cancel its work, and a second one ends it at once."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

_INTERRUPTED = 130


def run_until_signal(work: Coroutine[Any, Any, int]) -> int | None:
    """Runs the work; its result, or None if a signal stopped it. A second signal ends the process at once."""
    return asyncio.run(_run_until_signal(work))


async def _run_until_signal(work: Coroutine[Any, Any, int]) -> int | None:
    task = asyncio.create_task(work)
    signalled = False

    def on_signal() -> None:
        nonlocal signalled
        if signalled:
            os._exit(_INTERRUPTED)  # the guardian ends the remaining processes
        signalled = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        if not signalled:
            raise
        return None
