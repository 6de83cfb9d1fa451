"""What was decided in memory on its way to the disk: queued in order, seen through, and forgotten when it is there."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from ems_worker.core.lifecycle import run
from ems_worker.core.lifecycle.experiment import Tally
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.live import Batch, JobKey, Registry

log = structlog.get_logger()


class Commits(Registry):
    """The part of the ledger that records. Memory is ahead of the disk by the commits under way."""

    def __init__(self, manifest: Manifest, on_change: Callable[[int], None]) -> None:
        super().__init__(manifest)
        self._on_change = on_change
        self._uncommitted: dict[JobKey, int] = {}
        # Jobs that may no longer be worth remembering, see _tidy.
        self._idle: set[JobKey] = set()
        self._commits: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()
        self._failure: BaseException | None = None

    def _commit(self, batch: Batch) -> asyncio.Future[None]:
        """Queues the batch for the writer."""
        for place in batch.places:
            self._uncommitted[place] = self._uncommitted.get(place, 0) + 1
        tallies = {key: self.experiments[key].tally for key in batch.touched}
        return self._see_through(self._record(batch, tallies))

    def _see_through(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Work that what is in memory already relies on: whoever waits for it may be cancelled, it may not."""
        task = asyncio.create_task(work)
        self._commits.add(task)
        task.add_done_callback(self._recorded)
        return asyncio.shield(task)

    def _recorded(self, task: asyncio.Task[None]) -> None:
        """Whoever asked may be gone; what became of the commit is told all the same."""
        self._commits.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("ledger.not_recorded", reason=str(error), kind=type(error).__name__)
            self._failure = self._failure or error
            self._broken.set()

    async def until_broken(self) -> None:
        """Waits until something could not be recorded, and raises that: memory is wrong then, only a new start helps.

        For those who ask for changes over the network get the error as an answer: they can't end the worker with it.
        """
        await self._broken.wait()
        assert self._failure is not None
        raise self._failure

    async def _record(self, batch: Batch, tallies: Mapping[int, Tally]) -> None:
        try:
            if batch.changes:
                await self.manifest.save(batch.changes, batch.ended_seq)
        finally:
            for place in batch.places:
                self._uncommitted[place] -= 1
                if not self._uncommitted[place]:
                    del self._uncommitted[place]
                    self._idle.add(place)
        for key, tally in tallies.items():
            if (live := self.experiments.get(key)) is not None:
                live.recorded = tally
            self._on_change(key)

    def _tidy(self) -> None:
        """Keeps in memory only jobs that have an open attempt or are not on disk yet; the manifest has the rest.

        Only at the beginning of a turn: what is looked up in the midst of one must not vanish before it is used, nor
        be older than what was decided meanwhile.
        """
        for place in self._idle:
            one = self.jobs.get(place)
            if one is None or place in self._uncommitted or any(attempt.state in run.OPEN for attempt in one.runs):
                continue
            del self.jobs[place]
        self._idle.clear()
