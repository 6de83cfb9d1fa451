"""The results of start calls, gathered so that answers that arrive within a short time are recorded together."""

import asyncio
import contextlib
from collections.abc import Iterable

from ems_worker.core.lifecycle.outcome import Call, Outcome

# How long the first answer waits for more.
_GATHER_SECONDS = 0.05


class Answers:
    """The answers to the start commands of these runs: `add` takes each call, `gathered` returns the calls so far.

    `late` has the runs whose calls are late, and `open` has the runs without any call, among those that `gathered` has
    returned.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.open = set(names)
        self.late: set[str] = set()
        self._expected = set(self.open)
        self._calls: list[Call] = []
        self._any = asyncio.Event()
        self._all = asyncio.Event()

    def add(self, call: Call) -> None:
        """Adds a call that ended, or is late."""
        self._calls.append(call)
        self._any.set()
        self._expected.difference_update([answer.simulation_id for answer in call.answers])
        if not self._expected:
            self._all.set()

    async def gathered(self) -> list[Call]:
        """The calls since the last time: at least one, and those that follow it shortly unless all are there."""
        await self._any.wait()
        if not self._all.is_set():
            # Not asyncio.wait_for: it loses a cancellation that arrives together with the answer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_SECONDS):
                    await self._all.wait()
        calls, self._calls = self._calls, []
        self._any.clear()
        for call in calls:
            names = [answer.simulation_id for answer in call.answers]
            self.open.difference_update(names)
            if call.answers[0].outcome is Outcome.LATE:
                self.late.update(names)
            else:
                self.late.difference_update(names)
        return calls
