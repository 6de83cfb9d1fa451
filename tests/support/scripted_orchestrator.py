"""An orchestrator that follows a script: python -m tests.support.scripted_orchestrator --listen HOST:PORT ...

The labels of a command script its answer: `outcome` names a StartOutcome, `code` and `message` are a status and its
message, `abort` is a status with which the whole call fails, `silent` leaves the command out of the reply to its batch,
and `hang` never answers. The status of the id "calls" has as metrics the number of calls by name, and of commands by
each of their labels, and as "open" the maximum that were open at once.
"""

import argparse
import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]
_CODES = {code.name: code for code in grpc.StatusCode}
_CALLS = "calls"


class Scripted(pb_grpc.OrchestratorClientServiceServicer):
    def __init__(self, without: list[str], capacity: list[str], delay: float) -> None:
        self._without = without
        self._capacity = capacity
        self._delay = delay
        self._calls: collections.Counter[str] = collections.Counter()
        self._open = self._max_open = 0

    async def _begin(self, call: str, context: Context) -> None:
        self._calls[call] += 1
        for name, value in context.invocation_metadata() or ():
            if name == "traceparent":
                self._calls[f"{call} {value!s}"] += 1
        if call in self._without:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")

    async def _answer(self, command: pb.StartSimulationCommand, context: Context) -> pb.StartSimulationResponse | None:
        script = command.labels
        self._calls.update(f"{name}={value}" for name, value in script.items())
        if "hang" in script:
            await asyncio.Event().wait()
        if "abort" in script:
            await context.abort(_CODES[script["abort"]], script["message"])
        if "silent" in script:
            return None
        response = pb.StartSimulationResponse(simulation_id=command.simulation_id, message=script["message"])
        if "outcome" in script:
            response.outcome = pb.StartOutcome.Value(f"START_OUTCOME_{script['outcome']}")
        if "code" in script:
            response.status_code = _CODES[script["code"]].value[0]
        return response

    async def StartSimulation(  # noqa: N802  the name in the protocol
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        await self._begin("StartSimulation", context)
        self._open += 1
        self._max_open = max(self._max_open, self._open)
        try:
            await asyncio.sleep(self._delay)
            return await self._answer(request, context) or pb.StartSimulationResponse()
        finally:
            self._open -= 1

    async def StartSimulations(  # noqa: N802  the name in the protocol
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        await self._begin("StartSimulations", context)
        responses = [await self._answer(command, context) for command in request.commands]
        # In another order, because clients must not rely on the order.
        return pb.StartSimulationsResponse(responses=filter(None, reversed(responses)))

    async def ControlSimulation(  # noqa: N802  the name in the protocol
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        await self._begin("ControlSimulation", context)
        if request.simulation_id == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such run")
        # A run that is queued can't be paused, and its state says so.
        queued = request.simulation_id.startswith("queued")
        states = {
            pb.CONTROL_ACTION_PAUSE: pb.SIMULATION_STATE_QUEUED if queued else pb.SIMULATION_STATE_PAUSED,
            pb.CONTROL_ACTION_RESUME: pb.SIMULATION_STATE_RUNNING,
            pb.CONTROL_ACTION_STOP: pb.SIMULATION_STATE_UNSPECIFIED,
        }
        if request.action not in states:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "PAUSE, RESUME or STOP was expected")
        return pb.ControlSimulationResponse(simulation_id=request.simulation_id, state=states[request.action])

    async def GetSimulationStatus(  # noqa: N802  the name in the protocol
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        if request.simulation_ids[:] == [_CALLS]:
            counts = {**{name: float(count) for name, count in self._calls.items()}, "open": float(self._max_open)}
            status = pb.SimulationStatus(simulation_id=_CALLS, state=pb.SIMULATION_STATE_COMPLETED, metrics=counts)
            return pb.GetSimulationStatusResponse(statuses=[status])
        await self._begin("GetSimulationStatus", context)
        return pb.GetSimulationStatusResponse(statuses=[_status(name) for name in request.simulation_ids])

    async def WatchCapacity(  # noqa: N802  the name in the protocol
        self, request: pb.WatchCapacityRequest, context: Context
    ) -> AsyncIterator[pb.Capacity]:
        await self._begin("WatchCapacity", context)
        for capacity in self._capacity:
            slots, _, limit = capacity.partition("/")
            yield pb.Capacity(slots=int(slots), max_message_bytes=int(limit or 0), model_version="m1")
        await asyncio.Event().wait()

    async def GetSimulationOutput(  # noqa: N802
        self, request: pb.GetSimulationOutputRequest, context: Context
    ) -> AsyncIterator[pb.OutputChunk]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        yield pb.OutputChunk()  # type: ignore[unreachable]  # a generator


def _status(name: str) -> pb.SimulationStatus:
    """A status in the state that the name begins with: "running-7" is RUNNING."""
    state = name.partition("-")[0].upper()
    status = pb.SimulationStatus(
        simulation_id=name,
        state=pb.SimulationState.Value(f"SIMULATION_STATE_{state}"),
        model_version="m1",
        host="n17",
        slot="3",
    )
    status.started_at.FromMilliseconds(1_700_000_000_000)
    if state in ("COMPLETED", "FAILED"):
        status.finished_at.FromMilliseconds(1_700_000_001_000)
    if state == "COMPLETED":
        status.metrics.update({"population": 7.0, "broken": float("nan")})
        status.artifacts["series"] = "file:///series.csv"
    if state == "FAILED":
        status.error_kind, status.message, status.retryable = "infrastructure", "the node died", True
    return status


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--capacity", action="append", default=[], help="SLOTS or SLOTS/MAX_MESSAGE_BYTES")
    parser.add_argument("--max-message", type=int, default=4 * 1024 * 1024)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", options.max_message)])
    pb_grpc.add_OrchestratorClientServiceServicer_to_server(
        Scripted(options.without, options.capacity, options.delay), server
    )
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(options.listen)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
