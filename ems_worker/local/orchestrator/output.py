"""What a run has written, for GetSimulationOutput: its output streams, and the files in its output directory.

Memory is bounded: content is read in parts, and each part is sent before the next one is read. Names are looked up in
the output directory of the run only, whatever links lead out of it.
"""

import asyncio
import contextlib
import itertools
import os
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf import timestamp_pb2

from ems_worker.local.orchestrator import model, regular
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_PART_BYTES = 64 * 1024
_FILES_IN_A_CHUNK = 200
_MAX_FILES = 100_000
# Looking up a path takes a call of the system for each of its names.
_MAX_PATH_BYTES = 4096
# How often a followed stream is looked at.
_POLL_SECONDS = 0.2
_STREAMS = {pb.OUTPUT_KIND_STDOUT: "stdout", pb.OUTPUT_KIND_STDERR: "stderr"}

# Returns the run as it is now; None if it is unknown.
Look = Callable[[], Awaitable[model.LocalRun | None]]


class OutputRefusedError(Exception):
    """The call ends with this status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(message)


async def chunks(request: pb.GetSimulationOutputRequest, runs: Path, look: Look) -> AsyncIterator[pb.OutputChunk]:
    """What the call sends. `runs` has the directories of all runs. Raises OutputRefusedError."""
    run = await look()
    if run is None:
        raise OutputRefusedError(grpc.StatusCode.NOT_FOUND, f"no simulation {request.simulation_id!r}")
    directory = runs / run.simulation_id
    if request.kind in _STREAMS:
        content = _stream(directory / _STREAMS[request.kind], request.offset, look if request.follow else None)
    elif request.follow:
        raise OutputRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "only STDOUT and STDERR can be followed")
    elif request.kind == pb.OUTPUT_KIND_ARTIFACT:
        content = _file(directory / "output", request.name, request.offset, run.end.artifacts)
    elif request.kind == pb.OUTPUT_KIND_LIST:
        content = _list(directory / "output", run.end.artifacts)
    else:
        raise OutputRefusedError(grpc.StatusCode.INVALID_ARGUMENT, f"there is no kind of output {request.kind}")
    async for chunk in content:
        yield chunk


async def _stream(path: Path, offset: int, follow: Look | None) -> AsyncIterator[pb.OutputChunk]:
    """The content of an output stream; if it is followed, until its run has ended."""
    begun = False
    while True:
        # Asked before reading: what was written until the end is then sent.
        run = None if follow is None else await follow()
        going = run is not None and not run.state.ended
        descriptor = await asyncio.to_thread(_opened_or_none, path)
        if descriptor is not None:
            try:
                async for chunk in _parts(descriptor, offset, always=not begun):
                    yield chunk
                    offset, begun = chunk.offset + len(chunk.data), True
            finally:
                os.close(descriptor)
        elif not begun:
            if offset > 0 and not going:
                raise _beyond(offset, 0)
            yield pb.OutputChunk()
            begun = True
        if not going:
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _file(output: Path, name: str, offset: int, artifacts: Mapping[str, str]) -> AsyncIterator[pb.OutputChunk]:
    inside = await asyncio.to_thread(_inside, output, name, artifacts)
    try:
        descriptor = await asyncio.to_thread(_opened, output / inside, output.parents[1])
    except (OSError, ValueError) as failed:
        elsewhere = f"; it is {artifacts[name]}" if name in artifacts else ""
        message = f"the run has no file {name!r} in its output directory{elsewhere}"
        raise OutputRefusedError(grpc.StatusCode.NOT_FOUND, message) from failed
    try:
        async for chunk in _parts(descriptor, offset, always=True):
            yield chunk
    finally:
        os.close(descriptor)


async def _parts(descriptor: int, offset: int, *, always: bool) -> AsyncIterator[pb.OutputChunk]:
    """The content of a file from an offset to its present end; `always` a chunk, even if there is nothing."""
    size = os.fstat(descriptor).st_size
    if offset < 0:
        offset = max(0, size + offset)
    if offset > size:
        raise _beyond(offset, size)
    while (data := await asyncio.to_thread(os.pread, descriptor, min(_PART_BYTES, size - offset), offset)) or always:
        yield pb.OutputChunk(data=data, offset=offset, size=size)
        offset += len(data)
        always = False


async def _list(output: Path, artifacts: Mapping[str, str]) -> AsyncIterator[pb.OutputChunk]:
    """All files, and the artifacts that are elsewhere."""
    reported = await asyncio.to_thread(_reported, output, artifacts)
    found = _files(output)
    count = 0
    begun = False
    while files := await asyncio.to_thread(lambda: list(itertools.islice(found, _FILES_IN_A_CHUNK))):
        count += len(files)
        if count > _MAX_FILES:
            message = f"the output directory has more than {_MAX_FILES:,} files: ask for them by name"
            raise OutputRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        yield pb.OutputChunk(files=[_listed(file, reported.pop(file.path, ("", ""))) for file in files])
        begun = True
    elsewhere = [pb.OutputFile(artifact=name, uri=uri) for name, uri in reported.values()]
    if elsewhere or not begun:
        yield pb.OutputChunk(files=elsewhere)


def _reported(output: Path, artifacts: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The artifacts, names and URIs, by their paths in the output directory."""
    return {_inside(output, name, artifacts): (name, uri) for name, uri in artifacts.items()}


