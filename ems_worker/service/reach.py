"""Whether start commands get through to the orchestrator: which ones wait for an answer, and what the problem is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from ems_worker.core import ids
from ems_worker.core.lifecycle import delivery
from ems_worker.core.lifecycle.delivery import Delivery, Obstacle
from ems_worker.core.lifecycle.outcome import Answer, Call
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import PointRecord
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey

log = structlog.get_logger()

# How long the result of the last call is reported as a problem if no command waits for an answer any more.
_RECENT_SECONDS = 30.0


class Claimed(NamedTuple):
    """A run that is claimed, as it was then, with its keys."""

    live: Live
    run: Run
    point: PointRecord
    key: RunKey
    name: str

    @classmethod
    def of(cls, live: Live, run: Run, point: PointRecord) -> "Claimed":
        name = ids.simulation_id(live.experiment_id, run.point, run.replicate, run.attempt)
        return cls(live, run, point, (live.key, run.point, run.replicate, run.attempt), name)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A run whose start waits, since that monotonic time, for an answer that settles it. `answer`: its last answer."""

    claimed: Claimed
    since: float
    answer: Answer


class Reach:
    """What the start commands show about the orchestrator."""

    def __init__(self, ledger: Ledger, orchestrator: Orchestrator, clock: Clock, on_relief: Callable[[], None]) -> None:
        """`on_relief` is called when commands get through again."""
        self._ledger = ledger
        self._orchestrator = orchestrator
        self._clock = clock
        self._on_relief = on_relief
        self._waiting: dict[str, _Waiting] = {}
        self._delivery = Delivery()
        self._last_call = self._last_claim = float("-inf")
        self._was_stuck = False

    @property
    def stuck(self) -> bool:
        """Whether new commands can't be delivered now. Commands that are sent again show when they can."""
        # The first check is cheap. Finding the waiting runs may clear the obstacle, hence the second one.
        return self._delivery.stuck and bool(self._waiting_runs()) and self._delivery.stuck

    def room(self, room: int) -> int:
        """How many runs may be claimed if the window has room for `room`: next to none while commands are stuck."""
        if room > 0 and self.stuck:
            return delivery.room(self._delivery, room, self._clock.monotonic() - self._last_claim)
        return room

    def runs_claimed(self) -> None:
        """Notes that runs were claimed."""
        self._last_claim = self._clock.monotonic()

    @property
    def problem(self) -> str | None:
        """What the problem with the orchestrator is, for people; None if there is none."""
        obstacle = self._delivery.obstacle
        if obstacle is not Obstacle.REFUSING and (cause := self._orchestrator.away) is not None:
            return f"the orchestrator can't be reached: {cause}"
        waiting = self._seconds(self._waiting_runs()) if obstacle is not None else ()
        if not waiting and self._clock.monotonic() - self._last_call > _RECENT_SECONDS:
            return None
        reason = delivery.reason(self._delivery, waiting)
        if reason and self._orchestrator.crowded:
            return f"{reason}; so many calls are unanswered that new ones have to wait for them"
        return reason

    def waits(self, live: Live) -> str | None:
        """How many starts of this experiment have waited how long for an answer; None if none has waited long."""
        mine = [waiting for waiting in self._waiting_runs() if waiting.claimed.live is live]
        waits = delivery.waits(self._seconds(mine))
        answers = [waiting.answer for waiting in mine if waiting.answer.code]
        return f"{waits} ({answers[-1].code}: {answers[-1].message})" if waits and answers else waits

    def last_code(self, name: str) -> str | None:
        """The code of the last answer to a run that waits for another one."""
        waiting = self._waiting.get(name)
        return None if waiting is None else waiting.answer.code

    def call_ended(self, call: Call) -> None:
        """Notes the result of a call that ended, or is late."""
        before, self._delivery = self._delivery, delivery.call_ended(self._delivery, call)
        self._last_call = self._clock.monotonic()
        after = self._delivery
        changed = (before.obstacle, before.message) != (after.obstacle, after.message)
        if after.obstacle is Obstacle.REFUSING and changed:
            log.error("dispatch.halted", words=after.message)

    def wait(self, name: str, claimed: Claimed, since: float, answer: Answer) -> None:
        """Notes that a run, first sent at `since`, got an answer that doesn't settle it."""
        before = self._waiting.get(name)
        self._waiting[name] = _Waiting(claimed, since if before is None else before.since, answer)

    def stop_waiting(self, name: str) -> None:
        """Notes that the run waits for no answer any more."""
        self._waiting.pop(name, None)

    def check(self) -> None:
        """Calls `on_relief` if commands got through again since the last check."""
        before, self._was_stuck = self._was_stuck, self.stuck
        if before and not self._was_stuck:
            log.info("dispatch.recovered")
            self._on_relief()

    def is_unsettled(self, claimed: Claimed) -> bool:
        """Whether the run is still in the state in which it was claimed: no event has overtaken the answer."""
        now = self._ledger.run(claimed.key)
        return now is not None and now.state is claimed.run.state

    def _waiting_runs(self) -> Sequence[_Waiting]:
        overtaken = [name for name, waiting in self._waiting.items() if not self.is_unsettled(waiting.claimed)]
        for name in overtaken:
            del self._waiting[name]
        if overtaken:
            # The event of a run shows that its command arrived.
            self._delivery = delivery.event_received(self._delivery)
        return list(self._waiting.values())

    def _seconds(self, runs: Sequence[_Waiting]) -> list[float]:
        now = self._clock.monotonic()
        return [now - waiting.since for waiting in runs]
