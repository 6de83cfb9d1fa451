"""Chooses where a plan is read, by its unpacked size; moves to a process when more turns up than was expected."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from ems_worker import errors
from ems_worker.core.records import NewExperiment
from ems_worker.reading import process
from ems_worker.service.intake import check
from ems_worker.service.intake.check import ReadBase
from ems_worker.service.intake.examination import Examination, Examined

# Each may take as much memory as `process.MOST_MEMORY`.
_MOST_PROCESSES: Final = 2


class _LargeError(Exception):
    """Something is too large to be read in this process."""


class Examiner:
    """Has plans examined (`service.examination.Examiner`). `read_base` has to be picklable."""

    def __init__(self, read_base: ReadBase, most_bytes: int, max_jobs: int | None) -> None:
        self.bounds = process.Bounds(read_base, most_bytes, max_jobs)
        self._processes = asyncio.Semaphore(_MOST_PROCESSES)

    @contextlib.asynccontextmanager
    async def examine(self, data: bytes) -> AsyncIterator[Examined]:
        """The examination of one message's bytes; what it holds and runs is gone afterwards."""
        async with contextlib.AsyncExitStack() as stack:
            yield Examined(_Caller(data, self.bounds, self._processes, stack).call)


class _Caller:
    def __init__(
        self, data: bytes, bounds: process.Bounds, processes: asyncio.Semaphore, stack: contextlib.AsyncExitStack
    ) -> None:
        self._data = data
        self._bounds = bounds
        self._tools = bounds.tools()
        self._processes = processes
        self._stack = stack
        self._here: Examination | None = None
        if len(data) <= check.LARGE_BYTES:
            self._here = Examination(data, replace(self._tools, unpack=self._unpack, read_base=self._read_base))
        self._there: process.Process | None = None

    async def call(self, method: str, *given: Any) -> Any:
        """The method of the examination, with these arguments."""
        if self._here is not None:
            try:
                self._refuse_large(given)
                return await asyncio.to_thread(getattr(self._here, method), *given)
            except _LargeError:
                self._here = None
        if self._there is None:
            await self._stack.enter_async_context(self._processes)
            self._there = await self._stack.enter_async_context(process.begin(self._data, self._bounds))
            if method != "outline":
                await self._there.call("outline")
        return await self._there.call(method, *given)

    def _unpack(self, data: bytes, most_bytes: int) -> bytes:
        try:
            return self._tools.unpack(data, min(most_bytes, check.LARGE_BYTES))
        except errors.PlanRejected as error:
            if most_bytes > check.LARGE_BYTES:
                raise _LargeError from error
            raise

    def _read_base(self, path: str) -> bytes:
        base = self._tools.read_base(path)
        if len(base) > check.LARGE_BYTES:
            raise _LargeError
        return base

    def _refuse_large(self, given: tuple[Any, ...]) -> None:
        for one in given:
            if isinstance(one, NewExperiment) and len(one.plan) + len(one.base) > check.LARGE_BYTES:
                raise _LargeError
