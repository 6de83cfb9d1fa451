"""The one place where runs change state: it gathers a job, asks the core, and has the manifest record the answer.

Decisions are made one after another under a lock and are in memory at once; their commits are queued in the same order
and shared by the manifest's writer. Nothing that a decision announces (a call, an ack, a message) happens before
`hear` returns, which is after the commit.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from ems_worker.core import experiment, job, run
from ems_worker.core.experiment import ExperimentState
from ems_worker.core.job import Job
from ems_worker.core.records import ChangeRequest, Experiment, PointRecord
from ems_worker.core.run import Run, RunEvent, RunState, Signal, StopReason, Verdict, Waiting
from ems_worker.service import crash
from ems_worker.service.clock import Clock
from ems_worker.service.commits import Commits
from ems_worker.service.live import Batch, JobKey, Live, RunKey
from ems_worker.service.ports import Manifest

log = structlog.get_logger()


# Verdicts that change something on disk.
_CHANGES = (Verdict.APPLY, Verdict.NOTE)


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a signal. `known` is false for a run that the manifest doesn't have."""

    known: bool
    verdict: Verdict | None = None
    ended: bool = False


class Ledger(Commits):
    """Live experiments and their open jobs, in step with the manifest."""

    def __init__(
        self,
        manifest: Manifest,
        clock: Clock,
        load: Callable[[Experiment], Awaitable[Live]],
        on_change: Callable[[int], None],
        on_end: Callable[[RunKey, Run], None] = lambda *_: None,
    ) -> None:
        """`load` makes an experiment live again from its record.

        `on_change` hears which experiment has news, `on_end` each run that ends.
        """
        super().__init__(manifest, on_change)
        self._clock = clock
        self._load_experiment = load
        self._on_end = on_end
        self._lock = asyncio.Lock()

    def admit(self, live: Live, open_jobs: Iterable[Job] = (), awaiting: Iterable[Run] = ()) -> None:
        """Takes up an experiment with the jobs that have an open attempt, and the runs whose jobs wait for metrics."""
        self.experiments[live.key] = live
        self._by_id[live.experiment_id] = live.key
        for one in open_jobs:
            self.jobs[live.key, *one.key] = one
            for attempt in one.runs:
                if attempt.state in run.OPEN:
                    live.open += 1
                    self._time(live.key, attempt)
        for one_run in awaiting:
            self._await(live, one_run)

    async def dismiss(self, key: int) -> None:
        """Lets go of an experiment that has ended and is reported, unless there is news; late events revive it."""
        # Under the lock: whoever decides about a job relies on its experiment.
        async with self._lock:
            live = self.experiments.get(key)
            if live is None or live.held:
                return
            reported = live.record.published_seq == live.record.ended_seq
            if live.over and reported and not live.open and not any(place[0] == key for place in self._uncommitted):
                del self.experiments[key], self._by_id[live.experiment_id]
                self._over[key] = live.experiment_id

    async def hear(self, signals: Sequence[tuple[RunKey, Signal]]) -> list[Heard]:
        """Applies signals in their order; returns when what they changed is in the manifest.

        Raises errors.ManifestConflict or errors.ManifestUnusable if it could not be recorded.
        """
        async with self._lock:
            self._tidy()
            await self._load({key[:3] for key, _ in signals})
            await self._revive(signals)
            batch = Batch()
            heard = [self._decide(key, signal, batch) for key, signal in signals]
            commit = self._commit(batch)
        await commit
        await self._conclude(batch.touched)
        return heard

    async def claim(self, key: int, limit: int) -> list[tuple[Run, PointRecord]]:
        """Moves up to `limit` due runs of the experiment to submitting; returns them once that is on disk."""
        async with self._lock:
            self._tidy()
            live = self.experiments.get(key)
            if live is None or live.over or live.doomed:
                return []
            now_ms = self._clock.now_ms()
            batch = Batch()
            claimed: list[tuple[Run, PointRecord]] = []
            for found, point in await self.manifest.due(key, now_ms, limit):
                place = (key, *found.key)
                one = self.jobs.setdefault(place, found)
                pending = one.current
                if pending.state is not RunState.PENDING:
                    continue
                sha = live.template.config_sha(point.params, pending.seed)
                self.jobs[place] = Job((*one.runs[:-1], replace(pending, config_sha=sha)))
                self._decide((*place, pending.attempt), Signal(RunEvent.CLAIM), batch)
                claimed.append((self.jobs[place].current, point))
            commit = self._commit(batch)
        await commit
        return claimed

    async def ask_to_stop(self, runs: Sequence[tuple[RunKey, StopReason]]) -> None:
        """Notes on open runs that they are to be stopped, and why, before STOP is sent."""
        async with self._lock:
            batch = Batch()
            for key, reason in runs:
                one = self.jobs.get(key[:3])
                if one is None or one.attempt(key[3]).state not in run.OPEN:
                    continue
                before = one.attempt(key[3])
                after = replace(before, stop_reason=reason)
                self.jobs[key[:3]] = Job(tuple(after if r is before else r for r in one.runs))
                batch.note(key[:3], one, self.jobs[key[:3]])
            commit = self._commit(batch)
        await commit

    async def retry(self, key: int, jobs: Sequence[Job]) -> int:
        """Jobs that failed or were lost, once more; how many of these there were among them."""
        async with self._lock:
            self._tidy()
            batch, live, count = Batch(), self.experiments[key], 0
            for stored in jobs:
                before = self.jobs.setdefault((key, *stored.key), stored)
                self._idle.add((key, *stored.key))
                if (after := job.again(before, self._clock.now_ms())) is not None:
                    self._change(live, before, after, batch)
                    count += 1
            commit = self._commit(batch)
        await commit
        return count

    async def count_time(self) -> None:
        """Puts on disk how much of their limits open runs have used: a crash only adds to a limit what comes after."""
        async with self._lock:
            batch, now = Batch(), self._clock.monotonic()
            for key, since in self.since.items():
                one = self.jobs[key[:3]]
                used = round(1000 * (now - since))
                runs = tuple(replace(r, elapsed_ms=r.elapsed_ms + used) if r.attempt == key[3] else r for r in one.runs)
                self.jobs[key[:3]] = Job(runs)
                self.since[key] = now
                batch.note(key[:3], one, self.jobs[key[:3]])
            commit = self._commit(batch)
        await commit

    async def cancel_pending(self, key: int, limit: int) -> int:
        """Cancels up to `limit` runs that were never announced; how many those were."""
        async with self._lock:
            self._tidy()
            batch = Batch()
            found = await self.manifest.due(key, 2**62, limit)
            for stored, _ in found:
                place = (key, *stored.key)
                one = self.jobs.setdefault(place, stored)
                if one.current.state is RunState.PENDING:
                    self._decide((*place, one.current.attempt), Signal(RunEvent.CANCEL), batch)
            commit = self._commit(batch)
        await commit
        await self._conclude(batch.touched)
        return len(found)

    async def _load(self, places: set[JobKey]) -> None:
        missing = [place for place in places if place not in self.jobs]
        if missing:
            self._idle.update(missing)
            self.jobs.update(await self.manifest.jobs(missing))

    async def _revive(self, signals: Sequence[tuple[RunKey, Signal]]) -> None:
        """Takes up an experiment that was let go if a signal changes one of its jobs after all."""
        for key, signal in signals:
            if key[0] in self.experiments or (one := self.jobs.get(key[:3])) is None or key[3] > len(one.runs):
                continue
            if run.TRANSITIONS[one.attempt(key[3]).state, signal.event].verdict in _CHANGES:
                await self._take_up(self._over[key[0]])

    @contextlib.asynccontextmanager
    async def taken_up(self, experiment_id: str) -> AsyncIterator[Live | None]:
        """The experiment, live for the time of the block even if it has ended; None if the manifest hasn't got it."""
        async with self._lock:
            known = self.live(experiment_id)
            live = known or await self._take_up(experiment_id)
            if live is not None:
                live.held += 1
        if live is None:
            yield None
            return
        before = live.record
        try:
            yield live
        finally:
            live.held -= 1
            if known is None and live.record is before:
                # Nothing became of it: nobody else would let go of it.
                await self.dismiss(live.key)

    async def _take_up(self, experiment_id: str) -> Live | None:
        record = await self.manifest.experiment(experiment_id)
        if record is None:
            return None
        live = await self._load_experiment(record)
        jobs = [one for one, _ in await self.manifest.open_jobs(record.key)]
        self.admit(live, jobs, await self.manifest.awaiting(record.key))
        return live

    def _decide(self, key: RunKey, signal: Signal, batch: Batch) -> Heard:
        place = key[:3]
        before = self.jobs.get(place)
        if before is None or key[3] > len(before.runs):
            return Heard(known=False)
        verdict = run.TRANSITIONS[before.attempt(key[3]).state, signal.event].verdict
        if verdict not in _CHANGES:
            batch.places.add(place)
            if key in self.heard:
                self.heard[key] = self._clock.monotonic()
            return Heard(True, verdict)
        live = self.experiments[key[0]]
        wanted = not live.over and not live.doomed
        decision = job.decide(before, key[3], signal, live.policy, self._clock.now_ms(), wanted)
        after = decision.job
        if decision.ended:
            after = job.number_end(after, batch.next_seq(live))
        self._change(live, before, after, batch)
        return Heard(True, decision.verdict, decision.ended)

    def _change(self, live: Live, before: Job, after: Job, batch: Batch) -> None:
        """Puts a job in the place of what it was, everywhere in memory, and into the batch."""
        place = (live.key, *after.key)
        self.jobs[place] = after
        batch.note(place, before, after)
        for old, new in job.changed(before, after):
            self._count(live, old, new)
        if before.current != after.current:
            live.tally = live.tally.after([(before.current, after.current)])

    def _count(self, live: Live, old: Run | None, new: Run) -> None:
        was = old is not None and old.state in run.OPEN
        now = new.state in run.OPEN
        live.open += now - was
        place = (live.key, new.point, new.replicate, new.attempt)
        if not now:
            self.since.pop(place, None)
            self.heard.pop(place, None)
        elif old is None or old.state is not new.state:
            self.heard[place] = self._clock.monotonic()
            self._time(live.key, new)
        if new.ended and (old is None or not old.ended):
            self._on_end(place, new)
        if new.waiting is Waiting.AWAITING:
            self._await(live, new)
        else:
            self.awaiting.pop(place, None)

    def _await(self, live: Live, one: Run) -> None:
        """Notes until when metrics are waited for: the first time limit of those that aren't there."""
        absent = live.policy.awaited - (one.metrics or {}).keys()
        seconds = min((live.metric_timeouts[name] for name in absent), default=0.0)
        self.awaiting[live.key, one.point, one.replicate, one.attempt] = self._clock.monotonic() + seconds

    def _time(self, key: int, one: Run) -> None:
        if one.state in (RunState.SUBMITTED, RunState.RUNNING):
            self.since[key, one.point, one.replicate, one.attempt] = self._clock.monotonic()

    async def _conclude(self, keys: Iterable[int]) -> None:
        for key in keys:
            if (live := self.experiments.get(key)) is not None:
                await self.conclude(live)

    async def conclude(self, live: Live) -> None:
        """Ends the experiment if all its jobs have ended."""
        event = experiment.conclusion(live.recorded, live.allowed)
        if event is None or live.reopening:
            return
        crash.point("ledger.concluding")
        state = live.record.state
        to = experiment.TRANSITIONS[state, event]
        if to is None:
            return
        reason = "too many jobs failed" if to is ExperimentState.FAILED else None
        await self.move(live, to, reason)
        crash.point("ledger.concluded")
        log.info("experiment.ended", experiment_id=live.experiment_id, state=to.value, failures=live.recorded.failures)

    async def change(self, live: Live, request: ChangeRequest, to: ExperimentState | None) -> None:
        """Records what somebody asked for, and with it moves the experiment to another state, if to any."""
        before = live.record
        if to is None:
            await self.manifest.record_request(request)
            return
        ended = before.state in experiment.ENDED
        live.record = replace(
            before,
            state=to,
            reason=None,
            round=before.round + ended,
            finished_ms=None,
            started_ms=before.started_ms or request.received_ms,
        )
        await self.manifest.record_request(request, (before.state, to))
        self._on_change(live.key)

    async def catch_up_revision(self, live: Live, revision: int) -> None:
        """The next status gets a revision above this one: statuses that are published already can't be taken back."""
        live.record = replace(live.record, revision=revision, published_revision=revision)
        await self.manifest.record_status(live.key, revision, b"{}")
        await self.manifest.revision_published(live.key, revision)

    async def move(self, live: Live, to: ExperimentState, reason: str | None = None) -> None:
        """Moves the experiment to another state, in memory and then on disk."""
        now_ms = self._clock.now_ms()
        before = live.record
        started = now_ms if to is ExperimentState.RUNNING and before.started_ms is None else before.started_ms
        finished = now_ms if to in experiment.ENDED else None
        live.record = replace(before, state=to, started_ms=started, finished_ms=finished, reason=reason)
        await self._see_through(self.manifest.move_experiment(before.key, before.state, to, now_ms, reason))
        self._on_change(before.key)
