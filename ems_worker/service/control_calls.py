"""Control commands under way: one for a run at a time, and a bounded number in all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ems_worker.service.ledger.live import RunKey

# How many control commands are open at once.
AT_ONCE = 32


class ControlCalls:
    """Tasks that send control commands, each for one run. An unanswered one must not delay those for other runs."""

    def __init__(self) -> None:
        self._tasks: dict[RunKey, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def under_way(self, key: RunKey) -> bool:
        """Whether a command for this run waits to be sent, or for its answer."""
        return key in self._tasks

    async def send(self, keys: Sequence[RunKey], call: Callable[[RunKey], Awaitable[None]], patience: float) -> None:
        """Begins a call for each of these runs, and waits up to `patience` seconds until all have ended."""

        async def gated(key: RunKey) -> None:
            async with self._gate:
                await call(key)

        if keys:
            self._tasks |= {key: asyncio.create_task(gated(key)) for key in keys}
            await asyncio.wait([self._tasks[key] for key in keys], timeout=patience)
        self.collect()

    def collect(self) -> None:
        """Removes the calls that have ended, and raises their errors."""
        for key in [key for key, task in self._tasks.items() if task.done()]:
            self._tasks.pop(key).result()

    def cancel(self) -> None:
        """Ends all calls."""
        for task in self._tasks.values():
            task.cancel()
