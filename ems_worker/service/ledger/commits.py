"""Commits under way: they run in order and to their end, and a failed one ends the worker."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

import structlog

from ems_worker.service.ledger.live import JobKey

log = structlog.get_logger()

_T = TypeVar("_T")


class CommitQueue:
    """The commits under way, by which memory is ahead of the disk. The manifest's writer keeps their order."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        # The jobs that each of them concerns.
        self._jobs: list[frozenset[JobKey]] = []
        self._broken = asyncio.Event()
        self._failure: BaseException | None = None

    def put(
        self,
        work: Coroutine[Any, Any, _T],
        jobs: Collection[JobKey] = (),
        on_settled: Callable[[Iterable[JobKey]], None] = lambda _: None,
    ) -> asyncio.Future[_T]:
        """Starts a commit that concerns `jobs`. Cancelling the returned future doesn't cancel the commit.

        When the commit ends, successfully or not, `on_settled` receives those jobs that no other commit concerns.
        """
        concerned = frozenset(jobs)
        self._jobs.append(concerned)
        task = asyncio.create_task(self._settle(work, concerned, on_settled))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return asyncio.shield(task)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: object) -> bool:
        """Whether a commit under way concerns the job."""
        return any(key in jobs for jobs in self._jobs)

    def others(self, jobs: frozenset[JobKey] | set[JobKey]) -> Collection[JobKey]:
        """Those of these jobs that no commit under way concerns."""
        return jobs.difference(*self._jobs)

    def concerns(self, experiment_key: int) -> bool:
        """Whether a commit under way concerns a job of the experiment."""
        return any(key[0] == experiment_key for jobs in self._jobs for key in jobs)

    async def drained(self) -> None:
        """Waits for the commits that are under way now."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def until_broken(self) -> None:
        """Waits until a commit fails, and raises its error: memory no longer agrees with the disk.

        A request over the network that waits for the commit gets the error too, but can't end the worker.
        """
        await self._broken.wait()
        assert self._failure is not None
        raise self._failure

    async def _settle(
        self,
        work: Coroutine[Any, Any, _T],
        jobs: frozenset[JobKey],
        on_settled: Callable[[Iterable[JobKey]], None],
    ) -> _T:
        try:
            return await work
        finally:
            self._jobs.remove(jobs)
            on_settled(self.others(jobs))

    def _done(self, task: asyncio.Task[Any]) -> None:
        """Reports a failed commit even if the task that asked for it has ended."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("ledger.not_recorded", reason=str(error), kind=type(error).__name__)
            self._failure = self._failure or error
            self._broken.set()
