"""The whole system as processes: nats-server, orchestrator and worker, each of which can be killed and restarted."""

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
    """`ems-worker run` as a process. `log` is its log, in JSON lines."""

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
        """Waits until /readyz reports that it is ready."""

        async def is_ready() -> bool:
            assert self.running, f"the worker ended with {self.exit_code}: {self.last_words()}"
            return (await self.ask("/readyz"))[0] == 200

        await wait.until(is_ready, timeout=timeout, what="the worker to be ready")

    async def ask(self, path: str) -> tuple[int, str]:
        """The status code and body of an HTTP response; code 0 without a response."""

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
        """The entries of its log. Any other line, such as of a traceback or a warning, is an error."""
        lines = []
        for line in self.log.read_text().splitlines():
            assert line.startswith("{"), f"not a log entry: {line}"
            lines.append(json.loads(line))
        return lines


class Oracle(servers.GrpcProgram):
    """The no-op orchestrator, with a log of every start command that it answered."""

    def __init__(self, directory: Path, server: str, *flags: str) -> None:
        self.starts = directory / "starts.log"
        arguments = ["--server", server, "--log", str(self.starts), *flags]
        super().__init__("tests.support.oracle", arguments, log=directory / "oracle.log")

    def accepted(self) -> Counter[str]:
        """How often each simulation was accepted as new. A conflict is an error."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        answers = [line.split(" ") for line in lines if line.count(" ") == 2]
        assert all(answer != "conflict" for answer, *_ in answers)
        return Counter(simulation_id for answer, simulation_id, _ in answers if answer == "accepted")


@asynccontextmanager
async def client(server: str) -> AsyncIterator[Client]:
    """A plain nats-py connection."""
    connection = await nats.connect(server, connect_timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


async def publish(server: str, plan: Mapping[str, Any]) -> None:
    """Publishes a plan as JSON by a plain publish, as a program without our client does."""
    async with client(server) as connection:
        await connection.publish("ems.experiment.submit", json.dumps(plan).encode())
        await connection.flush()


async def status(server: str, experiment_id: str) -> dict[str, Any] | None:
    """The stored status of an experiment; None if there is none or the server can't be reached."""
    try:
        async with client(server) as connection:
            jetstream = connection.jetstream()
            message = await jetstream.get_last_msg("EMS_STATUS", f"ems.experiment.status.{experiment_id}")
            document: dict[str, Any] = json.loads(message.data or b"")
            return document
    except (nats.errors.Error, OSError):
        return None


async def ended(server: str, experiment_id: str, timeout: float = 60) -> dict[str, Any]:
    """Waits for the terminal status of an experiment."""

    async def terminal_status() -> dict[str, Any] | None:
        document = await status(server, experiment_id)
        return document if document is not None and document["state"] in ENDED else None

    document: dict[str, Any] | None = await wait.until(terminal_status, timeout=timeout, what=f"{experiment_id} to end")
    assert document is not None
    return document


async def stored(server: str, subject: str) -> list[dict[str, Any]]:
    """Every stored document of a subject."""
    documents: list[dict[str, Any]] = []
    async with client(server) as connection:
        jetstream = connection.jetstream()
        try:
            last = await jetstream.get_last_msg(await jetstream.find_stream_name_by_subject(subject), subject)
        except NotFoundError:
            return []
        everything = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        messages = await jetstream.subscribe(subject, config=everything, ordered_consumer=False)
        seq = 0
        while seq < (last.seq or 0):
            message: Msg = await messages.next_msg(timeout=5)
            documents.append(json.loads(message.data))
            seq = message.metadata.sequence.stream
    return documents


def rows(manifest: Path, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
    """The result of a query on the manifest, which a worker may have open."""
    connection = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
    try:
        return list(connection.execute(query, values))
    finally:
        connection.close()


def plan(experiment_id: str, points: int, replicates: int = 1, **more: Any) -> dict[str, Any]:
    """A plan with this number of points."""
    return {
        "experiment_id": experiment_id,
        "base_config": {"food": 1, "heat": 1.5},
        "parameter_space": {"food": list(range(points))},
        "num_replicates_per_run": replicates,
        "metrics_to_track": ["population"],
        **more,
    }
