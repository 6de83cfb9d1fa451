"""Time limits and STOP: runs that take too long or that nobody waits for are stopped; the silent are given up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ems_worker.core import ids
from ems_worker.core.lifecycle.run import ErrorKind, Signal, StopReason
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.service import reconcile
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey

log = structlog.get_logger()

_TICK_SECONDS = 0.5
# How often the time that open runs have used is put on disk: what a crash can add to a limit.
_RECORD_SECONDS = 30.0
# The limit of runs that nobody can ask for, where neither their plan nor the operator sets one.
_UNASKED_SECONDS = 3600.0
# Within this time reconciliation knows what became of a run that the orchestrator doesn't know: it is silent for an
# interval, asked for within another, and once more after one or two.
_FOUND_OUT_SECONDS = 5 * reconcile.INTERVAL_SECONDS
_CANCEL_CHUNK = 1000
_STOPS_AT_ONCE = 16
# Answers to STOP that say that no confirmation will come.
_NO_CONFIRMATION = frozenset({"NOT_FOUND", "UNIMPLEMENTED"})


# Answers that leave open whether STOP arrived: it is sent again.
_NOT_HEARD = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Stopping:
    """A run that STOP was sent for: when first, when last (monotonic seconds), whether that was heard, and for how many
    seconds after the first its end is waited for."""

    since: float
    sent: float
    heard: bool
    patience: float


class RunLimits:
    """Looks at the open runs twice a second. Time is measured on the monotonic clock; a restart only lengthens it."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        orchestrator: Orchestrator,
        clock: Clock,
        metrics: Metrics,
        run_timeout_seconds: float | None,
        stop_confirm_seconds: float,
        can_ask: Callable[[], bool],
    ) -> None:
        """`run_timeout_seconds`: of runs whose plan sets no limit. `can_ask`: whether the orchestrator can be asked for
        runs; where it can't, they have a limit in any case, since one whose end gets lost would be open for ever."""
        self._ledger = ledger
        self._orchestrator = orchestrator
        self._clock = clock
        self._metrics = metrics
        self._default_seconds = run_timeout_seconds
        self._can_ask = can_ask
        self._confirm_seconds = stop_confirm_seconds
        self._stopping: dict[RunKey, _Stopping] = {}
        # STOPs on their way.
        self._sending: dict[RunKey, asyncio.Task[None]] = {}
        self._recorded = clock.monotonic()

    async def run(self) -> None:
        """For ever: a look, then a pause."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(_TICK_SECONDS)
        finally:
            for task in self._sending.values():
                task.cancel()

    async def look(self) -> None:
        """One round: cancels what is pending but doomed, stops what is over its limit, gives up on the silent."""
        now = self._clock.monotonic()
        await self._cancel_failing_fast()
        overdue: list[tuple[RunKey, StopReason]] = []
        asked: list[RunKey] = []
        for key, live, one in self._ledger.open_runs():
            if one.stop_reason is not None:
                asked.append(key)
            elif live.failing_fast:
                overdue.append((key, StopReason.UNWANTED))
            elif (limit := self._limit_seconds(live)) is not None and self._ledger.elapsed_ms(key, one) > 1000 * limit:
                overdue.append((key, StopReason.TIMEOUT))
        if overdue:
            await self._ledger.ask_to_stop(overdue)
            crash.point("limits.marked")
            asked += [key for key, _ in overdue]
        self._reap()
        await self._give_up([key for key in asked if key in self._stopping], now)
        await self._expire()
        await self._stop([key for key in asked if self._is_to_be_stopped(key, now)])
        open_now = set(asked)
        self._stopping = {key: since for key, since in self._stopping.items() if key in open_now}
        if now - self._recorded >= _RECORD_SECONDS:
            self._recorded = now
            await self._ledger.count_time()

    def _limit_seconds(self, live: Live) -> float | None:
        limit = live.plan.limits.run_timeout_seconds or self._default_seconds
        return limit or (None if self._can_ask() else _UNASKED_SECONDS)

    def _is_to_be_stopped(self, key: RunKey, now: float) -> bool:
        if key in self._sending:
            return False
        before = self._stopping.get(key)
        return before is None or (not before.heard and now - before.sent >= _AGAIN_SECONDS)

    async def _expire(self) -> None:
        """Jobs whose metrics did not come in time have failed."""
        late = self._ledger.metrics_overdue()
        if late:
            log.warning("run.metrics_missing", runs=len(late))
            await self._ledger.hear([(key, Signal(RunEvent.EXPIRE)) for key in late])

    async def _cancel_failing_fast(self) -> None:
        for live in self._ledger.experiments():
            if live.failing_fast and not live.ended:
                while await self._ledger.cancel_pending(live.key, _CANCEL_CHUNK):
                    pass

    async def _stop(self, keys: list[RunKey]) -> None:
        gate = asyncio.Semaphore(_STOPS_AT_ONCE)

        async def stop(key: RunKey) -> None:
            live, run = self._ledger.get(key[0]), self._ledger.run(key)
            if live is None or run is None:
                return
            reason = run.stop_reason
            name = ids.simulation_id(live.experiment_id, *key[1:])
            async with gate:
                code = await self._orchestrator.stop(name)
            crash.point("limits.stopped")
            self._metrics.stops.labels(str(reason)).inc()
            log.info("run.stop_sent", simulation_id=name, reason=reason, code=code)
            now = self._clock.monotonic()
            since = self._stopping[key].since if key in self._stopping else now
            self._stopping[key] = _Stopping(since, now, code not in _NOT_HEARD, self._patience(code, reason))

        if keys:
            self._sending |= {key: asyncio.create_task(stop(key)) for key in keys}
            # One that the orchestrator doesn't answer must not keep other runs from their limits.
            await asyncio.wait([self._sending[key] for key in keys], timeout=_TICK_SECONDS)
            self._reap()

    def _reap(self) -> None:
        for key in [key for key, task in self._sending.items() if task.done()]:
            self._sending.pop(key).result()

    def _patience(self, code: str, reason: StopReason | None) -> float:
        """How long the end of a run is waited for after this answer to STOP."""
        if code == "NOT_FOUND" and reason is StopReason.TIMEOUT and self._can_ask():
            # Perhaps the orchestrator was wiped, which costs no attempt: reconciliation finds out.
            return max(self._confirm_seconds, _FOUND_OUT_SECONDS)
        return 0.0 if code in _NO_CONFIRMATION else self._confirm_seconds

    async def _give_up(self, keys: list[RunKey], now: float) -> None:
        """Runs whose STOP was not confirmed in time: lost where they were overdue, cancelled where unwanted."""
        signals: list[tuple[RunKey, Signal]] = []
        for key in keys:
            stopping, run = self._stopping[key], self._ledger.run(key)
            if run is None or now - stopping.since < stopping.patience:
                continue
            if run.stop_reason is StopReason.UNWANTED:
                signals.append((key, Signal(RunEvent.CANCEL)))
            else:
                words = "passed its time limit, and its end was not confirmed"
                signals.append((key, Signal(RunEvent.LOSE, ErrorKind.LOST, words)))
        if signals:
            await self._ledger.hear(signals)
