"""A process that examines one plan. It answers requests over its pipes, and is killed when it is no longer needed."""

import asyncio
import contextlib
import os
import pickle
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from ems_worker import errors
from ems_worker.adapters import plan_codec, yaml_reader
from ems_worker.service.intake.check import ReadBase
from ems_worker.service.intake.examination import Tools
from ems_worker.settings import inherited

LENGTH_BYTES: Final = 8
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a process may use."""

    # Beyond what the process starts with: enough for ten times the largest plan and the largest base file.
    memory_bytes: int = 512 * 1024 * 1024
    # Processor time. Counting the points of a plan takes up to half a minute, and longer on a slow machine.
    cpu_seconds: int = 300


DEFAULT_ALLOWANCE: Final = Allowance()


@dataclass(frozen=True, slots=True)
class Options:
    """How plans are read. The options are sent to the process, so they must be picklable."""

    read_base: ReadBase
    max_bytes: int
    max_jobs: int | None
    allowance: Allowance

    def tools(self) -> Tools:
        """The tools of an examination with these options."""
        return Tools(yaml_reader, self.read_base, plan_codec.unpack, self.max_bytes, self.max_jobs)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request: a value, or the error to raise instead."""

    value: Any = None
    problems: tuple[errors.Problem, ...] = ()
    unreadable: str | None = None


class Process:
    """A process that has its plan and waits for requests."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `Examination`. Raises what the method raises, and Unreadable if it ends the process."""
        await self.send(await asyncio.to_thread(pickle.dumps, (method, arguments)))
        stdout = self._process.stdout
        assert stdout is not None
        try:
            size = int.from_bytes(await stdout.readexactly(LENGTH_BYTES), "big")
            data = await stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            code = await self._process.wait()
            raise errors.Unreadable(f"the process that read this plan ended with exit code {code}") from None
        answer: Answer = pickle.loads(data)  # noqa: S301  # from our own child process
        if answer.problems:
            raise errors.PlanRejected(answer.problems)
        if answer.unreadable is not None:
            raise errors.Unreadable(answer.unreadable)
        return answer.value

    async def send(self, message: bytes) -> None:
        """Sends a message in chunks, so that other tasks run in between."""
        stdin = self._process.stdin
        assert stdin is not None
        data = memoryview(message)
        with contextlib.suppress(ConnectionError):  # the process has ended, which `call` reports
            stdin.write(len(data).to_bytes(LENGTH_BYTES, "big"))
            for start in range(0, len(data), _CHUNK_BYTES):
                stdin.write(data[start : start + _CHUNK_BYTES])
                await stdin.drain()


@contextlib.asynccontextmanager
async def start(data: bytes, options: Options) -> AsyncIterator[Process]:
    """Starts a process for a plan, and kills it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # without it, files of the working directory could replace modules of Python
        "-m",
        "ems_worker.reading.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=inherited.environment(os.environ),
    )
    try:
        started = Process(process)
        await started.send(pickle.dumps(options))
        await started.send(data)
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
