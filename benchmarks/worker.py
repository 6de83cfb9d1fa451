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
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks import orchestrator
from benchmarks.processes import Meter, Turn
from ems_worker import client
from ems_worker.local import ports
from tests.support import servers, wait

_TERMINAL = frozenset({"completed", "failed", "cancelled"})
_LIMIT_SECONDS = 900
_READY_SECONDS = 60
_READY_POLL_SECONDS = 0.005


def command(name: str) -> list[str]:
    """The command line of an installed command. BENCH_WORKER is another one for `ems-worker`."""
    if "BENCH_WORKER" not in os.environ:
        return [str(Path(sys.executable).with_name(name))]
    if name == "ems-worker":
        return os.environ["BENCH_WORKER"].split()
    return [sys.executable, "-m", f"ems_worker.cli.{name}"]


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


def json_of(each: Mapping[str, Any]) -> bytes:
    """A plan as it is sent."""
    return json.dumps(each).encode()


def jobs_of(each: Mapping[str, Any]) -> int:
    """The jobs of a plan of `plan`."""
    span = each["parameter_space"]["fish.count"]["range"]
    return int(span["stop"] - span["start"] + 1) * int(each["num_replicates_per_run"])


class Statuses:
    """When the terminal statuses of experiments were received, in seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._received: dict[str, asyncio.Future[float]] = {}

    def of(self, experiment_id: str) -> asyncio.Future[float]:
        return self._received.setdefault(experiment_id, asyncio.get_running_loop().create_future())

    async def receive(self, message: Msg) -> None:
        now = time.time()
        document = json.loads(message.data)
        future = self.of(document["experiment_id"])
        if document["state"] in _TERMINAL and not future.done():
            future.set_result(now)


@dataclass(slots=True)
class Worker:
    """A worker that is ready, and clients of it."""

    program: servers.Program
    ems: client.EmsClient
    connection: Client
    statuses: Statuses
    data: Path
    server: servers.NatsServer
    orchestrator: orchestrator.Orchestrator
    ready_seconds: float

    async def run(self, *plans: Mapping[str, Any]) -> Turn:
        """Measures from the publication of these plans to their last terminal status; checks every job."""
        meter = Meter.of(
            **{
                "worker": self.program.pid,
                "orchestrator": self.orchestrator.program.pid,
                "nats-server": self.server.pid,
            }
        )
        began = time.time()
        acks = [await self.ems.publish(json_of(each)) for each in plans]
        for ack in acks:
            decision = await self.ems.decision(ack.seq, timeout=60)
            assert decision["decision"] == "accepted", decision
        async with asyncio.timeout(_LIMIT_SECONDS):
            ended = max(await asyncio.gather(*(self.statuses.of(each["experiment_id"]) for each in plans)))
        used = meter.read()
        _, last_event = await self.orchestrator.times()
        jobs = sum(jobs_of(each) for each in plans)
        self.check([each["experiment_id"] for each in plans], jobs)
        return Turn(jobs, ended - began, used, ended - last_event)

    def check(self, names: Sequence[str], jobs: int) -> None:
        """Every job is completed exactly once, by its first attempt."""
        with contextlib.closing(sqlite3.connect(self.data / "manifest.db")) as database:
            marks = ",".join("?" * len(names))
            query = (
                "SELECT state, attempt, count(*), count(DISTINCT point || '/' || replicate), count(metrics) "
                f"FROM runs WHERE experiment IN (SELECT key FROM experiments WHERE experiment_id IN ({marks})) "
                "GROUP BY 1, 2"
            )
            found = database.execute(query, list(names)).fetchall()
        per = jobs // len(names)
        assert [row[:3] for row in found] == [("completed", 1, jobs)], found
        assert found[0][3:] == (per, jobs), found


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
        running(folder, server, accepting, **env) as worker,
    ):
        yield worker


@contextlib.asynccontextmanager
async def running(
    folder: Path, server: servers.NatsServer, accepting: orchestrator.Orchestrator, **env: str
) -> AsyncIterator[Worker]:
    """A worker between this nats-server and this orchestrator, once it is ready."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    http = f"{ports.LOOPBACK}:{ports.free_port()}"
    settings = {
        "EMS_SERVER": server.url,
        "EMS_ORCHESTRATOR": accepting.target,
        "EMS_DATA_DIR": str(data),
        "EMS_HTTP": http,
        **env,
    }
    log = folder / "worker.log"
    began = time.perf_counter()
    async with servers.Program("worker", [*command("ems-worker"), "run"], log=log, env=settings) as program:
        async with asyncio.timeout(_READY_SECONDS):
            while not is_ready(http):
                assert program.running, program.last_words()
                await wait.let_pass(_READY_POLL_SECONDS)
        ready = time.perf_counter() - began
        async with client.EmsClient(server.url) as ems:
            connection, statuses = await nats.connect(server.url), Statuses()
            try:
                await connection.subscribe("ems.experiment.status.*", cb=statuses.receive)
                await connection.flush()
                yield Worker(program, ems, connection, statuses, data, server, accepting, ready)
            finally:
                await connection.close()


def is_ready(http: str) -> bool:
    """Whether the worker's /readyz says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False
