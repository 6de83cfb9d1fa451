"""Experiments' records: the only code that replaces one, in memory and in the manifest."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import ExperimentState, PauseOwner
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import Change, PointRecord
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()


class Records:
    """Changes to experiments: their states, and how far they are expanded and published."""

    def __init__(
        self, *, manifest: Manifest, clock: Clock, commits: CommitQueue, on_change: Callable[[int], None]
    ) -> None:
        self._manifest = manifest
        self._clock = clock
        self._commits = commits
        self._on_change = on_change

    async def move(self, live: Live, to: ExperimentState, reason: str | None = None) -> None:
        """Moves the experiment to another state, in memory and then on disk."""
        now_ms = self._clock.now_ms()
        before = live.record
        started = now_ms if to is ExperimentState.RUNNING and before.started_ms is None else before.started_ms
        finished = now_ms if to in experiment.ENDED else None
        paused = to is ExperimentState.PAUSED
        live.record = replace(
            before,
            state=to,
            started_ms=started,
            finished_ms=finished,
            reason=reason,
            pauses=(before.pauses or frozenset({PauseOwner.PERSON})) if paused else frozenset(),
            pause_now=before.pause_now and paused,
        )
        await self._commits.put(self._manifest.save_experiment(before, live.record))
        self._on_change(before.key)

    async def conclude(self, live: Live) -> None:
        """Ends the experiment if all its jobs have ended."""
        event = experiment.conclusion(live.recorded, live.allowed)
        if event is None or live.reopening:
            return
        crash.point("ledger.concluding")
        to = experiment.TRANSITIONS[live.record.state, event]
        if to is None:
            return
        await self.move(live, to, experiment.reason(live.recorded, live.allowed))
        crash.point("ledger.concluded")
        log.info("experiment.ended", experiment_id=live.experiment_id, state=to.value, failures=live.recorded.failures)

    async def change(self, live: Live, change: Change, to: ExperimentState | None) -> Change:
        """Records a change, and moves the experiment to the state `to` in the same transaction.

        A change that is not applied keeps the experiment open until `applied` is called.
        """
        if change.applied_ms is None:
            live.requests.add(change.request_id)
        before = live.record
        if to is None:
            return await self._commits.put(self._manifest.record_change(change))
        live.record = replace(
            before,
            state=to,
            reason=None,
            round=before.round + (before.state in experiment.ENDED),
            finished_ms=None,
            started_ms=before.started_ms or change.received_ms,
            pauses=frozenset(),
            pause_now=False,
        )
        recorded = await self._commits.put(self._manifest.record_change(change, (before, live.record)))
        self._on_change(live.key)
        return recorded

    async def applied(self, live: Live, change: Change) -> None:
        """Records that a change has been carried out."""
        await self._commits.put(self._manifest.update_change(change))
        live.requests.discard(change.request_id)

    async def expand(self, live: Live, points: Sequence[PointRecord], runs: Sequence[Run]) -> None:
        """Adds the next points of the experiment with their first runs."""
        expanded = live.record.expanded_points + len(points)
        await self._manifest.expand(live.key, points, runs, expanded)
        live.record = replace(live.record, expanded_points=expanded)

    def ends_numbered(self, live: Live, ended_seq: int | None) -> None:
        """Sets the position of the last end. The manifest records it with the runs that ended."""
        if ended_seq is not None:
            live.record = replace(live.record, ended_seq=ended_seq)

    async def results_published(self, live: Live, ended_seq: int) -> None:
        """Records that results are published up to this position."""
        await self._manifest.results_published(live.key, ended_seq)
        live.record = replace(live.record, published_seq=ended_seq)

    def next_revision(self, live: Live) -> int:
        """The revision of the next status."""
        live.record = replace(live.record, revision=live.record.revision + 1)
        return live.record.revision

    async def status_published(self, live: Live, revision: int) -> None:
        """Records that the status of this revision is published."""
        await self._manifest.revision_published(live.key, revision)
        live.record = replace(live.record, published_revision=revision)

    def raise_revision(self, live: Live, revision: int) -> None:
        """Gives the next status a revision above this one."""
        live.record = replace(live.record, revision=max(live.record.revision, revision))

    async def catch_up_revision(self, live: Live, revision: int) -> None:
        """Records that a status of this revision was published before: published statuses can't be taken back."""
        live.record = replace(live.record, revision=revision, published_revision=revision)
        await self._manifest.record_status(live.key, revision, b"{}")
        await self._manifest.revision_published(live.key, revision)
