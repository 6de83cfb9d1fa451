"""Time limits and STOP: runs that take too long or are no longer wanted are stopped, and given up if that fails."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ems_worker import ticks
from ems_worker.core import ids
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.core.wire import Control
from ems_worker.service import reconcile
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.control_calls import ControlCalls
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
# Answers to STOP after which no confirmation will follow: it doesn't know the run, or doesn't implement STOP.
_UNKNOWN_RUN, _NO_STOP = "NOT_FOUND", "UNIMPLEMENTED"
# Answers that leave open whether STOP arrived, so that it is sent again.
_NOT_RECEIVED = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_RESEND_SECONDS = 2.0
# A run that was stopped for these reasons has no result that anybody awaits: it is cancelled even if its end was not
# confirmed. One that was called off may still use a slot, which people have to know: it is lost.
_CANCELLED_ANYHOW = frozenset({StopReason.SUPERSEDED, StopReason.FAILING_FAST})
# What happened to a run that is given up, by the reason for its STOP.
_GIVEN_UP = {
    StopReason.TIMEOUT: "passed its time limit",
    StopReason.CANCELLED: "cancelled",
    StopReason.STRAGGLER: "cancelled as a straggler",
    StopReason.RACED: "cancelled by a race",
}


@dataclass(frozen=True, slots=True)
class _Stopping:
    """A run for which STOP was sent: first at `since`, last at `sent` (monotonic seconds).

    `code`: the answer to the last one, None until it has one.
    """

    since: float
    sent: float
    code: str | None = None


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
        is_sending: Callable[[RunKey], bool],
    ) -> None:
        """`run_timeout_seconds`: the limit of runs whose plan sets none.

        `can_ask`: whether the orchestrator can be asked for the status of runs. If it can't, every run has a limit,
        because a run whose end got lost would stay open. `is_sending`: whether a start command for the run is under
        way: STOP must not overtake it.
        """
        self._ledger = ledger
        self._orchestrator = orchestrator
        self._clock = clock
        self._metrics = metrics
        self._default_seconds = run_timeout_seconds
        self._can_ask = can_ask
        self._is_sending = is_sending
        self._confirm_seconds = stop_confirm_seconds
        self._stopping: dict[RunKey, _Stopping] = {}
        self._calls = ControlCalls()
        self._recorded = clock.monotonic()

    async def run(self) -> None:
        """Checks the limits at regular intervals, half as often while no run is open; without end."""
        try:
            while True:
                await self.check()
                await ticks.wait(_TICK_SECONDS if self._ledger.open else 2 * _TICK_SECONDS)
        finally:
            self._calls.cancel()

    async def check(self) -> None:
        """Applies all limits once.

        Pending jobs of experiments that fail fast are cancelled. Runs that are over their limits or no longer wanted
        are stopped, and given up if their ends aren't confirmed in time. Runs of cancelled jobs that may end by
        themselves are only stopped at their limits. Metrics that did not arrive in time are recorded as missing.
        """
        now = self._clock.monotonic()
        await self._cancel_failing_fast()
        overdue: list[tuple[RunKey, StopReason]] = []
        to_stop: list[RunKey] = []
        for key, live, run in self._ledger.open_runs():
            if run.to_be_stopped:
                to_stop.append(key)
            elif live.failing_fast and not run.drains:
                overdue.append((key, StopReason.FAILING_FAST))
            elif (limit := self._limit_seconds(live)) is not None and self._ledger.elapsed_ms(key, run) > 1000 * limit:
                overdue.append((key, run.stop_reason or StopReason.TIMEOUT))
        if overdue:
            await self._ledger.ask_to_stop(overdue)
            crash.point("limits.marked")
            to_stop += [key for key, _ in overdue]
        to_stop = [key for key in to_stop if not self._is_sending(key)]
        self._calls.collect()
        await self._give_up([key for key in to_stop if key in self._stopping], now)
        await self._expire_metrics()
        await self._stop([key for key in to_stop if self._stop_is_due(key, now)])
        still_open = set(to_stop)
        self._stopping = {key: stopping for key, stopping in self._stopping.items() if key in still_open}
        if now - self._recorded >= _RECORD_SECONDS:
            self._recorded = now
            await self._ledger.count_time()

    def _limit_seconds(self, live: Live) -> float | None:
        limit = live.limits.run_timeout_seconds or self._default_seconds
        return limit or (None if self._can_ask() else _NO_STATUS_LIMIT_SECONDS)

    def _stop_is_due(self, key: RunKey, now: float) -> bool:
        if self._calls.under_way(key):
            return False
        stopping = self._stopping.get(key)
        return stopping is None or (stopping.code in _NOT_RECEIVED and now - stopping.sent >= _RESEND_SECONDS)

    async def _expire_metrics(self) -> None:
        """Fails the jobs whose metrics did not arrive in time."""
        late = self._ledger.metrics_overdue()
        if late:
            log.warning("run.metrics_missing", runs=len(late))
            await self._ledger.hear([(key, Signal(RunEvent.EXPIRE)) for key in late])

    async def _cancel_failing_fast(self) -> None:
        for live in self._ledger.experiments():
            if live.failing_fast and not live.ended:
                while await self._ledger.judging.drop_pending(live, _CANCEL_CHUNK):
                    pass

    async def _stop(self, keys: list[RunKey]) -> None:
        async def stop(key: RunKey) -> None:
            live, run = self._ledger.get(key[0]), self._ledger.run(key)
            if live is None or run is None or not run.to_be_stopped or run.ended:
                return
            name = ids.simulation_id(live.experiment_id, *key[1:])
            began = self._clock.monotonic()
            # Noted before the answer: an end is awaited only for so long, even if no answer ever comes.
            since = self._stopping[key].since if key in self._stopping else began
            self._stopping[key] = _Stopping(since, began)
            code = (await self._orchestrator.control(name, Control.STOP)).code
            crash.point("limits.stopped")
            self._metrics.stops.labels(str(run.stop_reason)).inc()
            log.info("run.stop_sent", simulation_id=name, reason=run.stop_reason, code=code)
            self._stopping[key] = _Stopping(since, self._clock.monotonic(), code)

        # An unanswered STOP must not delay the limits of other runs.
        await self._calls.send(keys, stop, _TICK_SECONDS)

    def _patience(self, code: str | None, reason: StopReason | None) -> float:
        """How many seconds after the first STOP the end of a run is awaited, given the answer to the last one."""
        if code == _UNKNOWN_RUN and reason is StopReason.TIMEOUT and self._can_ask():
            # The orchestrator may have been wiped, which costs no attempt. Reconciliation detects that.
            return max(self._confirm_seconds, _RECONCILED_SECONDS)
        return 0.0 if code in (_UNKNOWN_RUN, _NO_STOP) else self._confirm_seconds

    async def _give_up(self, keys: list[RunKey], now: float) -> None:
        """Ends runs whose STOP was not confirmed in time."""
        signals: list[tuple[RunKey, Signal]] = []
        for key in keys:
            stopping, run = self._stopping[key], self._ledger.run(key)
            if run is not None and now - stopping.since >= self._patience(stopping.code, run.stop_reason):
                signals.append((key, _given_up(run, stopping.code)))
        if signals:
            await self._ledger.hear(signals)


def _given_up(run: Run, code: str | None) -> Signal:
    """How a run ends whose STOP had this answer and was not confirmed.

    One that nobody waits for, or that the orchestrator doesn't know, is cancelled. Others are lost: overdue ones, which
    get another attempt if the plan allows it, and those that may still run although they were called off.
    """
    reason = run.stop_reason or StopReason.TIMEOUT
    if reason in _CANCELLED_ANYHOW or (reason is not StopReason.TIMEOUT and code == _UNKNOWN_RUN):
        return Signal(RunEvent.CANCEL)
    trouble = "the orchestrator doesn't implement STOP" if code == _NO_STOP else "its end was not confirmed"
    return Signal(RunEvent.LOSE, ErrorKind.LOST, f"{_GIVEN_UP[reason]}, and {trouble}")
