"""Changes that were published before a restore are carried out again."""

from collections.abc import Mapping
from typing import Any

import structlog
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import experiment, restored, steering
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.steering import Phase, Verb
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.steering.control import Control
from ems_worker.service.steering.executor import Executor
from ems_worker.service.steering.remove import Remover

log = structlog.get_logger()


class ChangeReplay:
    """Applies published changes to a restored manifest."""

    def __init__(self, *, ledger: Ledger, control: Control, executor: Executor, remover: Remover) -> None:
        self._ledger = ledger
        self._remover = remover
        self._control = control
        self._executor = executor

    async def apply(self, experiment_id: str, published: Mapping[str, Any], *, documents: int) -> bool:
        """Carries out a change; whether it is new to this manifest.

        `published`: the first of its documents that is stored, and `documents`: how many there are. A request or a plan
        that can't be read any more changes nothing.
        """
        try:
            if published["verb"] == changes.REMOVE:
                return await self._remove(experiment_id, published, documents)
            async with self._ledger.pinned(experiment_id) as live:
                return live is not None and await self._apply(live, published, documents)
        except errors.PlanNotReadAsAccepted as error:
            log.warning("change.not_applied_again", experiment_id=experiment_id, reason=str(error))
            return False

    async def settle(self, experiment_id: str, number: int) -> None:
        """Records that a round settled before the restore: what is added or retried since belongs to the next one."""
        live = self._ledger.live(experiment_id)
        if live is not None and live.record.settled_round < number == live.record.round:
            await self._ledger.records.settled(live, number)

    async def _apply(self, live: Live, published: Mapping[str, Any], documents: int) -> bool:
        try:
            if await self._control.has_published(live, published):
                return False
            if _had_ended(live, published):
                await self._end_runs(live)
            change, after = self._control.drafted_again(live, published)
        except (KeyError, TypeError, ValueError, errors.RequestRefused) as error:
            log.warning("change.not_applied_again", experiment_id=live.experiment_id, reason=str(error))
            return False
        await self._ledger.records.change(live, replace(change, published=documents), after)
        await self._executor.finish(live)
        log.warning(
            "change.applied_again",
            experiment_id=live.experiment_id,
            verb=change.verb,
            request_id=change.request_id,
        )
        return True

    async def _remove(self, experiment_id: str, published: Mapping[str, Any], documents: int) -> bool:
        """Removes an experiment, which had ended: open runs had ended at a time limit, of which no event tells."""
        live = self._ledger.live(experiment_id)
        if live is not None and live.open:
            await self._end_runs(live)
        try:
            removed = await self._remover.again(experiment_id, published, documents=documents)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("change.not_applied_again", experiment_id=experiment_id, reason=str(error))
            return False
        if removed:
            log.warning(
                "change.applied_again",
                experiment_id=experiment_id,
                verb=changes.REMOVE,
                request_id=published["request_id"],
            )
        return removed

    async def _end_runs(self, live: Live) -> None:
        """Ends the open runs of an experiment that had ended, and the waits for metrics."""
        signals = [
            (key, Signal(RunEvent.LOSE, ErrorKind.LOST, restored.LOST))
            for key, owner, _ in self._ledger.open_runs()
            if owner is live
        ]
        signals += [(key, Signal(RunEvent.EXPIRE)) for key in self._ledger.awaiting_metrics() if key[0] == live.key]
        await self._ledger.hear(signals)
        await self._executor.finish(live)


def _had_ended(live: Live, published: Mapping[str, Any]) -> bool:
    """Whether the experiment had ended when the change was requested, though by its events it hasn't.

    Time limits are decided by the worker, so no event tells of them. A change that continues an experiment is refused
    while it is being cancelled.
    """
    if live.ended or published["verb"] not in (Verb.RETRY, Verb.EXTEND):
        return False
    cancelling = steering.phase(live.record.standing) in (Phase.DRAINING, Phase.STOPPING)
    return cancelling or (published["round"] == live.record.round and published["state"] in experiment.ENDED)
