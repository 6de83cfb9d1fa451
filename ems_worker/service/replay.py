"""After a restore: what happened since the backup is heard again from the streams, before anything new is done.

Plans that were decided since are decided again, to the same ids; events are applied again, to the same states. What
people changed since can't be heard again: experiments whose published status is ahead of the manifest are held.
"""

import structlog

from ems_worker.core import experiment
from ems_worker.core.experiment import ExperimentEvent
from ems_worker.service.accept import Intake
from ems_worker.service.expand import Expander
from ems_worker.service.ledger import Ledger
from ems_worker.service.live import Live
from ems_worker.service.ports import Broker, Manifest
from ems_worker.service.track import Tracker

log = structlog.get_logger()

# The fact that a restored manifest carries (adapters.manifest.copies) until it has caught up.
RESTORED = "restored"
_QUIET_SECONDS = 1.0


class Replay:
    """Brings a restored manifest up to date."""

    def __init__(
        self, ledger: Ledger, manifest: Manifest, broker: Broker, intake: Intake, expander: Expander, tracker: Tracker
    ) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._intake = intake
        self._expander = expander
        self._tracker = tracker

    async def run(self) -> list[str]:
        """Replays, if this manifest was restored and has not caught up; the ids of the experiments that are held."""
        at = await self._manifest.remembered(RESTORED)
        if at is None:
            return []
        plans = await self._manifest.remembered("position plans")
        events = await self._manifest.remembered("position events")
        log.warning("manifest.restored", at=at, plans_from=plans, events_from=events)
        await self._broker.rewind(int(plans or 0), int(events or 0))
        while messages := await self._broker.plans():
            await self._intake.take_all(messages)
        for live in list(self._ledger.experiments.values()):
            while not live.expanded and not live.over:
                await self._expander.expand(live)
        while heard := await self._broker.events(_QUIET_SECONDS):
            await self._tracker.track(heard)
        await self._tracker.retry_parked(older_than_ms=0)
        held = [live.experiment_id for live in list(self._ledger.experiments.values()) if await self._hold(live)]
        await self._manifest.forget(RESTORED)
        log.warning("manifest.caught_up", held=held)
        return held

    async def _hold(self, live: Live) -> bool:
        """Holds an experiment that was further than the manifest now is, and goes on from the published revision."""
        published = await self._broker.published_revision(f"ems.experiment.status.{live.experiment_id}")
        if published is None or published <= live.record.revision:
            return False
        await self._ledger.catch_up_revision(live, published)
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.HOLD]
        if to is None:
            return False
        words = (
            f"held after a restore: its published status was ahead (revision {published}), so it may have been changed "
            f"since the backup; `ems resume {live.experiment_id}` goes on"
        )
        await self._ledger.move(live, to, words)
        log.warning("experiment.held", experiment_id=live.experiment_id, published_revision=published)
        return True
