"""The no-op orchestrator of `noop/main.go` in Python, for machines without Go: the same flags and the same answers.

It takes several times as much CPU time for a call as its client, so figures with it say less about the client.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import nats
import orjson
import uvloop
from nats.aio.client import Client

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

SUBJECT = "sim.run_completed"
Context = grpc.aio.ServicerContext[Any, Any]


class Noop(pb_grpc.OrchestratorClientServiceServicer):
    """Accepts every run and ends it at once."""

    def __init__(self, bus: Client | None, *, single: bool, slots: int, metrics: list[str]) -> None:
        self._bus = bus
        self._single = single
        self._slots = slots
        self._metrics = {name: float(number) for number, name in enumerate(metrics)}
        self._known: set[str] = set()
        self._first = self._last = 0

    def print_times(self) -> None:
        """Prints when the first start call arrived and the last event was published, and forgets both."""
        print(self._first, self._last, flush=True)
        self._first = self._last = 0

    async def _start(self, commands: Iterable[pb.StartSimulationCommand]) -> list[pb.StartSimulationResponse]:
        self._first = self._first or time.time_ns()
        responses = []
        for command in commands:
            name = command.simulation_id
            outcome = pb.START_OUTCOME_ALREADY_EXISTS if name in self._known else pb.START_OUTCOME_ACCEPTED
            responses.append(pb.StartSimulationResponse(simulation_id=name, outcome=outcome))
            if name not in self._known and self._bus is not None:
                await self._bus.publish(SUBJECT, orjson.dumps({"simulation_id": name, "metrics": self._metrics}))
                self._last = time.time_ns()
            self._known.add(name)
        return responses

    async def _unless_single(self, context: Context) -> None:
        if self._single:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "-single")

    async def StartSimulation(  # noqa: N802 - the protocol's names
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        [response] = await self._start([request])
        return response

    async def StartSimulations(  # noqa: N802
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        await self._unless_single(context)
        return pb.StartSimulationsResponse(responses=await self._start(request.commands))

    async def GetSimulationStatus(  # noqa: N802
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        await self._unless_single(context)
        ended, unknown = pb.SIMULATION_STATE_COMPLETED, pb.SIMULATION_STATE_NOT_FOUND
        return pb.GetSimulationStatusResponse(
            statuses=[
                pb.SimulationStatus(simulation_id=name, state=ended if name in self._known else unknown)
                for name in request.simulation_ids
            ]
        )

    async def ControlSimulation(  # noqa: N802
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "runs end at once")

    async def GetSimulationOutput(  # noqa: N802
        self, request: pb.GetSimulationOutputRequest, context: Context
    ) -> AsyncIterator[pb.OutputChunk]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        yield pb.OutputChunk()  # type: ignore[unreachable]  # a generator

    async def WatchCapacity(self, request: pb.WatchCapacityRequest, context: Context) -> AsyncIterator[pb.Capacity]:  # noqa: N802
        yield pb.Capacity(slots=self._slots, max_message_bytes=4 << 20, model_version="noop-1")
        await asyncio.Event().wait()


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    bus = None if options.silent else await nats.connect(options.server)
    noop = Noop(bus, single=options.single, slots=options.slots, metrics=options.metrics.split(","))
    loop.add_signal_handler(signal.SIGUSR1, noop.print_times)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_OrchestratorClientServiceServicer_to_server(noop, server)
    server.add_insecure_port(options.listen)
    await server.start()
    await stop.wait()
    await server.stop(0.2)
    if bus is not None:
        await bus.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-listen", required=True)
    parser.add_argument("-server")
    parser.add_argument("-silent", action="store_true")
    parser.add_argument("-single", action="store_true")
    parser.add_argument("-slots", type=int, default=1000)
    parser.add_argument("-metrics", default="population,m1,m2,m3,m4,m5,m6,m7,m8")
    uvloop.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
