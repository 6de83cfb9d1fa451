"""GetSimulationOutput as its callers see it: what runs have written, in parts, with our errors."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from enum import Enum

import grpc

from ems_worker import errors
from ems_worker.adapters.orchestrator import causes, security
from ems_worker.core import text
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.settings import Channel

# How long a part may take that isn't waited for.
_PART_SECONDS = 30.0
_OPTIONS = (
    *(option for option in security.OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)
_MAX_CHARACTERS = 500


class Stream(Enum):
    """An output stream of a run."""

    STDOUT = pb.OUTPUT_KIND_STDOUT
    STDERR = pb.OUTPUT_KIND_STDERR


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes, their place, and how long the whole was when they were sent."""

    data: bytes
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class File:
    """A file of a run. `path`: in its output directory; empty for an artifact that is elsewhere.

    `artifact` and `uri`: how the run reported it; empty if it didn't. `modified_ns` is 0 where that isn't known.
    """

    path: str
    size: int
    modified_ns: int
    artifact: str
    uri: str

    @property
    def name(self) -> str:
        """What to ask for it by."""
        return self.path or self.artifact


class Outputs:
    """The calls. They may raise errors.NotFound (no such run or file), errors.NotOffered, errors.RequestRefused and
    errors.OrchestratorUnavailable."""

    def __init__(self, stub: "pb_grpc.OrchestratorClientServiceAsyncStub", target: str) -> None:
        self._stub = stub
        self._target = target

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, channel: Channel) -> AsyncIterator["Outputs"]:
        """A connection for the duration of the `async with`. Raises errors.SettingsError for unusable settings."""
        opened = security.channel(channel, _OPTIONS)
        try:
            yield cls(pb_grpc.OrchestratorClientServiceStub(opened), channel.target)
        finally:
            await opened.close(grace=None)

    def stream(
        self, simulation_id: str, stream: Stream, *, offset: int = 0, follow: bool = False
    ) -> AsyncGenerator[Part, None]:
        """Yields an output stream from an offset, or from so many bytes before its end if that is negative.

        With `follow`, goes on until the run has ended. The first part may be empty. Raises errors.BeyondEnd if there
        is less than `offset`.
        """
        request = pb.GetSimulationOutputRequest(
            simulation_id=simulation_id, kind=stream.value, offset=offset, follow=follow
        )
        return self._parts(request)

    def artifact(self, simulation_id: str, name: str, *, offset: int = 0) -> AsyncGenerator[Part, None]:
        """Yields the content of a file, named by its path in the output directory or as an artifact."""
        kind = pb.OUTPUT_KIND_ARTIFACT
        return self._parts(
            pb.GetSimulationOutputRequest(simulation_id=simulation_id, kind=kind, name=name, offset=offset)
        )

    async def files(self, simulation_id: str) -> AsyncGenerator[File, None]:
        """Yields the files of a run, and its artifacts that are elsewhere."""
        request = pb.GetSimulationOutputRequest(simulation_id=simulation_id, kind=pb.OUTPUT_KIND_LIST)
        async with contextlib.aclosing(self._chunks(request)) as chunks:
            async for chunk in chunks:
                for file in chunk.files:
                    modified = file.modified_at
                    yield File(
                        file.path,
                        max(0, file.size),
                        max(0, modified.seconds) * 10**9 + modified.nanos,
                        file.artifact,
                        file.uri,
                    )

    async def _parts(self, request: pb.GetSimulationOutputRequest) -> AsyncGenerator[Part, None]:
        expected = request.offset if request.offset >= 0 else None
        async with contextlib.aclosing(self._chunks(request)) as chunks:
            async for chunk in chunks:
                if expected is not None and chunk.data and chunk.offset != expected:
                    message = f"the orchestrator sent offset {chunk.offset} where {expected} follows"
                    raise errors.RequestRefused(message)
                yield Part(chunk.data, chunk.offset, chunk.size)
                if chunk.data:
                    expected = chunk.offset + len(chunk.data)

    async def _chunks(self, request: pb.GetSimulationOutputRequest) -> AsyncGenerator[pb.OutputChunk, None]:
        call = self._stub.GetSimulationOutput(request)
        first = True
        try:
            while True:
                # A run that is followed may write nothing for days.
                async with asyncio.timeout(None if request.follow and not first else _PART_SECONDS):
                    chunk = await call.read()
                if not isinstance(chunk, pb.OutputChunk):
                    return
                first = False
                yield chunk
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        except TimeoutError as late:
            message = f"the orchestrator at {self._target} sent nothing for {_PART_SECONDS:g} s"
            raise errors.OrchestratorUnavailable(message) from late
        finally:
            call.cancel()

    def _translated(self, error: grpc.aio.AioRpcError) -> errors.EmsError:
        code = error.code()
        message = text.clip(error.details() or "", _MAX_CHARACTERS) or code.name
        match code:
            case grpc.StatusCode.UNIMPLEMENTED:
                return errors.NotOffered(
                    f"the orchestrator at {self._target} doesn't send what runs have written: it doesn't implement "
                    "GetSimulationOutput, which is optional. Look for it where that orchestrator keeps its files"
                )
            case grpc.StatusCode.NOT_FOUND:
                return errors.NotFound(message)
            case grpc.StatusCode.OUT_OF_RANGE:
                return errors.BeyondEnd(message)
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                cause = causes.cause(error.details() or "", self._target)
                return errors.OrchestratorUnavailable(
                    f"no orchestrator answers ({cause}); name it with --orchestrator or EMS_ORCHESTRATOR"
                )
            case _:
                return errors.RequestRefused(f"the orchestrator at {self._target} refused: {message} ({code.name})")
