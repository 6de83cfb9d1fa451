"""Time limits and STOP: runs that take too long or are no longer wanted are stopped, and given up if that fails."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ems_worker.core import ids
from ems_worker.core.lifecycle.run import UNWANTED, ErrorKind, Signal, StopReason
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.core.wire import Control
from ems_worker.service import reconcile
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey

log = structlog.get_logger()

_TICK_SECONDS = 0.5
# How often the elapsed time of open runs is recorded. A crash can lengthen a limit by this much.
_RECORD_SECONDS = 30.0
# The limit if neither the plan nor the operator sets one, and the orchestrator can't be asked for the status of a run.
_NO_STATUS_LIMIT_SECONDS = 3600.0
# Within this time reconciliation has concluded what happened to a run that the orchestrator doesn't know: the run is
# silent for one interval, is queried within the next one, and again one or two intervals later.
_RECONCILED_SECONDS = 5 * reconcile.INTERVAL_SECONDS
_CANCEL_CHUNK = 1000
_STOPS_AT_ONCE = 16
# Answers to STOP after which no confirmation will follow.
_NO_CONFIRMATION = frozenset({"NOT_FOUND", "UNIMPLEMENTED"})
# Answers that leave open whether STOP arrived, so that it is sent again.
_NOT_RECEIVED = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_RESEND_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Stopping:
    """A run for which STOP was sent: first at `since`, last at `sent` (monotonic seconds).

    `received`: whether the last one arrived. `patience`: how many seconds after the first one its end is awaited.
    """

    since: float
    sent: float
    received: bool
    patience: float


class RunLimits:
    """Checks the open runs twice a second, by the monotonic clock. A restart can only lengthen a limit."""

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
        """`run_timeout_seconds`: the limit of runs whose plan sets none.

        `can_ask`: whether the orchestrator can be asked for the status of runs. If it can't, every run has a limit,
        because a run whose end got lost would stay open.
        """
        self._ledger = ledger
        self._orchestrator = orchestrator
        self._clock = clock
        self._metrics = metrics
        self._default_seconds = run_timeout_seconds
        self._can_ask = can_ask
        self._confirm_seconds = stop_confirm_seconds
        self._stopping: dict[RunKey, _Stopping] = {}
        # Tasks that send STOP.
        self._sending: dict[RunKey, asyncio.Task[None]] = {}
        self._recorded = clock.monotonic()

    async def run(self) -> None:
        """Checks the limits at regular intervals, without end."""
        try:
            while True:
                await self.check()
                await asyncio.sleep(_TICK_SECONDS)
        finally:
            for task in self._sending.values():
                task.cancel()

    async def check(self) -> None:
        """Applies all limits once.

        Pending jobs of experiments that fail fast are cancelled. Runs that are over their limits or no longer wanted
        are stopped, and given up if their ends aren't confirmed in time. Metrics that did not arrive in time are
        recorded as missing.
        """
        now = self._clock.monotonic()
        await self._cancel_failing_fast()
        overdue: list[tuple[RunKey, StopReason]] = []
        to_stop: list[RunKey] = []
        for key, live, run in self._ledger.open_runs():
            if run.stop_reason is not None:
                to_stop.append(key)
            elif live.failing_fast:
                overdue.append((key, StopReason.FAILING_FAST))
            elif (limit := self._limit_seconds(live)) is not None and self._ledger.elapsed_ms(key, run) > 1000 * limit:
                overdue.append((key, StopReason.TIMEOUT))
        if overdue:
            await self._ledger.ask_to_stop(overdue)
            crash.point("limits.marked")
            to_stop += [key for key, _ in overdue]
        self._collect_sent()
        await self._give_up([key for key in to_stop if key in self._stopping], now)
        await self._expire_metrics()
        await self._stop([key for key in to_stop if self._stop_is_due(key, now)])
        still_open = set(to_stop)
        self._stopping = {key: stopping for key, stopping in self._stopping.items() if key in still_open}
        if now - self._recorded >= _RECORD_SECONDS:
            self._recorded = now
            await self._ledger.count_time()

    def _limit_seconds(self, live: Live) -> float | None:
        limit = live.plan.limits.run_timeout_seconds or self._default_seconds
        return limit or (None if self._can_ask() else _NO_STATUS_LIMIT_SECONDS)

    def _stop_is_due(self, key: RunKey, now: float) -> bool:
        if key in self._sending:
            return False
        stopping = self._stopping.get(key)
        return stopping is None or (not stopping.received and now - stopping.sent >= _RESEND_SECONDS)

    async def _expire_metrics(self) -> None:
        """Fails the jobs whose metrics did not arrive in time."""
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
                code = (await self._orchestrator.control(name, Control.STOP)).code
            crash.point("limits.stopped")
            self._metrics.stops.labels(str(reason)).inc()
            log.info("run.stop_sent", simulation_id=name, reason=reason, code=code)
            now = self._clock.monotonic()
            since = self._stopping[key].since if key in self._stopping else now
            self._stopping[key] = _Stopping(since, now, code not in _NOT_RECEIVED, self._patience(code, reason))

        if keys:
            self._sending |= {key: asyncio.create_task(stop(key)) for key in keys}
            # An unanswered STOP must not delay the limits of other runs.
            await asyncio.wait([self._sending[key] for key in keys], timeout=_TICK_SECONDS)
            self._collect_sent()

    def _collect_sent(self) -> None:
        for key in [key for key, task in self._sending.items() if task.done()]:
            self._sending.pop(key).result()

    def _patience(self, code: str, reason: StopReason | None) -> float:
        """How long the end of a run is awaited after this answer to STOP."""
        if code == "NOT_FOUND" and reason is StopReason.TIMEOUT and self._can_ask():
            # The orchestrator may have been wiped, which costs no attempt. Reconciliation detects that.
            return max(self._confirm_seconds, _RECONCILED_SECONDS)
        return 0.0 if code in _NO_CONFIRMATION else self._confirm_seconds

    async def _give_up(self, keys: list[RunKey], now: float) -> None:
        """Ends runs whose STOP was not confirmed in time: overdue runs are lost, unwanted ones cancelled."""
        signals: list[tuple[RunKey, Signal]] = []
        for key in keys:
            stopping, run = self._stopping[key], self._ledger.run(key)
            if run is None or now - stopping.since < stopping.patience:
                continue
            if run.stop_reason in UNWANTED:
                signals.append((key, Signal(RunEvent.CANCEL)))
            else:
                message = "passed its time limit, and its end was not confirmed"
                signals.append((key, Signal(RunEvent.LOSE, ErrorKind.LOST, message)))
        if signals:
            await self._ledger.hear(signals)
