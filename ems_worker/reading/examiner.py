"""Chooses where a plan is read by its unpacked size, and moves it to a process if it turns out larger than expected."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from ems_worker import errors
from ems_worker.core.records import NewExperiment
from ems_worker.reading import process
from ems_worker.reading.process import Allowance, Options, Process
from ems_worker.service.intake import check
from ems_worker.service.intake.check import ReadBase
from ems_worker.service.intake.examination import Examination, Examined

# Each process may use as much memory as its allowance has.
_MAX_PROCESSES: Final = 2
# The methods that read the plan themselves.
_READING: Final = ("outline", "extension")


class _LargeError(Exception):
    """Something is too large to be read in this process."""


class Examiner:
    """Examines plans; implements `service.intake.examination.Examiner`. `read_base` must be picklable."""

    def __init__(
        self,
        read_base: ReadBase,
        max_bytes: int,
        max_jobs: int | None,
        allowance: Allowance = process.DEFAULT_ALLOWANCE,
    ) -> None:
        self.options = Options(read_base, max_bytes, max_jobs, allowance)
        self._processes = asyncio.Semaphore(_MAX_PROCESSES)

    @contextlib.asynccontextmanager
    async def examine(self, data: bytes) -> AsyncIterator[Examined]:
        """The examination of a message. At the end its process is killed and its memory freed."""
        async with contextlib.AsyncExitStack() as stack:
            yield Examined(_Caller(data, self.options, self._processes, stack).call)


class _Caller:
    """Calls the methods of an examination in a thread, or in a process if something is large."""

    def __init__(
        self, data: bytes, options: Options, processes: asyncio.Semaphore, stack: contextlib.AsyncExitStack
    ) -> None:
        self._data = data
        self._options = options
        self._tools = options.tools()
        self._processes = processes
        self._stack = stack
        self._local: Examination | None = None
        if len(data) <= check.LARGE_BYTES:
            self._local = Examination(data, replace(self._tools, unpack=self._unpack, read_base=self._read_base))
        self._remote: Process | None = None

    async def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the examination with these arguments."""
        if self._local is not None:
            try:
                self._refuse_large(arguments)
                return await asyncio.to_thread(getattr(self._local, method), *arguments)
            except _LargeError:
                self._local = None
        if self._remote is None:
            await self._stack.enter_async_context(self._processes)
            self._remote = await self._stack.enter_async_context(process.start(self._data, self._options))
            if method not in _READING:
                await self._remote.call("outline")
        return await self._remote.call(method, *arguments)

    def _unpack(self, data: bytes, max_bytes: int) -> bytes:
        try:
            return self._tools.unpack(data, min(max_bytes, check.LARGE_BYTES))
        except errors.PlanRejected as error:
            if max_bytes > check.LARGE_BYTES:
                raise _LargeError from error
            raise

    def _read_base(self, path: str) -> bytes:
        base = self._tools.read_base(path)
        if len(base) > check.LARGE_BYTES:
            raise _LargeError
        return base

    def _refuse_large(self, arguments: tuple[Any, ...]) -> None:
        """Raises _LargeError if an argument has a plan that is large."""
        for argument in arguments:
            if isinstance(argument, NewExperiment) and len(argument.plan) + len(argument.base) > check.LARGE_BYTES:
                raise _LargeError
