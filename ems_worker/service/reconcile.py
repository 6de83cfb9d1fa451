"""Runs that have been silent are asked for: what the orchestrator says of them is applied like an event.

At the start and every 30 seconds; `core.reconcile` says what an answer means.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from ems_worker.core import ids
from ems_worker.core.lifecycle import reconcile
from ems_worker.core.lifecycle.reconcile import Asked
from ems_worker.core.lifecycle.run import Run, StopReason
from ems_worker.core.lifecycle.transitions import Effect, RunState
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Orchestrator
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.submit import Submitter

log = structlog.get_logger()

INTERVAL_SECONDS = 30.0
# After so many answers in a row that it doesn't implement the question it counts as not implementing it: one may come
# from an orchestrator that is just starting.
_REFUSALS = 2


class Reconciler:
    """Asks for silent runs. An orchestrator that doesn't implement the question leaves them to their time limits."""

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
        self._refusals = 0

    @property
    def can_ask(self) -> bool:
        """Whether the orchestrator implements the question, as far as is known."""
        return self._refusals < _REFUSALS

    async def run(self) -> None:
        """For ever: a look, then a pause."""
        async with asyncio.TaskGroup() as group:
            while True:
                again = [*await self.look(), *self.stranded()]
                if again:
                    group.create_task(self.send_again(again))
                await asyncio.sleep(INTERVAL_SECONDS)

    async def send_again(self, runs: Sequence[tuple[Live, Run]]) -> None:
        """Sends runs again under their ids, the youngest first.

        If the worker dies in the midst of it, the orchestrator knows only runs that are younger than those that it
        lacks: the next worker sees that it was wiped, and not that these were lost.
        """
        # Recorded before: the worker may die with the commands on their way.
        await self._ledger.forget_time((live.key, one.point, one.replicate, one.attempt) for live, one in runs)
        await self._submitter.resend(sorted(runs, key=lambda one: one[1].submitted_ms or 0, reverse=True))

    async def look(self) -> list[tuple[Live, Run]]:
        """Asks for all silent runs at once and applies the answers; the runs that are to be sent again."""
        asked = self._silent()
        if not asked:
            self._missing = {}
            return []
        names = {ids.simulation_id(live.experiment_id, *key[1:]): key for key, live, _ in asked}
        answers = await self._orchestrator.status(list(names))
        if answers is None:
            self._refusals += 1
            return []
        if answers:
            self._refusals = 0
        submitted = {key: one.submitted_ms or 0 for key, _, one in asked}
        judged = reconcile.judge(
            [Asked(names[name], submitted[names[name]], answer) for name, answer in answers.items() if name in names],
            self._missing,
            self._clock.monotonic(),
        )
        self._missing = judged.missing
        if judged.signals:
            effects = await self._ledger.hear(judged.signals)
            for (key, signal), effect in zip(judged.signals, effects, strict=True):
                self._metrics.reconciled.labels(str(effect)).inc()
                if effect is Effect.APPLY:
                    log.info("run.reconciled", event_heard=signal.event, key=key)
        # What nobody wants any more is not started anew: the limits give it up.
        wanted = [(key, live, one) for key, live, one in asked if one.stop_reason is not StopReason.UNWANTED]
        again = [(live, one) for key, live, one in wanted if key in judged.again]
        if again:
            log.warning("orchestrator.wiped", runs=len(again))
        return again

    def stranded(self) -> list[tuple[Live, Run]]:
        """Runs that have been submitting for long although no command is under way for them."""
        long_ago = self._clock.monotonic() - 2 * self._deadline
        return [
            (live, one)
            for key, live, one in self._ledger.open_runs()
            if one.state is RunState.SUBMITTING
            and key not in self._submitter.sending
            and self._heard(key, self._began) < long_ago
        ]

    def _silent(self) -> list[tuple[RunKey, Live, Run]]:
        """Runs that the orchestrator has, and of which nothing was heard for an interval in this process."""
        since = self._clock.monotonic() - INTERVAL_SECONDS
        return [
            (key, live, one)
            for key, live, one in self._ledger.open_runs()
            if one.state is not RunState.SUBMITTING and self._heard(key, since) <= since
        ]

    def _heard(self, key: RunKey, default: float) -> float:
        heard = self._ledger.last_heard(key)
        return default if heard is None else heard
