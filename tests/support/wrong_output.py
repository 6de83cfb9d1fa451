"""What the scripted orchestrator answers to GetSimulationOutput, or answers wrongly in a chosen way."""

import grpc

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

# What each run writes, to each stream and to its file.
LOG = b"it ran\n"


def answer(
    request: pb.GetSimulationOutputRequest, way: str, *, known: bool
) -> tuple[grpc.StatusCode | None, pb.OutputChunk]:
    """The status of a refusal, or None, and the only chunk."""
    if not known:
        return None if way == "output-knows-all" else grpc.StatusCode.NOT_FOUND, pb.OutputChunk()
    if request.kind == pb.OUTPUT_KIND_LIST:
        return None, pb.OutputChunk(files=[pb.OutputFile(path="log", size=len(LOG), artifact="log")])
    if request.kind == pb.OUTPUT_KIND_ARTIFACT and request.name != "log" and way != "output-any-name":
        return grpc.StatusCode.NOT_FOUND, pb.OutputChunk()
    if request.offset > len(LOG):
        return grpc.StatusCode.OUT_OF_RANGE, pb.OutputChunk()
    offset = 0 if way == "output-from-start" else request.offset
    return None, pb.OutputChunk(data=LOG[offset:], offset=request.offset, size=len(LOG))
