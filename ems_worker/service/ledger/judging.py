"""Changes that people request, carried out on jobs: a bounded number at a time, each with the change's new cursor.

The effect on the jobs and the cursor are one commit, so that a crash repeats exactly what was not recorded. Failing
fast drops jobs in the same way, without a cursor.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from msgspec.structs import replace

from ems_worker.core.lifecycle import job, restored
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Signal, StopReason
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.core.records import Change, PointRecord
from ems_worker.core.wire import PublishedResult
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.active import ActiveExperiments
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.ledger.records import Records
from ems_worker.service.ledger.turn import Turn

# The replicate of a cursor that is behind every job of its point.
ALL_REPLICATES = 2**31

_EVER_MS = 2**62
# A decision about all jobs doesn't look at their points.
NO_POINT = PointRecord(0, {})

Jobs = Sequence[tuple[Job, PointRecord]]


@dataclass(frozen=True, slots=True)
class Effect:
    """A job after a change, and the names of its states before and after as the change's counts have them."""

    job: Job
    before: str
    after: str


# The effect on a job, given its point and the time in milliseconds; None: the job isn't concerned.
Decide = Callable[[Job, PointRecord, int], Effect | None]


def counted(change: Change, before: str, after: str, jobs: int = 1) -> Change:
    """The change with these jobs added to its counts."""
    counts = {name: dict(to) for name, to in change.counts.items()}
    of_state = counts.setdefault(before, {})
    of_state[after] = of_state.get(after, 0) + jobs
    return replace(change, counts=counts)


