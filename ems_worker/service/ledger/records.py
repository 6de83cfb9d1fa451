"""Experiments' records: the only code that replaces one, in memory and in the manifest."""

from collections.abc import Callable, Sequence

import structlog
from msgspec.structs import replace

from ems_worker.core.lifecycle import conclusion, experiment, steering
from ems_worker.core.lifecycle.experiment import ExperimentEvent, ExperimentState, PauseOwner, Standing
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import Change, Experiment, NewExperiment, PointRecord
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.live import JobKey, Live

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
        await self._replace(live, _moved(live.record, to, self._clock.now_ms(), reason))

    async def conclude(self, live: Live) -> None:
        """Ends the experiment if all its jobs have ended, and nothing keeps it open."""
        event = conclusion.event(live.recorded, live.situation)
        if event is None or experiment.TRANSITIONS[live.record.state, event] is None:
            return
        crash.point("ledger.concluding")
        error = await self._manifest.commonest_error(live.key) if event is ExperimentEvent.MISS else None
        # Asked again: the manifest may have taken a while to answer.
        event = conclusion.event(live.recorded, live.situation)
        to = None if event is None else experiment.TRANSITIONS[live.record.state, event]
        if to is None:
            return
        await self.move(live, to, conclusion.reason(live.recorded, live.situation, error))
        crash.point("ledger.concluded")
        log.info("experiment.ended", experiment_id=live.experiment_id, state=to.value, failures=live.recorded.failures)

    async def change(self, live: Live, change: Change, after: Experiment | None = None) -> Change:
        """Records a change, and the experiment as it is after it, in the same transaction; returns it with its number.

        The experiment is changed in memory at once. A change that isn't applied yet stays with it until it is.
        """
        before = live.record
        if after is not None:
            live.record = after

        async def record() -> Change:
            recorded = await self._manifest.record_change(change, None if after is None else (before, after))
            if recorded.applied_ms is None:
                live.changes[recorded.number] = recorded
            self._on_change(live.key)
            return recorded

        # As a part of the commit: a request that is cancelled while it waits must not leave the change out of memory.
        return await self._commits.put(record(), [_whole(live)])

    async def change_applied(self, live: Live, change: Change) -> Change:
        """Records that nothing of a change is in flight any more, and what has become of the experiment until then."""
        record, now_ms = live.record, self._clock.now_ms()
        applied = replace(change, applied_ms=now_ms, state=record.state, round=record.round)
        await self._commits.put(self._manifest.update_change(applied), [_whole(live)])
        live.changes.pop(change.number, None)
        self._on_change(live.key)
        return applied

    async def hold(self, live: Live) -> None:
        """Pauses an experiment whose manifest was restored, until somebody has looked at it."""
        standing = steering.paused(live.record.standing, PauseOwner.RESTORED)
        await self._replace(live, steered(live.record, standing, self._clock.now_ms()))

    def retake(self, live: Live, now_ms: int) -> tuple[Experiment, Experiment]:
        """Takes jobs that had ended into the round, or into the next one if it is over; the record before and after.

        The tally has them already. The manifest records it with these jobs.
        """
        before, ended = live.record, live.tally.ended
        after = replace(self._next_round(live, now_ms), earlier_jobs=ended) if live.round_is_over else before
        live.record = replace(after, earlier_jobs=min(after.earlier_jobs, ended))
        return before, live.record

    def _next_round(self, live: Live, now_ms: int) -> Experiment:
        return steered(live.record, steering.next_round(live.record.standing), now_ms)

    async def settling(self, live: Live, milliseconds: int | None) -> None:
        """Records how long the experiment has waited for stragglers."""
        await self._replace(live, replace(live.record, settling_ms=milliseconds))

    async def settled(self, live: Live, number: int) -> None:
        """Records that the document about this round is published. Its status follows in any case."""
        before, live.record = live.record, replace(live.record, settled_round=number)
        await self._commits.put(self._manifest.save_experiment(before, live.record), [_whole(live)])

    def are_recorded(self, live: Live) -> bool:
        """Whether the experiment's record in memory is on disk. Its news follow once it is."""
        return _whole(live) not in self._commits

    async def _replace(self, live: Live, after: Experiment) -> None:
        before, live.record = live.record, after
        await self._commits.put(self._manifest.save_experiment(before, after), [_whole(live)])
        self._on_change(live.key)

    async def expand(self, live: Live, points: Sequence[PointRecord], runs: Sequence[Run]) -> None:
        """Adds the next points of the experiment with their first runs. The experiment begins with the first ones."""
        expanded = live.record.expanded_points + len(points)
        before, begun = live.record, None
        if before.state is ExperimentState.ACCEPTED:
            live.record = _moved(before, ExperimentState.RUNNING, self._clock.now_ms(), None)
            begun = before, live.record
        await self._commits.put(self._manifest.expand(live.key, points, runs, expanded, begun=begun), [_whole(live)])
        live.record = replace(live.record, expanded_points=expanded)
        self._on_change(live.key)

    def version(self, live: Live, spec: NewExperiment) -> tuple[Experiment, Experiment]:
        """Gives the experiment the next version of its plan, with the points and jobs that it has; before and after.

        The manifest records it.
        """
        before = live.record
        size = before.spec
        spec = replace(spec, points=size.points, jobs=size.jobs)
        live.record = replace(before, spec=spec, plan_version=before.plan_version + 1)
        return before, live.record

    def grow(self, live: Live, points: int, jobs: int) -> tuple[Experiment, Experiment]:
        """Adds so many expanded points and jobs; they begin the next round if this one is over. Before and after.

        The manifest records it with these points and jobs.
        """
        before = after = live.record
        if jobs and live.round_is_over:
            after = replace(self._next_round(live, self._clock.now_ms()), earlier_jobs=live.tally.ended)
        spec = replace(before.spec, points=before.spec.points + points, jobs=before.spec.jobs + jobs)
        after = replace(after, spec=spec, expanded_points=before.expanded_points + points)
        live.record = after
        return before, after

    def changed(self, live: Live) -> None:
        """Says that there is news of the experiment."""
        self._on_change(live.key)

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
        # It isn't known to say what this manifest says: another status follows, also after a crash.
        live.record = replace(live.record, revision=revision)
        await self._manifest.record_status(live.key, revision, b"{}")


def _whole(live: Live) -> JobKey:
    """Stands for the whole experiment among the jobs that commits concern."""
    return live.key, -1, -1


def _moved(before: Experiment, to: ExperimentState, now_ms: int, reason: str | None) -> Experiment:
    """The record after a move to another state. An experiment that has ended is not paused."""
    ended = to in experiment.ENDED
    return replace(
        before,
        state=to,
        reason=reason,
        started_ms=now_ms if to is ExperimentState.RUNNING and before.started_ms is None else before.started_ms,
        finished_ms=now_ms if ended else None,
        pauses=frozenset() if ended else before.pauses,
        pause_now=not ended and before.pause_now,
    )


def steered(before: Experiment, standing: Standing, now_ms: int) -> Experiment:
    """The record after a person's change of its standing. A new round counts its settling anew."""
    reopened = standing.round > before.round
    moved = before if standing.state is before.state else _moved(before, standing.state, now_ms, None)
    return replace(
        moved,
        round=standing.round,
        pauses=standing.pauses,
        pause_now=standing.pause_now,
        cancel=standing.cancel,
        kept_open=standing.kept_open,
        settling_ms=None if reopened else before.settling_ms,
    )
