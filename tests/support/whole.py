"""The whole system as processes: nats-server, an orchestrator and a worker, each to be killed and started again."""

import asyncio
import json
import sqlite3
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from ems_worker.local import ports
from tests.support import commands, servers, wait

ENDED = ("completed", "failed", "cancelled")


class Worker(servers.Program):
    """`ems-worker run` as a process; `log` has its lines, JSON each."""

    def __init__(self, directory: Path, server: str, orchestrator: str, **settings: str) -> None:
        self.data_dir = directory / "data"
        self.http = f"{ports.LOOPBACK}:{ports.free_port()}"
        env = commands.environment(
            EMS_SERVER=server,
            EMS_ORCHESTRATOR=orchestrator,
            EMS_DATA_DIR=str(self.data_dir),
            EMS_HTTP=self.http,
            EMS_LOG_FORMAT="json",
            **settings,
        )
        command = [sys.executable, "-W", "error", "-m", "ems_worker.cli.worker", "run"]
        super().__init__("ems-worker", command, log=directory / "worker.log", env=env)

    async def __aenter__(self) -> Self:
        self.start()
        await self.ready()
        return self

    async def ready(self, timeout: float = 30) -> None:
        """Waits until its probe says so."""

        async def well() -> bool:
            assert self.running, f"the worker ended with {self.exit_code}: {self.last_words()}"
            return (await self.ask("/readyz"))[0] == 200

        await wait.until(well, timeout=timeout, what="the worker to be ready")

    async def ask(self, path: str) -> tuple[int, str]:
        """Status code and body of an HTTP request; 0 where nobody answers."""

        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(get)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged; a line that isn't one of its log (a traceback, a warning) is an error."""
        lines = []
        for line in self.log.read_text().splitlines():
            assert line.startswith("{"), f"not a line of the log: {line}"
            lines.append(json.loads(line))
        return lines


class Oracle(servers.GrpcProgram):
    """The no-op orchestrator, with the log of every start command that it answered."""

    def __init__(self, directory: Path, server: str, *flags: str) -> None:
        self.starts = directory / "starts.log"
        arguments = ["--server", server, "--log", str(self.starts), *flags]
        super().__init__("tests.support.oracle", arguments, log=directory / "oracle.log")

    def accepted(self) -> Counter[str]:
        """How often each simulation was taken on as new work; a conflict is an error."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        words = [line.split(" ") for line in lines if line.count(" ") == 2]
        assert all(word[0] != "conflict" for word in words)
        return Counter(word[1] for word in words if word[0] == "accepted")


@asynccontextmanager
async def client(server: str) -> AsyncIterator[Client]:
    """nats-py as anybody uses it."""
    one = await nats.connect(server, connect_timeout=5)
    try:
        yield one
    finally:
        await one.close()


async def publish(server: str, plan: Mapping[str, Any]) -> None:
    """A plain publish of JSON bytes, as from a program that knows nothing of this project."""
    async with client(server) as one:
        await one.publish("ems.experiment.submit", json.dumps(plan).encode())
        await one.flush()


async def status(server: str, experiment_id: str) -> dict[str, Any] | None:
    """The last status that is stored; None where there is none, or the server is away."""
    try:
        async with client(server) as one:
            message = await one.jetstream().get_last_msg("EMS_STATUS", f"ems.experiment.status.{experiment_id}")
            found: dict[str, Any] = json.loads(message.data or b"")
            return found
    except (nats.errors.Error, OSError):
        return None


async def ended(server: str, experiment_id: str, timeout: float = 60) -> dict[str, Any]:
    """Waits for the terminal status."""

    async def there() -> dict[str, Any] | None:
        found = await status(server, experiment_id)
        return found if found is not None and found["state"] in ENDED else None

    last: dict[str, Any] | None = await wait.until(there, timeout=timeout, what=f"{experiment_id} to end")
    assert last is not None
    return last


async def stored(server: str, subject: str) -> list[dict[str, Any]]:
    """Every document of this subject that is in its stream."""
    found: list[dict[str, Any]] = []
    async with client(server) as one:
        jetstream = one.jetstream()
        try:
            last = await jetstream.get_last_msg(await jetstream.find_stream_name_by_subject(subject), subject)
        except NotFoundError:
            return []
        everything = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        messages = await jetstream.subscribe(subject, config=everything, ordered_consumer=False)
        at = 0
        while at < (last.seq or 0):
            message: Msg = await messages.next_msg(timeout=5)
            found.append(json.loads(message.data))
            at = message.metadata.sequence.stream
    return found


def rows(manifest: Path, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
    """What a reader of the manifest sees while the worker runs."""
    connection = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
    try:
        return list(connection.execute(query, values))
    finally:
        connection.close()


def plan(experiment_id: str, points: int, replicates: int = 1, **more: Any) -> dict[str, Any]:
    """A plan of that many points."""
    return {
        "experiment_id": experiment_id,
        "base_config": {"food": 1, "heat": 1.5},
        "parameter_space": {"food": list(range(points))},
        "num_replicates_per_run": replicates,
        "metrics_to_track": ["population"],
        **more,
    }
