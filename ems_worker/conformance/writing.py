"""The check of GetSimulationOutput, which is optional: what a run has written."""

from ems_worker.conformance import check, kit
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_OUTSIDE = "../../../../../../../../etc/passwd"


async def output(session: kit.Session) -> None:
    """GetSimulationOutput sends what a run wrote from any offset, its files by name, and nothing else."""
    unknown = session.new_id()
    _, code, message = await session.rpc.output(_request(unknown, pb.OUTPUT_KIND_STDOUT))
    kit.optional("GetSimulationOutput", code)
    check.require(code == "NOT_FOUND", f"the output of an unknown run was answered {code} ({message})")
    ended = (await session.ended()).simulation_id
    for kind in (pb.OUTPUT_KIND_STDOUT, pb.OUTPUT_KIND_STDERR):
        await _stream(session, ended, kind)
    await _files(session, ended)
    await _followed(session)


async def _stream(session: kit.Session, name: str, kind: pb.OutputKind.ValueType) -> None:
    """A stream is the same from its beginning and from an offset."""
    what = pb.OutputKind.Name(kind).removeprefix("OUTPUT_KIND_")
    whole = await _content(session, _request(name, kind), what)
    middle = len(whole) // 2
    rest = await _content(session, _request(name, kind, offset=middle), f"{what} from offset {middle}")
    check.require(rest == whole[middle:], f"{what} from offset {middle} isn't the rest of it: {len(rest)} bytes came")
    nothing = await _content(session, _request(name, kind, offset=len(whole)), f"{what} from its end")
    check.require(not nothing, f"{what} from its end has {len(nothing)} bytes")
    _, code, _ = await session.rpc.output(_request(name, kind, offset=len(whole) + 1))
    check.require(code == "OUT_OF_RANGE", f"{what} from beyond its end was answered {code} instead of OUT_OF_RANGE")


async def _files(session: kit.Session, name: str) -> None:
    """Each listed file can be had by its path, and by the name of its artifact."""
    chunks, code, message = await session.rpc.output(_request(name, pb.OUTPUT_KIND_LIST))
    check.require(code == "OK", f"LIST was answered {code} ({message})")
    for file in [file for chunk in chunks for file in chunk.files if file.path]:
        for asked in filter(None, (file.path, file.artifact)):
            content = await _content(session, _request(name, pb.OUTPUT_KIND_ARTIFACT, name=asked), repr(asked))
            check.require(
                len(content) == file.size, f"{asked!r} has {file.size} bytes in LIST, and {len(content)} came"
            )
    _, code, _ = await session.rpc.output(_request(name, pb.OUTPUT_KIND_ARTIFACT, name=_OUTSIDE))
    check.require(code not in ("OK", "UNIMPLEMENTED"), f"a file outside the output directory was answered {code}")


async def _followed(session: kit.Session) -> None:
    """A followed stream begins at once, and ends when its run has ended."""
    name = (await session.begin_long()).simulation_id
    session.require_open(name)
    await session.dismiss(name)
    request = _request(name, pb.OUTPUT_KIND_STDOUT, follow=True)
    await _content(session, request, "STDOUT of a running run, followed", timeout=session.options.timeout)
    await session.end_of(name)


async def _content(
    session: kit.Session, request: pb.GetSimulationOutputRequest, what: str, timeout: float | None = None
) -> bytes:
    chunks, code, message = await session.rpc.output(request, timeout)
    check.require(code == "OK", f"{what} was answered {code} ({message})")
    check.require(chunks, f"{what}: no chunk came; the first one comes even if there is nothing to send")
    at = request.offset
    for chunk in chunks:
        check.require(chunk.offset == at, f"{what}: a chunk has the offset {chunk.offset}, expected {at}")
        at += len(chunk.data)
    return b"".join(chunk.data for chunk in chunks)


def _request(
    simulation_id: str, kind: pb.OutputKind.ValueType, *, offset: int = 0, name: str = "", follow: bool = False
) -> pb.GetSimulationOutputRequest:
    return pb.GetSimulationOutputRequest(
        simulation_id=simulation_id, kind=kind, offset=offset, name=name, follow=follow
    )
