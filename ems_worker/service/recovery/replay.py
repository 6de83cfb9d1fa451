"""After a restore: what happened since the backup is heard again from the streams, before anything new is done.

An older copy that somebody put in the manifest's place by other means (a snapshot of the disk, a file copied back) is
found out by what was published since, and treated the same.

Plans that were decided since are decided again, to the same ids; events are applied again, to the same states. What
people changed since can't be heard again: experiments whose published status is ahead of the manifest are held.
"""

import asyncio

import structlog

from ems_worker import errors
from ems_worker.core.documents import subjects
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import ExperimentEvent
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.expand import Expander
from ems_worker.service.intake.accept import Intake
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.track import Tracker

log = structlog.get_logger()

# The fact that a restored manifest carries (adapters.manifest.copies) until it has caught up.
RESTORED = "restored"
_QUIET_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
# So many of the newest plans are looked at, whether they were decided by a manifest that knew more.
_LOOKED_AT = 256


class Replay:
    """Brings a restored manifest up to date."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        broker: Broker,
        intake: Intake,
        expander: Expander,
        tracker: Tracker,
    ) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._intake = intake
        self._expander = expander
        self._tracker = tracker

    async def run(self) -> list[str]:
        """Replays, if this manifest is behind what was told; the ids of the experiments that are held.

        While the broker is away it waits, and begins anew.
        """
        while True:
            try:
                return await self._run()
            except errors.BrokerUnavailable as error:
                log.warning("manifest.replay_waits", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _run(self) -> list[str]:
        at = await self._manifest.remembered(RESTORED)
        if at is None:
            if not await self._outdated():
                return []
            # On disk before the streams are rewound: a crash in the middle goes on with it.
            at = "unknown"
            await self._manifest.remember(RESTORED, at)
        plans = await self._manifest.remembered("position plans")
        events = await self._manifest.remembered("position events")
        log.warning("manifest.restored", at=at, plans_from=plans, events_from=events)
        await self._broker.rewind(int(plans or 0), int(events or 0))
        # Nothing may also come because there is no connection: only the broker knows that there is nothing more.
        while (messages := await self._broker.plans()) or (await self._broker.pending())[0]:
            await self._intake.take_again(messages)
        for live in self._ledger.experiments():
            while not live.expanded and not live.ended:
                await self._expander.expand(live)
        while (heard := await self._broker.events(_QUIET_SECONDS)) or (await self._broker.pending())[1]:
            await self._tracker.track(heard)
        await self._tracker.retry_parked(older_than_ms=0)
        held = [live.experiment_id for live in self._ledger.experiments() if await self._pause(live)]
        await self._manifest.forget(RESTORED)
        log.warning("manifest.caught_up", held=held)
        return held

    async def _outdated(self) -> bool:
        """Whether more was published than this manifest knows: it records everything before it is told."""
        for live in self._ledger.experiments():
            published = await self._broker.published_revision(f"{subjects.STATUS}.{live.experiment_id}")
            if published is not None and published > live.record.revision:
                return True
        created_ns = (await self._broker.streams())[subjects.PLANS_STREAM].created_ns
        known, (acknowledged, _) = await self._manifest.last_plan(created_ns), await self._broker.positions()
        for seq in range(max(known, acknowledged - _LOOKED_AT) + 1, acknowledged + 1):
            if await self._broker.has_decision(seq):
                return True
        return False

    async def _pause(self, live: Live) -> bool:
        """Holds an experiment that was further than the manifest now is, and goes on from the published revision."""
        published = await self._broker.published_revision(f"{subjects.STATUS}.{live.experiment_id}")
        if published is None or published <= live.record.revision:
            return False
        await self._ledger.records.catch_up_revision(live, published)
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.PAUSE]
        if to is None:
            return False
        words = (
            f"held after a restore: its published status was ahead (revision {published}), so it may have been changed "
            f"since the backup; `ems resume {live.experiment_id}` goes on"
        )
        await self._ledger.records.move(live, to, words)
        log.warning("experiment.held", experiment_id=live.experiment_id, published_revision=published)
        return True
