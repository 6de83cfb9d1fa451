"""Which experiments are in memory: loaded from the manifest when needed, pinned while in use, unloaded when done."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import Change, Experiment
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.active import ActiveExperiments
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.live import Live
from ems_worker.service.ledger.timers import Timers


class Residency:
    """Loads and unloads experiments. Nothing changes in an experiment that isn't in memory."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        active: ActiveExperiments,
        timers: Timers,
        commits: CommitQueue,
        lock: asyncio.Lock,
        read: Callable[[Experiment], Awaitable[Live]],
        on_change: Callable[[int], None],
    ) -> None:
        """`lock` is held during each decision about runs. `read` builds an experiment from its record."""
        self._manifest = manifest
        self._active = active
        self._timers = timers
        self._commits = commits
        self._lock = lock
        self._read = read
        self._on_change = on_change
        self._loading: dict[str, asyncio.Task[Live | None]] = {}
        # Ids of experiments that were removed from the manifest while they may have been about to be loaded.
        self._removed: set[str] = set()

    def admit(self, live: Live, open_jobs: Iterable[Job] = (), awaiting: Iterable[Run] = ()) -> None:
        """Adds an experiment, unless it is in memory, with its open jobs and the runs that wait for metrics."""
        if self._active.get(live.key) is not None:
            return
        self._active.add(live)
        for open_job in open_jobs:
            self._active.put((live.key, *open_job.key), open_job)
            for attempt in open_job.runs:
                if attempt.state in transitions.OPEN:
                    live.open += 1
                    self._active.open += 1
                    live.underway += lives.share(attempt)
                    self._active.claim_time(attempt.submitted_ms or 0)
                    self._timers.load((live.key, *open_job.key, attempt.attempt), attempt)
        for completed in awaiting:
            key = (live.key, completed.point, completed.replicate, completed.attempt)
            self._timers.wait_for_metrics(key, live.metrics_timeout(completed))

    async def load(self, experiment_id: str) -> Live | None:
        """Loads an experiment; None if the manifest doesn't have it. Must not be called under the lock.

        Raises errors.PlanNotReadAsAccepted. Reading a large plan takes seconds, during which other experiments
        continue. Tasks that load the same experiment share the reading. Its result is current when it is admitted,
        because nothing changes in an experiment that isn't in memory.
        """
        loading = self._loading.get(experiment_id)
        if loading is None:
            loading = self._loading[experiment_id] = asyncio.create_task(self._load(experiment_id))
            loading.add_done_callback(lambda _: self._loading.pop(experiment_id))
        return await asyncio.shield(loading)

    async def _load(self, experiment_id: str) -> Live | None:
        record = await self._manifest.experiment(experiment_id)
        if record is None:
            return None
        live = await self._read(record)
        jobs = [job for job, _ in await self._manifest.open_jobs(record.key)]
        awaiting = await self._manifest.awaiting(record.key)
        async with self._lock:
            if experiment_id in self._removed:
                return None
            self.admit(live, jobs, awaiting)
        return self._active.by_id(experiment_id)

    async def unload(self, key: int) -> None:
        """Unloads an experiment that has ended and has nothing left to publish or to carry out.

        A late event loads it again.
        """
        # Under the lock, because a decision about a run needs its experiment.
        async with self._lock:
            live = self._active.get(key)
            if live is None or live.pins or live.changes or not live.ended or live.open:
                return
            if live.record.published_seq == live.record.ended_seq and not self._commits.concerns(key):
                self._active.remove(live)

    async def remove(
        self, experiment_id: str, record: Callable[[], Awaitable[Change]], *, by_force: bool
    ) -> Change | None:
        """See `Ledger.remove`. Under the lock, so that no decision and no load comes in between."""
        async with self._lock:
            live = self._active.by_id(experiment_id)
            if live is not None and by_force:
                self._active.discard(live)
            elif live is not None or experiment_id in self._loading:
                return None
            removed = await record()
            self._removed.add(experiment_id)
            return removed

    @contextlib.asynccontextmanager
    async def pinned(self, experiment_id: str) -> AsyncIterator[Live | None]:
        """The experiment, which stays in memory for the block even if it has ended; None if the manifest has none."""
        loaded = False
        while (live := self._active.by_id(experiment_id)) is None:
            if await self.load(experiment_id) is None:
                yield None
                return
            loaded = True
        live.pins += 1
        before = live.record, live.recorded
        try:
            yield live
        finally:
            live.pins -= 1
            if loaded and live.record is before[0] and live.recorded is before[1]:
                # Nothing changed, so no report will follow that unloads it.
                await self.unload(live.key)
            elif live.ended:
                # A report that ended during the block could not unload it.
                self._on_change(live.key)
