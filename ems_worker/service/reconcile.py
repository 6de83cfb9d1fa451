"""Reconciliation: the orchestrator is asked for the status of silent runs, which is applied like an event.

This happens at the start and every 30 seconds; `core.lifecycle.reconcile` decides what an answer means.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from ems_worker.core import ids
from ems_worker.core.lifecycle import reconcile
from ems_worker.core.lifecycle.reconcile import RunStatus
from ems_worker.core.lifecycle.run import UNWANTED, Run, StopReason
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.submit import Submitter

log = structlog.get_logger()

INTERVAL_SECONDS = 30.0
# After this many UNIMPLEMENTED answers in a row GetSimulationStatus counts as not implemented: a single one may come
# from an orchestrator that is starting.
_MAX_UNIMPLEMENTED = 2


class Reconciler:
    """Queries silent runs. If the orchestrator doesn't implement GetSimulationStatus, only time limits end them."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        orchestrator: Orchestrator,
        submitter: Submitter,
        clock: Clock,
        metrics: Metrics,
        deadline_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._orchestrator = orchestrator
        self._submitter = submitter
        self._clock = clock
        self._metrics = metrics
        self._deadline = deadline_seconds
        self._began = clock.monotonic()
        self._missing: Mapping[RunKey, float] = {}
        self._unimplemented = 0

    @property
    def can_ask(self) -> bool:
        """Whether the orchestrator implements GetSimulationStatus, as far as is known."""
        return self._unimplemented < _MAX_UNIMPLEMENTED

    async def run(self) -> None:
        """Reconciles at regular intervals, without end."""
        async with asyncio.TaskGroup() as group:
            while True:
                runs = [*await self.query(), *self.stranded()]
                if runs:
                    group.create_task(self.resend(runs))
                await asyncio.sleep(INTERVAL_SECONDS)

    async def resend(self, runs: Sequence[tuple[Live, Run]]) -> None:
        """Sends runs again under their ids, the youngest first.

        If the worker dies before all are sent, the orchestrator knows only runs that are younger than the missing ones.
        The next worker can tell from this that the orchestrator was wiped, and that these runs are not lost.

        Runs that would start again wait while their experiment is paused, and all runs while the worker is held: a
        later query finds them once more. Their time doesn't count meanwhile.
        """
        # Recorded first, because the worker may die while the commands are under way.
        await self._ledger.forget_time((live.key, run.point, run.replicate, run.attempt) for live, run in runs)
        if self._submitter.held:
            return
        now = [(live, run) for live, run in runs if run.state is RunState.SUBMITTING or not live.record.pauses]
        await self._submitter.resend(sorted(now, key=lambda pair: pair[1].submitted_ms or 0, reverse=True))

    async def query(self) -> list[tuple[Live, Run]]:
        """Queries all silent runs at once, and applies the answers; returns the runs to send again."""
        silent = self._silent()
        if not silent:
            self._missing = {}
            return []
        names = {ids.simulation_id(live.experiment_id, *key[1:]): key for key, live, _ in silent}
        answers = await self._orchestrator.status(list(names))
        if answers is None:
            self._unimplemented += 1
            if not self.can_ask:
                await self._call_off([(key, run) for key, _, run in silent if run.state is RunState.SUBMITTING])
            return []
        if answers:
            self._unimplemented = 0
        submitted = {key: run.submitted_ms or 0 for key, _, run in silent}
        conclusion = reconcile.conclude(
            [
                RunStatus(names[name], submitted[names[name]], signal)
                for name, signal in answers.items()
                if name in names
            ],
            self._missing,
            self._clock.monotonic(),
        )
        self._missing = conclusion.missing
        unsent = {key for key, _, run in silent if run.state is RunState.SUBMITTING}
        lost = {key for key, signal in conclusion.signals if signal.event is RunEvent.LOSE}
        signals = [(key, signal) for key, signal in conclusion.signals if key not in unsent & lost]
        if signals:
            effects = await self._ledger.hear(signals)
            for (key, signal), effect in zip(signals, effects, strict=True):
                self._metrics.reconciled.labels(str(effect)).inc()
                if effect is Effect.APPLY:
                    log.info("run.reconciled", event_heard=signal.event, key=key)
        forgotten = [(key, live, run) for key, live, run in silent if key in {*conclusion.resend, *(unsent & lost)}]
        await self._call_off([(key, run) for key, _, run in forgotten if run.drains])
        runs = [(live, run) for _, live, run in forgotten if run.stop_reason not in UNWANTED and not run.drains]
        if runs:
            log.warning("orchestrator.wiped", runs=len(runs))
        return runs

    async def _call_off(self, drained: Sequence[tuple[RunKey, Run]]) -> None:
        """Stops runs of cancelled jobs that might end by themselves, if the orchestrator had them.

        Unwanted runs are not started again. STOP, or the answer that the run is unknown, ends them.
        """
        if drained:
            await self._ledger.ask_to_stop([(key, run.stop_reason or StopReason.CANCELLED) for key, run in drained])

    def stranded(self) -> list[tuple[Live, Run]]:
        """Runs that have been submitting for a long time although no command is under way for them."""
        long_ago = self._clock.monotonic() - 2 * self._deadline
        return [
            (live, run)
            for key, live, run in self._ledger.open_runs()
            if run.state is RunState.SUBMITTING
            and run.stop_reason is None
            and not run.drains
            and key not in self._submitter.sending
            and self._last_heard(key, self._began) < long_ago
        ]

    def _silent(self) -> list[tuple[RunKey, Live, Run]]:
        """Runs that the orchestrator has or may have, without news in this process for an interval.

        A run that is submitting is only asked for if its job was cancelled, so that it isn't sent again.
        """
        since = self._clock.monotonic() - INTERVAL_SECONDS
        return [
            (key, live, run)
            for key, live, run in self._ledger.open_runs()
            if (run.state is not RunState.SUBMITTING or (run.drains and key not in self._submitter.sending))
            and self._last_heard(key, since) <= since
        ]

    def _last_heard(self, key: RunKey, default: float) -> float:
        heard = self._ledger.last_heard(key)
        return default if heard is None else heard
