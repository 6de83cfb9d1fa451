"""An orchestrator that answers at random: python -m tests.security.liar --listen HOST:PORT --server nats://...

Once the file `--honest` exists it follows the contract: it accepts every start, and each run completes at once.
"""

import argparse
import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
import nats
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined] # its stubs are older
from nats.aio.client import Client

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]
_MESSAGES = (
    "",
    "no",
    "x" * 20_000,
    "the run queue exceeds maximum size, try again later",
    "\x1b]0;owned\x07",
    "\u202e",
    "a\nb",
    "Received message larger than max (130 vs. 129)",
    f"Received message larger than max ({'9' * 400} vs. 1)",
    "grpc: received message larger than max (٣ vs. 1)",
)
_CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
_NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 100)


class Liar(pb_grpc.OrchestratorClientServiceServicer):
    """The gRPC service. Its answers are drawn from a seed."""

    def __init__(self, client: Client, honest: Path, seed: int) -> None:
        self._client = client
        self._honest = honest
        self._chance = random.Random(seed)

    @property
    def honest(self) -> bool:
        """Whether it follows the contract from now on."""
        return self._honest.exists()

    async def StartSimulation(  # noqa: N802 - the protocol's names
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        if not self.honest:
            await self._spoil(context)
        return (await self._start([request]))[0]

    async def StartSimulations(  # noqa: N802
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        if not self.honest:
            await self._spoil(context)
        return pb.StartSimulationsResponse(responses=await self._start(request.commands))

    async def ControlSimulation(  # noqa: N802
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        if not self.honest:
            await self._spoil(context)
        return pb.ControlSimulationResponse()

    async def GetSimulationStatus(  # noqa: N802
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        if self.honest:
            missing = pb.SIMULATION_STATE_NOT_FOUND
            statuses = [pb.SimulationStatus(simulation_id=name, state=missing) for name in request.simulation_ids]
            return pb.GetSimulationStatusResponse(statuses=statuses)
        await self._spoil(context)
        return pb.GetSimulationStatusResponse(
            statuses=[
                pb.SimulationStatus(
                    simulation_id=self._chance.choice([name, "other", ""]),
                    state=self._chance.randrange(8),  # type: ignore[arg-type] # including undefined states
                    message=self._chance.choice(_MESSAGES),
                    model_version=self._chance.choice(_MESSAGES),
                    metrics={"population": float("nan"), "x" * 300: 1.0} if self._chance.random() < 0.1 else {},
                )
                for name in request.simulation_ids
                if self._chance.random() < 0.9
            ]
        )

    async def GetSimulationOutput(  # noqa: N802
        self, request: pb.GetSimulationOutputRequest, context: Context
    ) -> AsyncIterator[pb.OutputChunk]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        yield pb.OutputChunk()  # type: ignore[unreachable]  # a generator

    async def WatchCapacity(  # noqa: N802
        self, request: pb.WatchCapacityRequest, context: Context
    ) -> AsyncIterator[pb.Capacity]:
        while not self.honest:
            if self._chance.random() < 0.1:
                await self._spoil(context)
            slots, bytes_ = self._chance.choice(_NUMBERS), self._chance.choice(_NUMBERS)
            yield pb.Capacity(
                slots=slots, max_message_bytes=bytes_, model_version=self._chance.choice(_MESSAGES)[:4000]
            )
            await asyncio.sleep(0.5)
        yield pb.Capacity(slots=100)
        await asyncio.Event().wait()

    async def _start(self, commands: Sequence[pb.StartSimulationCommand]) -> list[pb.StartSimulationResponse]:
        if self.honest:
            for command in commands:
                event = {"simulation_id": command.simulation_id, "metrics": {"population": 1.0}}
                await self._client.publish("sim.run_completed", json.dumps(event).encode())
            accepted = pb.START_OUTCOME_ACCEPTED
            return [
                pb.StartSimulationResponse(simulation_id=command.simulation_id, outcome=accepted)
                for command in commands
            ]
        chance = self._chance
        return [
            pb.StartSimulationResponse(
                simulation_id=chance.choice([command.simulation_id] * 8 + ["other", ""]),
                outcome=chance.randrange(6),  # type: ignore[arg-type] # including undefined outcomes
                status_code=chance.choice([0, 3, 8, 14, 99, -1]),
                message=chance.choice(_MESSAGES),
            )
            for command in commands
            if chance.random() < 0.95
        ]

    async def _spoil(self, context: Context) -> None:
        """Sometimes delays the call, or ends it with a random status and message."""
        if self._chance.random() < 0.02:
            await asyncio.sleep(30)
        if self._chance.random() < 0.3:
            await self._abort(context)

    async def _abort(self, context: Context) -> NoReturn:
        await context.abort(self._chance.choice(_CODES), self._chance.choice(_MESSAGES)[:4000])
        raise AssertionError


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--honest", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    client = await nats.connect(given.server, max_reconnect_attempts=-1)
    server = grpc.aio.server()
    pb_grpc.add_OrchestratorClientServiceServicer_to_server(Liar(client, given.honest, given.seed), server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(given.listen)
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)
    await client.close()


if __name__ == "__main__":
    asyncio.run(_main())
