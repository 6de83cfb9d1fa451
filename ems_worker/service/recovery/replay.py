"""After a restore, the streams since the backup are replayed before new work begins.

An older copy of the manifest that was put in its place by other means, such as a snapshot of the disk, is detected by
what was published since, and treated the same way.

Plans are decided again, with the same ids. Events, and the changes that people requested, are applied again in the
order in which the broker stored them, with the same results. If changes may be missing, because their stream was
created anew or has dropped messages since the backup, experiments whose published status is ahead of the manifest are
paused.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message, PublishedChange, PublishedRound
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.expand import Expander
from ems_worker.service.intake.accept import Intake
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.recovery.attempts import AttemptReplay
from ems_worker.service.recovery.changes import ChangeReplay
from ems_worker.service.recovery.results import ResultReplay
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
        changes: ChangeReplay,
    ) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._intake = intake
        self._expander = expander
        self._tracker = tracker
        self.changes = changes
        self.results = ResultReplay(ledger, broker)
        self.attempts = AttemptReplay(ledger)

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
        last_seq, complete, changes = await self._changes()
        while (events_read := await self._broker.events(_WAIT_SECONDS)) or (await self._broker.pending())[1]:
            while changes and events_read and changes[0].stored_ms < events_read[-1].published_ms:
                earlier = [event for event in events_read if event.published_ms <= changes[0].stored_ms]
                await self._track(earlier)
                events_read = events_read[len(earlier) :]
                await self._apply(changes.pop(0))
            await self._track(events_read)
        await self._tracker.retry_parked(older_than_ms=0)
        for change in changes:
            await self._apply(change)
        await self.results.catch_up(last_seq)
        paused = [live.experiment_id for live in self._ledger.experiments() if await self._catch_up(live, complete)]
        await self._manifest.forget(RESTORED)
        log.warning("manifest.caught_up", held=paused)
        return paused

    async def _changes(self) -> tuple[int, bool, list[PublishedChange | PublishedRound]]:
        """What was published since the backup: after which sequence, whether that is all, and what is to be applied.

        Rounds are settled by results that were published, and by times that only their documents tell.
        """
        now = (await self._broker.streams())[subjects.RESULTS_STREAM]
        known = await self._manifest.remembered(f"stream {subjects.RESULTS_STREAM}")
        created_ns, last_seq = (0, 0) if known is None else (int(number) for number in known.split(":"))
        same = created_ns == now.created_ns
        complete = same and now.first_seq <= last_seq + 1
        changes = await self._broker.changes(after := last_seq if same else 0)
        # The document of a change that is applied is its second one.
        stored = Counter((change.experiment_id, change.document["request_id"]) for change in changes)
        first: dict[tuple[str, str], PublishedChange] = {}
        for change in changes:
            key = change.experiment_id, change.document["request_id"]
            first.setdefault(key, replace(change, documents=min(2, stored[key])))
        decided: list[PublishedChange | PublishedRound] = [*first.values(), *await self._broker.rounds(after)]
        return after, complete, sorted(decided, key=lambda each: each.seq)

    async def _track(self, events: Sequence[Message]) -> None:
        await self.attempts.add(self._tracker.names(events))
        await self._tracker.track(events)

    async def _apply(self, change: PublishedChange | PublishedRound) -> None:
        if isinstance(change, PublishedRound):
            await self.changes.settle(change.experiment_id, change.number)
        elif await self.changes.apply(change.experiment_id, change.document, documents=change.documents):
            await self._tracker.retry_parked(older_than_ms=0)

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

    async def _catch_up(self, live: Live, complete: bool) -> bool:
        """Continues from the revision of a status that is ahead of the manifest.

        If changes may be missing (not `complete`), the experiment is paused; whether it is.
        """
        published = await self._broker.published_revision(f"{subjects.STATUS}.{live.experiment_id}")
        if published is None or published <= live.record.revision:
            return False
        await self._ledger.records.catch_up_revision(live, published)
        if complete or live.ended:
            return False
        await self._ledger.records.hold(live)
        log.warning("experiment.held", experiment_id=live.experiment_id, published_revision=published)
        return True
