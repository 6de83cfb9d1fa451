"""What start calls have come to, gathered: many answers that come one by one are recorded together."""

import asyncio
import contextlib
from collections.abc import Iterable

from ems_worker.core.lifecycle.outcome import Call, Outcome

# How long the first answer waits for others.
_GATHER_SECONDS = 0.05


class Answers:
    """To the commands that start these runs: `tell` hears of each call, `gathered` passes them on.

    Of those that were passed on, `open` has the runs without an answer, `late` those whose calls were set aside.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.open = set(names)
        self.late: set[str] = set()
        self._expected = set(self.open)
        self._calls: list[Call] = []
        self._some = asyncio.Event()
        self._all = asyncio.Event()

    def tell(self, call: Call) -> None:
        """A call has ended, or was set aside."""
        self._calls.append(call)
        self._some.set()
        self._expected.difference_update([answer.simulation_id for answer in call.answers])
        if not self._expected:
            self._all.set()

    async def gathered(self) -> list[Call]:
        """The next calls: a moment after the first of them, unless each run has an answer, or is late, already."""
        await self._some.wait()
        if not self._all.is_set():
            # Not asyncio.wait_for: where the answer and a cancellation meet, it loses the cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_SECONDS):
                    await self._all.wait()
        calls, self._calls = self._calls, []
        self._some.clear()
        for call in calls:
            names = [answer.simulation_id for answer in call.answers]
            self.open.difference_update(names)
            if call.answers[0].outcome is Outcome.LATE:
                self.late.update(names)
            else:
                self.late.difference_update(names)
        return calls
