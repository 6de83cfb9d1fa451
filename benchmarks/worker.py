"""A worker as a process with everything around it, and what it costs."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import orchestrator
from ems_worker import client
from ems_worker.local import ports
from tests.support import servers, wait

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn took: the elapsed time, the CPU time of the measured process, and its peak memory in bytes."""

    jobs: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU time a job."""
        return 1e6 * self.cpu_seconds / self.jobs


def cpu_seconds(pid: int) -> float:
    """The user and system time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_bytes(pid: int) -> int:
    """The largest resident size that a process has had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def plan(name: str, jobs: int, **more: Any) -> dict[str, Any]:
    """A plan of so many jobs: points with ten replicates each, over a configuration of 2 KB."""
    fill = {f"trait_{number:02d}": {"mean": 0.5, "deviation": 0.125, "bound": "reflect"} for number in range(24)}
    return {
        "experiment_id": name,
        "base_config": {"world": {"width": 60, "height": 40}, "fish": {"count": 30, "traits": fill}, "seed": 0},
        "parameter_space": {"fish.count": {"range": {"start": 0, "stop": max(1, jobs // 10) - 1, "step": 1}}},
        "num_replicates_per_run": min(jobs, 10),
        "inject": {"seed": "seed"},
        "metrics_to_track": [orchestrator.METRICS[0]],
        **more,
    }


@dataclass(slots=True)
class Worker:
    """A worker that is ready, and a client of it."""

    program: servers.Program
    ems: client.EmsClient
    data: Path
    server: str
    orchestrator: orchestrator.Orchestrator

    async def run(self, *plans: Mapping[str, Any]) -> Turn:
        """Measures from the publication of these plans to their last terminal status; checks every job."""
        jobs = sum(len_of(each) for each in plans)
        cpu, began = cpu_seconds(self.program.pid), time.perf_counter()
        acks = [await self.ems.publish(json.dumps(each).encode()) for each in plans]
        for ack in acks:
            decision = await self.ems.decision(ack.seq, timeout=60)
            assert decision["decision"] == "accepted", decision
        await asyncio.gather(*(self.ems.wait(each["experiment_id"]) for each in plans))
        turn = Turn(
            jobs,
            time.perf_counter() - began,
            cpu_seconds(self.program.pid) - cpu,
            peak_bytes(self.program.pid),
        )
        self.check([each["experiment_id"] for each in plans], jobs)
        return turn

    def check(self, names: list[str], jobs: int) -> None:
        """Every job is completed exactly once, by its first attempt."""
        with contextlib.closing(sqlite3.connect(self.data / "manifest.db")) as database:
            marks = ",".join("?" * len(names))
            query = (
                "SELECT state, attempt, count(*), count(DISTINCT point || '/' || replicate), count(metrics) "
                f"FROM v_runs WHERE experiment_id IN ({marks}) GROUP BY 1, 2"
            )
            found = database.execute(query, names).fetchall()
        per = jobs // len(names)
        assert [row[:3] for row in found] == [("completed", 1, jobs)], found
        assert found[0][3:] == (per, jobs), found


def len_of(each: Mapping[str, Any]) -> int:
    """The jobs of a plan of `plan`."""
    span = each["parameter_space"]["fish.count"]["range"]
    return int(span["stop"] - span["start"] + 1) * int(each["num_replicates_per_run"])


@contextlib.asynccontextmanager
async def started(
    folder: Path, *, batches: bool = True, silent: bool = False, slots: int = 1000, **env: str
) -> AsyncIterator[Worker]:
    """A worker with a nats-server and an orchestrator of its own, which publishes nothing if it is `silent`.

    `env` are further settings.
    """
    async with (
        servers.NatsServer(folder / "nats") as server,
        orchestrator.started(folder, None if silent else server.url, batches=batches, slots=slots) as accepting,
        running(folder, server.url, accepting, **env) as worker,
    ):
        yield worker


@contextlib.asynccontextmanager
async def running(folder: Path, server: str, accepting: orchestrator.Orchestrator, **env: str) -> AsyncIterator[Worker]:
    """A worker between this nats-server and this orchestrator, once it is ready."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    http = f"{ports.LOOPBACK}:{ports.free_port()}"
    settings = {
        "EMS_SERVER": server,
        "EMS_ORCHESTRATOR": accepting.target,
        "EMS_DATA_DIR": str(data),
        "EMS_HTTP": http,
        **env,
    }
    command = os.environ.get("BENCH_WORKER", str(Path(sys.executable).with_name("ems-worker"))).split()
    async with servers.Program("worker", [*command, "run"], log=folder / "worker.log", env=settings) as program:
        await wait.until(lambda: is_ready(http), what="the worker to be ready")
        async with client.EmsClient(server) as ems:
            yield Worker(program, ems, data, server, accepting)


def is_ready(http: str) -> bool:
    """Whether the worker's /readyz says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False
