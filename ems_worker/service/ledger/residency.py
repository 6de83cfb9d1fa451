"""Which experiments are in memory: taken up, held, and let go; and since when their runs wait for something."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import structlog

from ems_worker import errors
from ems_worker.core.lifecycle import run
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run, RunState
from ems_worker.core.records import Experiment
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.commits import Commits
from ems_worker.service.ledger.live import Live, RunKey

log = structlog.get_logger()

# States in which time counts against a run's limit.
TIMED = (RunState.SUBMITTED, RunState.RUNNING)


class Presence(Commits):
    """The part of the ledger that has experiments come and go. Nothing is changed of one that isn't live."""

    def __init__(
        self,
        manifest: Manifest,
        clock: Clock,
        load: Callable[[Experiment], Awaitable[Live]],
        on_change: Callable[[int], None],
    ) -> None:
        super().__init__(manifest, on_change)
        self._clock = clock
        self._load_experiment = load
        # When the last run was claimed. This never goes back, though the clock may: by it older runs are told from
        # younger ones, and those that an orchestrator lost from those that it had before it was wiped.
        self.claimed_ms = 0
        # Who decides about runs, one after another.
        self._lock = asyncio.Lock()
        # Experiments that are being read, by id.
        self._coming: dict[str, asyncio.Task[Live | None]] = {}
        # Since when, on the monotonic clock, a completed run's job has waited for metrics.
        self._awaiting_since: dict[RunKey, float] = {}

    def admit(self, live: Live, open_jobs: Iterable[Job] = (), awaiting: Iterable[Run] = ()) -> None:
        """Takes up an experiment with the jobs that have an open attempt, and the runs whose jobs wait for metrics.

        One that is live already stays as it is.
        """
        if live.key in self.experiments:
            return
        self.experiments[live.key] = live
        self._by_id[live.experiment_id] = live.key
        for one in open_jobs:
            self.jobs[live.key, *one.key] = one
            for attempt in one.runs:
                if attempt.state in run.OPEN:
                    live.open += 1
                    self.claimed_ms = max(self.claimed_ms, attempt.submitted_ms or 0)
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

    @contextlib.asynccontextmanager
    async def taken_up(self, experiment_id: str) -> AsyncIterator[Live | None]:
        """The experiment, live for the time of the block even if it has ended; None if the manifest hasn't got it."""
        read = False
        while (live := self.live(experiment_id)) is None:
            if await self.take_up(experiment_id) is None:
                yield None
                return
            read = True
        live.held += 1
        before = live.record
        try:
            yield live
        finally:
            live.held -= 1
            if read and live.record is before:
                # Nothing became of it: nobody else would let go of it.
                await self.dismiss(live.key)
            elif live.over:
                # Whoever reported on it meanwhile could not let go of it.
                self._on_change(live.key)

    async def take_up(self, experiment_id: str) -> Live | None:
        """Makes an experiment live that isn't; None if the manifest hasn't got it. Not to be called under the lock.

        Raises errors.PlanNotReadAsAccepted.
        Reading a large one takes seconds, in which all others go on. Whoever wants it too waits for the same reading;
        as nothing changes of what isn't live, that is still true when it is admitted.
        """
        coming = self._coming.get(experiment_id)
        if coming is None:
            coming = self._coming[experiment_id] = asyncio.create_task(self._read(experiment_id))
            coming.add_done_callback(lambda _: self._coming.pop(experiment_id))
        return await asyncio.shield(coming)

    async def _read(self, experiment_id: str) -> Live | None:
        record = await self.manifest.experiment(experiment_id)
        if record is None:
            return None
        live = await self._load_experiment(record)
        jobs = [one for one, _ in await self.manifest.open_jobs(record.key)]
        awaiting = await self.manifest.awaiting(record.key)
        async with self._lock:
            self.admit(live, jobs, awaiting)
        return self.experiments[record.key]

    def leave_out(self, experiment_id: str, error: errors.PlanNotReadAsAccepted) -> None:
        """Does without an experiment whose plan can't be read as it was accepted; others go on."""
        self.left_out[experiment_id] = str(error)
        log.error("experiment.left_out", experiment_id=experiment_id, reason=str(error))

    def _await(self, live: Live, one: Run) -> None:
        """Notes until when metrics are waited for: the first time limit of those that aren't there."""
        place = (live.key, one.point, one.replicate, one.attempt)
        # The waiting began when the run completed, whatever has come since.
        since = self._awaiting_since.setdefault(place, self._clock.monotonic())
        absent = live.policy.awaited - (one.metrics or {}).keys()
        self.awaiting[place] = since + min((live.metric_timeouts[name] for name in absent), default=0.0)

    def _await_no_more(self, place: RunKey) -> None:
        self.awaiting.pop(place, None)
        self._awaiting_since.pop(place, None)

    def _time(self, key: int, one: Run) -> None:
        if one.state in TIMED:
            self.since[key, one.point, one.replicate, one.attempt] = self._clock.monotonic()
