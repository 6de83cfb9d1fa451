"""Whether start commands get through to the orchestrator: which wait for an answer, and what is wrong, in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from ems_worker.core.lifecycle import delivery
from ems_worker.core.lifecycle.delivery import Delivery, Trouble
from ems_worker.core.lifecycle.outcome import Answer, Call
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import PointRecord
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()

# What calls have met is news for so long, if nothing waits for an answer any more.
_NEWS_SECONDS = 30.0

Claimed = tuple[Live, Run, PointRecord]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A run whose start has had no answer that settles it since then (monotonic seconds); `answer`: the last one."""

    claimed: Claimed
    since: float
    answer: Answer


class Reach:
    """What is known of the orchestrator by the commands that were sent to it."""

    def __init__(self, ledger: Ledger, orchestrator: Orchestrator, clock: Clock, on_relief: Callable[[], None]) -> None:
        """`on_relief` hears that commands get through again."""
        self._ledger = ledger
        self._orchestrator = orchestrator
        self._clock = clock
        self._on_relief = on_relief
        self._waiting: dict[str, _Waiting] = {}
        self._delivery = Delivery()
        self._heard = self._claimed = float("-inf")
        self._was_stuck = False

    @property
    def stuck(self) -> bool:
        """Whether commands can't be delivered now. Those that wait to be sent again find out when they can."""
        # In this order: to look who waits takes longer, and may find that it isn't stuck.
        return self._delivery.stuck and bool(self._who_waits()) and self._delivery.stuck

    def room(self, room: int) -> int:
        """How many runs may be claimed of those with room: hardly any while commands can't be delivered."""
        if room > 0 and self.stuck:
            return delivery.room(self._delivery, room, self._clock.monotonic() - self._claimed)
        return room

    def claimed(self) -> None:
        """Runs were claimed."""
        self._claimed = self._clock.monotonic()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the orchestrator, in words; None if nothing is."""
        met = self._delivery.trouble
        if met is not Trouble.REFUSING and (cause := self._orchestrator.away) is not None:
            return f"the orchestrator can't be reached: {cause}"
        waiting = self._seconds(self._who_waits()) if met is not None else ()
        if not waiting and self._clock.monotonic() - self._heard > _NEWS_SECONDS:
            return None
        words = delivery.reason(self._delivery, waiting)
        return f"{words}; no more calls can wait beside others" if words and self._orchestrator.crowded else words

    def waits(self, live: Live) -> str | None:
        """How many starts of this experiment have waited how long for an answer; None if it isn't worth a word."""
        mine = [one for one in self._who_waits() if one.claimed[0] is live]
        words = delivery.waits(self._seconds(mine))
        last = next((f"{one.answer.code}: {one.answer.message}" for one in reversed(mine) if one.answer.code), None)
        return f"{words} ({last})" if words and last else words

    def last_code(self, name: str) -> str | None:
        """The code of the last answer to a run that waits for another one."""
        one = self._waiting.get(name)
        return None if one is None else one.answer.code

    def hear(self, call: Call) -> None:
        """A call has ended, or was set aside."""
        before, self._delivery = self._delivery, delivery.heard(self._delivery, call)
        self._heard = self._clock.monotonic()
        now = self._delivery
        if now.trouble is Trouble.REFUSING and (before.trouble, before.words) != (now.trouble, now.words):
            log.error("dispatch.halted", words=now.words)

    def wait(self, name: str, claimed: Claimed, since: float, answer: Answer) -> None:
        """The start of a run, first sent at `since`, has this answer, which doesn't settle it."""
        before = self._waiting.get(name)
        self._waiting[name] = _Waiting(claimed, since if before is None else before.since, answer)

    def forget(self, name: str) -> None:
        """The run waits no more."""
        self._waiting.pop(name, None)

    def look(self) -> None:
        """Tells when commands get through again."""
        before, self._was_stuck = self._was_stuck, self.stuck
        if before and not self._was_stuck:
            log.info("dispatch.recovered")
            self._on_relief()

    def is_open(self, claimed: Claimed) -> bool:
        """Whether no event has moved the run on since it was claimed."""
        live, run, _ = claimed
        now = self._ledger.run((live.key, run.point, run.replicate, run.attempt))
        return now is not None and now.state is run.state

    def _who_waits(self) -> Sequence[_Waiting]:
        moved_on = [name for name, one in self._waiting.items() if not self.is_open(one.claimed)]
        for name in moved_on:
            del self._waiting[name]
        if moved_on:
            # An event of a run shows that its command arrived.
            self._delivery = delivery.alive(self._delivery)
        return list(self._waiting.values())

    def _seconds(self, waiting: Sequence[_Waiting]) -> list[float]:
        now = self._clock.monotonic()
        return [now - one.since for one in waiting]
