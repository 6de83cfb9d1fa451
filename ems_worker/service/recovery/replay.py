"""After a restore, the streams since the backup are replayed before new work begins.

An older copy of the manifest that was put in its place by other means, such as a snapshot of the disk, is detected by
what was published since, and treated the same way.

Plans are decided again, with the same ids, and events are applied again, with the same results. Changes that people
made since the backup are not in the streams, so experiments whose published status is ahead of the manifest are paused.
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

# The fact that marks a restored manifest (adapters.manifest.copies) until it has caught up.
RESTORED = "restored"
_WAIT_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
# How many of the newest plans are checked for decisions that this manifest doesn't have.
_CHECKED_PLANS = 256


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
        """Replays the streams if the manifest is behind what was published; returns the ids of paused experiments.

        Starts over whenever the broker is unavailable.
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
            # Recorded before the streams are rewound, so that the next start continues after a crash.
            at = "unknown"
            await self._manifest.remember(RESTORED, at)
        plans = await self._manifest.remembered("position plans")
        events = await self._manifest.remembered("position events")
        log.warning("manifest.restored", at=at, plans_from=plans, events_from=events)
        await self._broker.rewind(int(plans or 0), int(events or 0))
        # An empty fetch may be due to a lost connection: only the broker knows whether messages are pending.
        while (messages := await self._broker.plans()) or (await self._broker.pending())[0]:
            await self._intake.take_again(messages)
        for live in self._ledger.experiments():
            while not live.expanded and not live.ended:
                await self._expander.expand(live)
        while (events_read := await self._broker.events(_WAIT_SECONDS)) or (await self._broker.pending())[1]:
            await self._tracker.track(events_read)
        await self._tracker.retry_parked(older_than_ms=0)
        paused = [live.experiment_id for live in self._ledger.experiments() if await self._pause(live)]
        await self._manifest.forget(RESTORED)
        log.warning("manifest.caught_up", held=paused)
        return paused

    async def _outdated(self) -> bool:
        """Whether more was published than this manifest has: a worker records everything before it publishes it."""
        for live in self._ledger.experiments():
            published = await self._broker.published_revision(f"{subjects.STATUS}.{live.experiment_id}")
            if published is not None and published > live.record.revision:
                return True
        created_ns = (await self._broker.streams())[subjects.PLANS_STREAM].created_ns
        known, (acknowledged, _) = await self._manifest.last_plan(created_ns), await self._broker.positions()
        for seq in range(max(known, acknowledged - _CHECKED_PLANS) + 1, acknowledged + 1):
            if await self._broker.has_decision(seq):
                return True
        return False

    async def _pause(self, live: Live) -> bool:
        """Pauses an experiment whose published status is ahead of the manifest, and continues from that revision."""
        published = await self._broker.published_revision(f"{subjects.STATUS}.{live.experiment_id}")
        if published is None or published <= live.record.revision:
            return False
        await self._ledger.records.catch_up_revision(live, published)
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.PAUSE]
        if to is None:
            return False
        reason = (
            f"paused after a restore: its published status was ahead (revision {published}), so it may have been "
            f"changed since the backup; `ems resume {live.experiment_id}` resumes it"
        )
        await self._ledger.records.move(live, to, reason)
        log.warning("experiment.held", experiment_id=live.experiment_id, published_revision=published)
        return True