class Judging:
    """Judges jobs of experiments that are in memory. Each method returns the change as it is recorded now."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        active: ActiveExperiments,
        commits: CommitQueue,
        records: Records,
        clock: Clock,
        turn: Callable[[], AbstractAsyncContextManager[Turn]],
    ) -> None:
        self._manifest = manifest
        self._active = active
        self._commits = commits
        self._records = records
        self._clock = clock
        self._turn = turn

    async def judge(
        self,
        live: Live,
        change: Change,
        decide: Decide,
        *,
        read: Callable[[tuple[int, int]], Awaitable[Jobs]],
        follows: bool = True,
        reopens: bool = False,
        advance: Callable[[Change, Jobs], Change] | None = None,
    ) -> Change:
        """Judges the jobs that `read` returns for the change's cursor.

        `follows`: jobs that are yet to be expanded are judged as well. `reopens`: an experiment that had ended and has
        jobs again begins a new round. `advance` moves the cursor beyond these jobs, if it isn't one of jobs alone; no
        jobs: beyond the last one.
        """
        assert change.judged is not None
        async with self._turn() as turn:
            now_ms, again = self._clock.now_ms(), False
            expanded, complete = live.record.expanded_points, live.expanded
            jobs = await read(change.judged)
            for stored, point in jobs:
                before = self._active.keep(live.key, stored)
                self._active.may_be_idle([(live.key, *stored.key)])
                if (effect := decide(before, point, now_ms)) is not None:
                    change = counted(change, effect.before, effect.after)
                    self._put(turn, live, before, effect)
                    again = again or not effect.job.current.settled
            if advance is not None:
                change = advance(change, jobs)
            elif jobs:
                change = replace(change, judged=jobs[-1][0].key)
            elif complete or not follows:
                change = replace(change, judged=None, changed=bool(change.counts))
            else:
                # The rest is judged when it is expanded.
                change = replace(change, judged=(expanded - 1, ALL_REPLICATES))
            if reopens and again:
                turn.count()
                turn.reopened = self._records.retake(live, now_ms)
                change = replace(change, state=live.record.state, round=live.record.round)
            turn.carry(live, change)
        return change

    async def stop_open(self, live: Live, change: Change, decide: Decide, limit: int) -> tuple[Change, int]:
        """Marks up to `limit` open runs of jobs that haven't ended; returns how many.

        They are stopped, unless they may end by themselves.
        """
        marked = 0
        async with self._turn() as turn:
            for key in [key for key, owner, run in self._active.open_runs() if owner is live and run.current]:
                before = self._active.job(key[:3])
                if before is not None and (effect := decide(before, NO_POINT, self._clock.now_ms())) is not None:
                    change = counted(change, effect.before, effect.after)
                    self._put(turn, live, before, effect)
                    marked += 1
                    if marked == limit:
                        break
            turn.carry(live, change)
        return change, marked

    async def cancel_unstarted(
        self, live: Live, change: Change, reason: StopReason, *, limit: int, bulk: int
    ) -> tuple[Change, int]:
        """Cancels some jobs that never started; returns how many. They have no results: they are only counted.

        Those in memory are cancelled like all others, `limit` at once. The rest is cancelled in the manifest alone,
        `bulk` at once.
        """
        async with self._turn() as turn:
            known = [known for key in self._active.jobs() if key[0] == live.key and (known := self._active.job(key))]
            unstarted = [before for before in known if job.unstarted(before)][:limit]
            for before in unstarted:
                after = job.cancelled(before, self._clock.now_ms(), reason)
                assert after is not None
                change = counted(change, RunState.PENDING, RunState.CANCELLED)
                turn.replace(live, before, after)
            if unstarted:
                turn.carry(live, change)
                return change, len(unstarted)
            # Under the lock of the turn: no job can be loaded as it was before.
            done = await self._commits.put(self._cancel_in_bulk(live, change, reason, bulk))
            return (counted(change, RunState.PENDING, RunState.CANCELLED, done) if done else change), done

    async def _cancel_in_bulk(self, live: Live, change: Change, reason: StopReason, limit: int) -> int:
        done = await self._manifest.cancel_unstarted(change, reason, limit, self._clock.now_ms())
        if done:
            live.tally = live.tally.cancelled_unstarted(done)
            live.recorded = live.recorded.cancelled_unstarted(done)
            live.unreported += done
            live.changes[change.number] = counted(change, RunState.PENDING, RunState.CANCELLED, done)
            self._records.changed(live)
        return done

    async def cancel_rest(self, live: Live, change: Change, decide: Decide, limit: int) -> Change:
        """Cancels jobs that wait for a further attempt or for metrics: those that `cancel_unstarted` leaves."""
        assert change.judged is not None
        async with self._turn() as turn:
            expanded, complete, now_ms = live.record.expanded_points, live.expanded, self._clock.now_ms()
            jobs: Sequence[Job] = [stored for stored, _ in await self._manifest.due(live.key, _EVER_MS, limit)]
            if not jobs:
                # By the cursor: with `drain` they go on waiting, and are not to be taken again and again.
                jobs = await self._manifest.awaiting_jobs(live.key, change.judged, limit)
                beyond = None if complete else (expanded - 1, ALL_REPLICATES)
                change = replace(change, judged=jobs[-1].key if jobs else beyond)
            for stored in jobs:
                before = self._active.keep(live.key, stored)
                self._active.may_be_idle([(live.key, *stored.key)])
                if (effect := decide(before, NO_POINT, now_ms)) is not None:
                    change = counted(change, effect.before, effect.after)
                    self._put(turn, live, before, effect)
            turn.carry(live, change)
        return change

    async def drop_pending(self, live: Live, limit: int) -> int:
        """Cancels up to `limit` pending runs of an experiment that is failing fast; returns 0 when none is left."""
        async with self._turn() as turn:
            if not live.failing_fast:
                return 0
            pending_jobs = await self._manifest.due(live.key, _EVER_MS, limit)
            for stored, _ in pending_jobs:
                pending = self._active.keep(live.key, stored).current
                if pending.state is RunState.PENDING:
                    run_key = (live.key, *stored.key, pending.attempt)
                    # With this reason a retry includes the job. A job that a person cancelled has another one.
                    turn.update(run_key, replace(pending, stop_reason=StopReason.FAILING_FAST))
                    turn.apply(run_key, Signal(RunEvent.CANCEL), self._clock.now_ms())
        return len(pending_jobs)

    async def reread(self, live: Live) -> None:
        """Reads the experiment's metrics again if a value left them: it can't be taken out of an aggregate.

        This takes a time in proportion to the number of points: it is for the end of a change, not for each step.
        """
        if not live.tally.stale:
            return
        async with self._turn():
            await self._commits.drained()
            # What is decided and what is recorded are the same now.
            metrics = await self._manifest.aggregates(live.key)
            live.tally = live.tally.reread(metrics)
            live.recorded = live.recorded.reread(metrics)
        self._records.changed(live)

    async def begin_attempts(self, live: Live, keys: Sequence[RunKey]) -> None:
        """Adds attempts of which an event tells, and that the restored manifest of the experiment lacks."""
        async with self._turn() as turn:
            await self._active.load_jobs({key[:3] for key in keys})
            for key in keys:
                if (before := self._active.job(key[:3])) is not None:
                    after = restored.with_attempt(before, key[3], self._clock.now_ms())
                    if after is not None:
                        turn.replace(live, before, after)

    async def catch_up(self, live: Live, published: Mapping[RunKey, PublishedResult]) -> None:
        """Counts ends of jobs of an experiment that were published and aren't in its restored manifest.

        A job that has ended otherwise than was published has one end more, which is published in turn.
        """
        async with self._turn() as turn:
            await self._active.load_jobs({key[:3] for key in published})
            for key, result in published.items():
                if (before := self._active.job(key[:3])) is not None:
                    ended = restored.with_attempt(before, key[3], self._clock.now_ms(), ended=True)
                    after = restored.counted(ended or before, result)
                    if ended is not None or restored.ends_anew(after, key[3], result):
                        after = turn.numbered(live, after)
                    turn.replace(live, before, after)

    async def carry(self, live: Live, change: Change) -> Change:
        """Records how far a change is, after all that was decided before."""
        async with self._turn() as turn:
            turn.carry(live, change)
        return change

    def _put(self, turn: Turn, live: Live, before: Job, effect: Effect) -> None:
        after = effect.job
        if job.has_new_result(before, after):
            after = turn.numbered(live, after)
        turn.replace(live, before, after)
