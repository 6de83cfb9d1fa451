"""The one place where runs change state: it gathers a job, asks the core, and has the manifest record the answer.

Decisions are made one after another under a lock and are in memory at once; their commits are queued in the same order
and shared by the manifest's writer. Nothing that a decision announces (a call, an ack, a message) happens before
`hear` returns, which is after the commit.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from ems_worker import errors
from ems_worker.core.lifecycle import experiment, job, run
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.job import Decision, Job
from ems_worker.core.lifecycle.run import Run, RunEvent, RunState, Signal, StopReason, Verdict, Waiting
from ems_worker.core.records import ChangeRequest, Experiment, PointRecord
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.live import Batch, JobKey, Live, RunKey
from ems_worker.service.ledger.residency import TIMED, Presence

log = structlog.get_logger()


# Verdicts that change something on disk.
_CHANGES = (Verdict.APPLY, Verdict.NOTE)


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a signal. `known` is false for a run that the manifest doesn't have."""

    known: bool
    verdict: Verdict | None = None
    ended: bool = False


class Ledger(Presence):
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
        super().__init__(manifest, clock, load, on_change)
        self._on_end = on_end

    async def hear(self, signals: Sequence[tuple[RunKey, Signal]]) -> list[Heard]:
        """Applies signals, those of an experiment in their order; returns when what they changed is in the manifest.

        Those that change an experiment which was let go are applied last: it is taken up for them first, while others
        go on. Raises errors.ManifestConflict or errors.ManifestUnusable if something could not be recorded.
        """
        heard: dict[int, Heard] = {}
        left = list(enumerate(signals))
        roused: list[tuple[Live, Experiment]] = []
        while True:
            async with self._lock:
                self._tidy()
                await self._load({key[:3] for _, (key, _) in left})
                asleep = {key[0] for _, (key, signal) in left if self._is_asleep(key, signal)}
                batch = Batch()
                for index, (key, signal) in left:
                    if key[0] not in asleep:
                        heard[index] = self._decide(key, signal, batch)
                commit = self._commit(batch)
            await commit
            await self._conclude(batch.touched)
            for experiment_key in asleep:
                experiment_id = self._over[experiment_key]
                try:
                    live = await self.take_up(experiment_id)
                except errors.PlanNotReadAsAccepted as error:
                    self.leave_out(experiment_id, error)
                    heard |= {index: Heard(known=False) for index, (key, _) in left if key[0] == experiment_key}
                else:
                    assert live is not None  # one of its jobs was found
                    roused.append((live, live.record))
            left = [one for one in left if one[0] not in heard]
            if not left:
                break
        for live, before in roused:
            if live.record is before:
                # Nothing became of it that is reported, after which it would be let go.
                await self.dismiss(live.key)
        return [heard[index] for index in range(len(signals))]

    async def claim(self, key: int, limit: int) -> list[tuple[Run, PointRecord]]:
        """Moves up to `limit` due runs of the experiment to submitting; returns them once that is on disk."""
        async with self._lock:
            self._tidy()
            live = self.experiments.get(key)
            if live is None or live.over or live.doomed:
                return []
            now_ms = self._clock.now_ms()
            self.claimed_ms = max(self.claimed_ms, now_ms)
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
                self._decide((*place, pending.attempt), Signal(RunEvent.CLAIM), batch, self.claimed_ms)
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
                if one is not None and one.attempt(key[3]).state in run.OPEN:
                    self._put(key, replace(one.attempt(key[3]), stop_reason=reason), batch)
            commit = self._commit(batch)
        await commit

    async def forget_time(self, runs: Iterable[RunKey]) -> None:
        """Of runs that are sent again to an orchestrator that forgot them: what they had used of their limits.

        Their time counts from the orchestrator's next word on them: until then they wait to be submitted.
        """
        async with self._lock:
            batch = Batch()
            for key in runs:
                one = self.jobs.get(key[:3])
                if one is not None and one.attempt(key[3]).state in TIMED:
                    self._put(key, run.forgotten(one.attempt(key[3])), batch)
                    self.since.pop(key, None)
            commit = self._commit(batch)
        await commit

    async def retry(self, key: int, after_job: tuple[int, int], limit: int) -> tuple[int, tuple[int, int] | None]:
        """Up to `limit` jobs after one of the experiment that failed, were lost or dropped, once more.

        How many were there to be tried again, and the last (point, replicate) that was looked at: None at the end.
        """
        async with self._lock:
            self._tidy()
            batch, live, count = Batch(), self.experiments[key], 0
            found = await self.manifest.to_retry(key, after_job, limit)
            for stored in found:
                before = self.jobs.setdefault((key, *stored.key), stored)
                self._idle.add((key, *stored.key))
                if (after := job.again(before, self._clock.now_ms())) is not None:
                    self._change(live, before, after, batch)
                    count += 1
            commit = self._commit(batch)
        await commit
        return count, found[-1].key if found else None

    async def count_time(self) -> None:
        """Puts on disk how much of their limits open runs have used: a crash only adds to a limit what comes after."""
        async with self._lock:
            batch, now = Batch(), self._clock.monotonic()
            for key, since in self.since.items():
                one = self.jobs[key[:3]].attempt(key[3])
                self._put(key, replace(one, elapsed_ms=one.elapsed_ms + round(1000 * (now - since))), batch)
                self.since[key] = now
            commit = self._commit(batch)
        await commit

    async def cancel_pending(self, key: int, limit: int) -> int:
        """Cancels up to `limit` runs of a doomed experiment that were never announced; how many those were."""
        async with self._lock:
            self._tidy()
            batch = Batch()
            live = self.experiments.get(key)
            if live is None or not live.doomed:
                return 0
            found = await self.manifest.due(key, 2**62, limit)
            for stored, _ in found:
                place = (key, *stored.key)
                one = self.jobs.setdefault(place, stored)
                if one.current.state is RunState.PENDING:
                    # Recorded, so that a retry takes it: what somebody cancels on purpose stays cancelled.
                    unwanted = replace(one.current, stop_reason=StopReason.UNWANTED)
                    self.jobs[place] = Job((*one.runs[:-1], unwanted))
                    self._decide((*place, unwanted.attempt), Signal(RunEvent.CANCEL), batch)
            commit = self._commit(batch)
        await commit
        await self._conclude(batch.touched)
        return len(found)

    async def _load(self, places: set[JobKey]) -> None:
        missing = [place for place in places if place not in self.jobs]
        if missing:
            self._idle.update(missing)
            self.jobs.update(await self.manifest.jobs(missing))

    def _is_asleep(self, key: RunKey, signal: Signal) -> bool:
        """Whether the signal changes a job of an experiment that was let go."""
        if key[0] in self.experiments or (one := self.jobs.get(key[:3])) is None or key[3] > len(one.runs):
            return False
        # What its jobs wait for isn't known here, and doesn't matter: without other metrics the same are absent.
        return run.advance(one.attempt(key[3]), signal, self._clock.now_ms())[0] in _CHANGES

    def _decide(self, key: RunKey, signal: Signal, batch: Batch, now_ms: int | None = None) -> Heard:
        place = key[:3]
        before = self.jobs.get(place)
        if before is None or key[3] > len(before.runs):
            return Heard(known=False)
        live = self.experiments.get(key[0])
        now_ms = self._clock.now_ms() if now_ms is None else now_ms
        if live is None:
            decision = Decision(run.advance(before.attempt(key[3]), signal, now_ms)[0], before)
        else:
            wanted = not live.over and not live.doomed
            decision = job.decide(before, key[3], signal, live.policy, now_ms, wanted)
        if live is None or decision.verdict not in _CHANGES:
            batch.places.add(place)
            now = self._clock.monotonic()
            if key in self.heard:
                self.heard[key] = now
            if before.attempt(key[3]).state in TIMED:
                # Of one that was sent again: the orchestrator has it.
                self.since.setdefault(key, now)
            return Heard(True, decision.verdict)
        after = decision.job
        if decision.ended:
            after = job.number_end(after, batch.next_seq(live))
        self._change(live, before, after, batch)
        return Heard(True, decision.verdict, decision.ended)

    def _put(self, key: RunKey, after: Run, batch: Batch) -> None:
        """Puts an attempt in the place of what it was, where its job stays as it is."""
        before = self.jobs[key[:3]]
        self.jobs[key[:3]] = Job(tuple(after if one.attempt == key[3] else one for one in before.runs))
        batch.note(key[:3], before, self.jobs[key[:3]])

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
        live.attempts += old is None
        place = (live.key, new.point, new.replicate, new.attempt)
        if not now:
            self.since.pop(place, None)
            self.heard.pop(place, None)
        elif old is None or (old.state, old.started_ms) != (new.state, new.started_ms):
            self.heard[place] = self._clock.monotonic()
            self._time(live.key, new)
        if new.ended and (old is None or not old.ended):
            self._on_end(place, new)
        if new.waiting is Waiting.AWAITING:
            self._await(live, new)
        else:
            self._await_no_more(place)

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
        await self.move(live, to, experiment.reason(live.recorded, live.allowed))
        crash.point("ledger.concluded")
        log.info("experiment.ended", experiment_id=live.experiment_id, state=to.value, failures=live.recorded.failures)

    async def change(self, live: Live, request: ChangeRequest, to: ExperimentState | None) -> None:
        """Records what somebody asked for, and with it moves the experiment to another state, if to any."""
        before = live.record
        if to is None:
            await self._see_through(self.manifest.record_request(request))
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
        await self._see_through(self.manifest.record_request(request, (before.state, to)))
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
