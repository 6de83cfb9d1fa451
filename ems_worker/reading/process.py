"""A process that examines one plan. It answers requests over its pipes, and is killed when it is no longer needed."""

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar

from ems_worker import errors
from ems_worker.adapters import plan_codec, yaml_reader
from ems_worker.service.intake.check import ReadBase
from ems_worker.service.intake.examination import Tools
from ems_worker.settings import inherited

_T = TypeVar("_T")

_LENGTH_BYTES: Final = 8
# -P: without it, files of the working directory could replace modules of Python.
_COMMAND: Final = (sys.executable, "-P", "-m", "ems_worker.reading.child")


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

    def __init__(self) -> None:
        # Not by asyncio: uvloop forks, and the child of a fork runs gRPC's fork handlers, among locks of threads that
        # it doesn't have. Popen runs no code of this process in the child.
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=inherited.environment(os.environ)
        )
        self._thread = ThreadPoolExecutor(1, "reading")

    async def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `Examination`. Raises what the method raises, and Unreadable if it ends the process."""
        answer = await self._in_thread(self._exchange, method, arguments)
        if answer.problems:
            raise errors.PlanRejected(answer.problems)
        if answer.unreadable is not None:
            raise errors.Unreadable(answer.unreadable)
        return answer.value

    async def send(self, message: bytes) -> None:
        """Sends a message."""
        await self._in_thread(self._send, message)

    async def end(self) -> None:
        """Kills the process and waits until it has ended."""
        self._process.kill()
        await asyncio.shield(self._in_thread(self._process.communicate))
        self._thread.shutdown(wait=False)

    def _in_thread(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        """Runs a function in the thread of this process, after those before it."""
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _exchange(self, method: str, arguments: tuple[Any, ...]) -> Answer:
        assert self._process.stdout is not None
        self._send(pickle.dumps((method, arguments)))
        message = receive(self._process.stdout)
        if not message:
            raise errors.Unreadable(f"the process that read this plan ended with exit code {self._process.wait()}")
        answer: Answer = pickle.loads(message)  # noqa: S301  # from our own child process
        return answer

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended, which `_exchange` reports
            send(self._process.stdin, message)


@contextlib.asynccontextmanager
async def start(data: bytes, options: Options) -> AsyncIterator[Process]:
    """Starts a process for a plan, and kills it at the end."""
    process = Process()
    try:
        await process.send(pickle.dumps(options))
        await process.send(data)
        yield process
    finally:
        await process.end()


def send(stream: IO[bytes], message: bytes) -> None:
    """Writes a message to a pipe."""
    stream.write(len(message).to_bytes(_LENGTH_BYTES, "big"))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Reads the next message of a pipe; empty if the pipe has ended."""
    size = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
    message = stream.read(size)
    return message if len(message) == size else b""
