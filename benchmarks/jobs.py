"""Measures the worker's throughput in jobs per second, and its CPU time per job: `python -m benchmarks.jobs`.

No-op jobs take the complete path: a plan over NATS, the manifest on disk, commands over gRPC to an orchestrator in its
own process that ends each run at once, events and results over JetStream. As a reference, the bare wire is measured in
alternation: the same commands to the same kind of server and the same events received, with nothing recorded.

Prints one line per turn, and the medians; `--json` prints the medians as JSON.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import nats

from ems_worker import client
from ems_worker.local import ports
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from tests.support import servers, wait

_WINDOW = 64
_CONFIG = b"world: {width: 60, height: 40}\n"


@dataclass(frozen=True, slots=True)
class Turn:
    """The result of one turn: the total elapsed time, and the CPU time of the measured process alone."""

    jobs: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.jobs / self.wall_seconds

    @property
    def cpu_microseconds(self) -> float:
        return 1e6 * self.cpu_seconds / self.jobs


def cpu_seconds(pid: int) -> float:
    """The user and system time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ready(http: str) -> bool:
    """Whether the worker's /readyz reports that it is ready."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False


def plan(jobs: int, name: str) -> bytes:
    """A plan with `jobs` jobs: points with ten replicates each, over a small base configuration."""
    points = list(range(jobs // 10))
    return json.dumps(
        {
            "experiment_id": name,
            "base_config": {"world": {"width": 60, "height": 40}, "fish": {"count": 30, "energy": 400.0}, "seed": 0},
            "parameter_space": {"fish.count": points},
            "num_replicates_per_run": 10,
            "inject": {"seed": "seed"},
            "metrics_to_track": ["population"],
        }
    ).encode()


async def managed(server: servers.NatsServer, orchestrator: str, jobs: int, folder: Path) -> Turn:
    """Measures the worker, from the publication of the plan to the terminal status."""
    http = f"{ports.LOOPBACK}:{ports.free_port()}"
    environment = {
        "EMS_SERVER": server.url,
        "EMS_ORCHESTRATOR": orchestrator,
        "EMS_DATA_DIR": str(folder),
        "EMS_HTTP": http,
        "EMS_LOG_LEVEL": "warning",
    }
    command = [str(Path(sys.executable).with_name("ems-worker")), "run"]
    async with servers.Program("worker", command, log=folder / "worker.log", env=environment) as worker:
        async with client.EmsClient(server.url) as ems:
            await wait.until(lambda: ready(http), what="the worker to be ready")
            before, began = cpu_seconds(worker.pid), time.perf_counter()
            ack = await ems.publish(plan(jobs, f"bench-{folder.name}"))
            await ems.decision(ack.seq, timeout=30)
            final = await ems.wait(f"bench-{folder.name}")
            took = time.perf_counter() - began
            cpu = cpu_seconds(worker.pid) - before
    assert final["counts"]["completed"] == jobs, final
    return Turn(jobs, took, cpu)


async def bare(server: servers.NatsServer, orchestrator: str, jobs: int, name: str, batch: int) -> Turn:
    """Measures the wire alone, in this process: every command is sent and every end is received."""
    connection = await nats.connect(server.url)
    ended = 0
    done = asyncio.Event()

    async def receive(message: object) -> None:
        nonlocal ended
        ended += 1
        if ended == jobs:
            done.set()

    await connection.subscribe("sim.run_completed", cb=receive)
    for _ in range(2):  # nats-py writes the ping of a flush at once, ahead of what is in its buffer
        await connection.flush()
    commands = [
        pb.StartSimulationCommand(
            simulation_id=f"{name}-p{number:06d}-r000-a1", config=_CONFIG, config_sha=f"{number:064x}", rng_seed=number
        )
        for number in range(jobs)
    ]
    async with grpc.aio.insecure_channel(orchestrator) as channel:
        stub = pb_grpc.OrchestratorClientServiceStub(channel)
        gate = asyncio.Semaphore(_WINDOW)

        async def start_one(command: pb.StartSimulationCommand) -> None:
            async with gate:
                await stub.StartSimulation(command, timeout=10)

        async def start_batch(part: Sequence[pb.StartSimulationCommand]) -> None:
            async with gate:
                await stub.StartSimulations(pb.StartSimulationsRequest(commands=part), timeout=10)

        before, began = time.process_time(), time.perf_counter()
        if batch > 1:
            await asyncio.gather(*(start_batch(commands[at : at + batch]) for at in range(0, jobs, batch)))
        else:
            await asyncio.gather(*(start_one(command) for command in commands))
        await done.wait()
        turn = Turn(jobs, time.perf_counter() - began, time.process_time() - before)
    await connection.close()
    return turn


async def measure(jobs: int, turns: int, batch: bool) -> dict[str, list[Turn]]:
    """Measures both in alternation, with new servers for each turn."""
    measured: dict[str, list[Turn]] = {"worker": [], "bare wire": []}
    for number in range(turns):
        for kind in measured:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                async with servers.NatsServer(folder / "nats") as server:
                    options = ["--server", server.url, *([] if batch else ["--no-batch"])]
                    if kind == "bare wire":
                        # The orchestrator needs a stream for its acks; otherwise the worker creates it.
                        connection = await nats.connect(server.url)
                        await connection.jetstream().add_stream(name="SIM_EVENTS", subjects=["sim.>"])
                        await connection.close()
                    oracle = servers.GrpcProgram("tests.support.oracle", options, log=folder / "oracle.log")
                    async with oracle:
                        if kind == "worker":
                            data = folder / f"w{number}"
                            data.mkdir()
                            turn = await managed(server, oracle.target, jobs, data)
                        else:
                            turn = await bare(server, oracle.target, jobs, f"bare{number}", 256 if batch else 1)
            measured[kind].append(turn)
            print(f"{kind:10} {turn.rate:8.0f} jobs/s {turn.cpu_microseconds:8.0f} us CPU per job", file=sys.stderr)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs per turn, a multiple of ten (2000)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--no-batch", action="store_true", help="the orchestrator implements only StartSimulation")
    parser.add_argument("--json", action="store_true", help="print the medians as JSON")
    options = parser.parse_args()
    measured = asyncio.run(measure(options.jobs, options.turns, not options.no_batch))
    medians = {
        kind: {
            "jobs_per_second": round(statistics.median(turn.rate for turn in turns)),
            "cpu_microseconds_per_job": round(statistics.median(turn.cpu_microseconds for turn in turns)),
        }
        for kind, turns in measured.items()
    }
    if options.json:
        print(json.dumps({"jobs": options.jobs, "batch": not options.no_batch, "medians": medians}))
    else:
        for kind, numbers in medians.items():
            print(f"{kind:10} median {numbers['jobs_per_second']} jobs/s", end=", ")
            print(f"{numbers['cpu_microseconds_per_job']} us CPU per job")


if __name__ == "__main__":
    main()