@dataclass(frozen=True, slots=True)
class _File:
    """A file in an output directory. `path` is relative to that."""

    path: str
    size: int
    modified_ns: int


def _files(output: Path) -> Iterator[_File]:
    """The files below a directory that can be asked for by name. Links are left out."""
    runs, root = output.parents[1], (output.parent.name, output.name)
    left = [""]
    while left:
        folder = left.pop()
        try:
            with _folder(runs, (*root, *folder.split("/")[:-1])) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if not _can_be_asked_for(path):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        left.append(f"{path}/")
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        yield _File(path, status.st_size, status.st_mtime_ns)
        except OSError:
            continue  # deleted meanwhile, or closed by the simulation


def _listed(file: _File, artifact: tuple[str, str]) -> pb.OutputFile:
    seconds, nanos = divmod(file.modified_ns, 10**9)
    return pb.OutputFile(
        path=file.path,
        size=file.size,
        modified_at=timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos),
        artifact=artifact[0],
        uri=artifact[1],
    )


def _inside(output: Path, name: str, artifacts: Mapping[str, str]) -> str:
    """The path in the output directory that a name stands for; one that can't be found if it leads elsewhere."""
    path = name
    if name in artifacts:
        parts = urllib.parse.urlsplit(artifacts[name])
        path = urllib.parse.unquote(parts.path) if parts.scheme == "file" else ""
    runs, run = output.parents[1], output.parent.name
    try:
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            return f"../{name}"
        # Only the directory of all runs may be a link: what is below it belongs to the simulation.
        root = Path(os.path.realpath(runs), run, output.name)
        return str(Path(os.path.realpath(output / path)).relative_to(root))
    except (OSError, ValueError):
        return f"../{name}"


@contextlib.contextmanager
def _folder(runs: Path, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of a directory below that of all runs. No link in the place of one of its `parts` is followed.

    The simulation may put a link there at any time: only what is open can't be replaced.
    """
    at = os.open(runs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def _opened(path: Path, runs: Path) -> int:
    """Opens a regular file below the directory of all runs without following links in it.

    Raises OSError, and ValueError for what isn't a path of a file.
    """
    parts = str(path)[len(str(runs)) + 1 :].split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path} is not the path of a file")
    with _folder(runs, parts[:-1]) as folder:
        return regular.checked(os.open(parts[-1], regular.READ | os.O_NOFOLLOW, dir_fd=folder))


def _opened_or_none(path: Path) -> int | None:
    """Opens an output stream of a run; None if there is none."""
    try:
        return _opened(path, path.parents[1])
    except OSError:
        return None


def _can_be_asked_for(path: str) -> bool:
    """Whether a path can be sent and looked up: a name may be any bytes, and directories may be deep."""
    try:
        return len(path.encode()) <= _MAX_PATH_BYTES
    except UnicodeEncodeError:
        return False


def _beyond(offset: int, size: int) -> OutputRefusedError:
    return OutputRefusedError(grpc.StatusCode.OUT_OF_RANGE, f"offset {offset} is beyond the end at {size}")
