"""A process that examines one plan: begun, asked over its pipes, and killed when the answer isn't wanted any more."""

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

# What the process may take beyond what it starts with: ten times the largest plan and the largest base file, and some.
MOST_MEMORY: Final = 512 * 1024 * 1024
# Of a processor. Counting the points of a plan takes up to half a minute, on a slow machine some.
_MOST_SECONDS: Final = 300
_CHUNK_BYTES: Final = 256 * 1024
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """What plans may name and ask for; goes to the process, and so has to be picklable."""

    read_base: ReadBase
    most_bytes: int
    max_jobs: int | None

    def tools(self) -> Tools:
        """What a plan is examined with within these."""
        return Tools(yaml_reader, self.read_base, plan_codec.unpack, self.most_bytes, self.max_jobs)


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message to the process, before the plan itself."""

    bounds: Bounds
    most_memory: int
    most_seconds: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question is answered: a value, or what there was to raise instead."""

    value: Any = None
    problems: tuple[errors.Problem, ...] = ()
    unreadable: str | None = None


class Process:
    """A process that has its plan and waits for questions."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, method: str, *given: Any) -> Any:
        """The answer of `Examination`'s method. Raises what that raises, and Unreadable if it ends the process."""
        await self.send(await asyncio.to_thread(pickle.dumps, (method, given)))
        stdout = self._process.stdout
        assert stdout is not None
        try:
            size = int.from_bytes(await stdout.readexactly(_LENGTH_BYTES), "big")
            answer = await stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            code = await self._process.wait()
            raise errors.Unreadable(f"reading this plan ended the process that did it, with {code}") from None
        told: Answer = pickle.loads(answer)  # noqa: S301  # from our own child
        if told.problems:
            raise errors.PlanRejected(told.problems)
        if told.unreadable is not None:
            raise errors.Unreadable(told.unreadable)
        return told.value

    async def send(self, message: bytes) -> None:
        """Sends a message, in pieces between which others have their turn."""
        stdin = self._process.stdin
        assert stdin is not None
        data = memoryview(message)
        with contextlib.suppress(ConnectionError):  # the process is gone: that shows when it doesn't answer
            stdin.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
            for start in range(0, len(data), _CHUNK_BYTES):
                stdin.write(data[start : start + _CHUNK_BYTES])
                await stdin.drain()


@contextlib.asynccontextmanager
async def begin(data: bytes, bounds: Bounds) -> AsyncIterator[Process]:
    """A new process for this plan; gone afterwards, whatever it is doing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # or the working directory's files would be imported in place of Python's own
        "-m",
        "ems_worker.reading.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=inherited.environment(os.environ),
    )
    try:
        begun = Process(process)
        await begun.send(pickle.dumps(Begin(bounds, MOST_MEMORY, _MOST_SECONDS)))
        await begun.send(data)
        yield begun
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
