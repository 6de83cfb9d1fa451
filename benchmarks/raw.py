"""The raw calls: start commands over gRPC with nothing around them, as a ceiling: `python -m benchmarks.raw`.

The commands are composed beforehand, and so many calls are open at once on uvloop. Prints the elapsed time and the CPU
time of this process in seconds, and its peak memory, as JSON.
"""

import argparse
import asyncio
import json
import os
import sys
import time

import grpc
import uvloop

from benchmarks import processes
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

CONFIG_BYTES = 2048


def commands(jobs: int, name: str) -> list[pb.StartSimulationCommand]:
    """Start commands like those of the worker."""
    config = b"x" * CONFIG_BYTES
    return [
        pb.StartSimulationCommand(
            simulation_id=f"{name}-p{number:06d}-r000-a1",
            config=config,
            config_content_type="application/yaml",
            config_sha=f"{number:064x}",
            rng_seed=number,
            experiment_id=name,
        )
        for number in range(jobs)
    ]


async def measure(target: str, jobs: int, batch: int, in_flight: int, name: str) -> dict[str, float]:
    """Sends all commands, `batch` in a call (1: by the unary call)."""
    starts = commands(jobs, name)
    requests = [pb.StartSimulationsRequest(commands=starts[at : at + batch]) for at in range(0, jobs, batch)]
    async with grpc.aio.insecure_channel(target) as channel:
        stub = pb_grpc.OrchestratorClientServiceStub(channel)
        await stub.StartSimulation(commands(1, f"{name}-first")[0], wait_for_ready=True, timeout=10)
        singles, batches = iter(starts if batch == 1 else ()), iter(() if batch == 1 else requests)

        async def call() -> None:
            for command in singles:
                await stub.StartSimulation(command, timeout=10)
            for request in batches:
                await stub.StartSimulations(request, timeout=10)

        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(call() for _ in range(in_flight)))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": processes.peak_bytes(os.getpid())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--name", default="raw")
    options = parser.parse_args()
    print(json.dumps(uvloop.run(measure(options.target, options.jobs, options.batch, options.in_flight, options.name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
