"""Ctrl-C and other signals that stop a command: they cancel its work, and a second one ends it at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Starts the work of a command.
Work = Callable[[], Coroutine[Any, Any, int]]


def run_until_signal(work: Work) -> int | None:
    """Runs the work; its result, or None if a signal stopped it. A second signal ends the process at once."""
    # A signal that comes before the loop has its handlers waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return asyncio.run(_run_until_signal(work))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


async def _run_until_signal(work: Work) -> int | None:
    task = asyncio.create_task(work())
    signalled = False

    def on_signal() -> None:
        nonlocal signalled
        if signalled:
            os._exit(_INTERRUPTED)  # the guardian ends the remaining processes
        signalled = True
        task.cancel()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        return await task
    except asyncio.CancelledError:
        if not signalled:
            raise
        return None
