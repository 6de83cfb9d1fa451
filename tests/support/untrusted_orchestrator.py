"""A hostile orchestrator: whatever it sends of a run is hostile text: content, names, and the words of refusals."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import hostile_words

# What a text of a message and a status can have.
H = hostile_words.ALL.encode(errors="replace").decode()
_DETAILS = H.replace("\n", " ")
_CONTENT = H.encode()
_FILES = (
    pb.OutputFile(path=f"{H}/{H}", size=len(_CONTENT), artifact=H, uri=H),
    pb.OutputFile(path="../../up", size=len(_CONTENT)),
    pb.OutputFile(path="plain", size=len(_CONTENT), artifact=H),
    pb.OutputFile(artifact=H, uri=H),
)


def _answer(request: pb.GetSimulationOutputRequest, context: grpc.ServicerContext) -> Any:
    if request.simulation_id.endswith("-a2"):
        context.abort(grpc.StatusCode.NOT_FOUND, _DETAILS)
    if request.kind == pb.OUTPUT_KIND_LIST:
        yield pb.OutputChunk(files=_FILES)
    else:
        offset = max(0, request.offset)
        yield pb.OutputChunk(data=_CONTENT[offset:], offset=offset, size=len(_CONTENT))


@contextlib.asynccontextmanager
async def working() -> AsyncIterator[str]:
    """Serves; yields its address."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        _answer,
        request_deserializer=pb.GetSimulationOutputRequest.FromString,
        response_serializer=pb.OutputChunk.SerializeToString,
    )
    name = pb.DESCRIPTOR.services_by_name["OrchestratorClientService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"GetSimulationOutput": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
