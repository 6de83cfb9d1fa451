"""The target of an attack: a broker, an orchestrator and a worker as real processes, and the attacker's connection."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.js.errors
from nats.aio.client import Client

from tests.support import servers, wait, whole


@dataclass
class Ground:
    """The servers, a worker that is ready, and the attacker's connection to the broker."""

    directory: Path
    broker: servers.NatsServer
    orchestrator: servers.GrpcProgram
    worker: whole.Worker
    attacker: Client

    async def decision(self, plan: bytes, **headers: str) -> dict[str, Any]:
        """Publishes a plan; returns the decision about it."""
        ack = await self.attacker.jetstream().publish("ems.experiment.submit", plan, headers=headers or None)

        async def decided() -> dict[str, Any] | None:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                subject = f"ems.experiment.decision.{ack.seq}"
                message = await self.attacker.jetstream().get_last_msg("EMS_STATUS", subject)
                document: dict[str, Any] = json.loads(message.data or b"")
                return document
            return None

        decision: dict[str, Any] | None = await wait.until(decided, timeout=60, what="the decision")
        assert decision is not None
        return decision

    async def completes(self, plan: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
        """Publishes a plan and waits for the end of its experiment, which must be `completed`."""
        await whole.publish(self.broker.url, plan)
        ended = await whole.ended(self.broker.url, plan["experiment_id"], timeout)
        assert ended["state"] == "completed", ended
        return ended

    async def metric(self, name: str) -> float:
        """The sum of the samples of a metric of the worker whose line starts with this text."""
        _, metrics = await self.worker.ask("/metrics")
        return sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(name))


@contextlib.asynccontextmanager
async def ground(
    directory: Path, *, module: str = "tests.support.oracle", flags: tuple[str, ...] = (), **settings: str
) -> AsyncIterator[Ground]:
    """Starts everything. Afterwards the worker must still run, exit with 0 at SIGTERM, and have a valid log."""
    async with servers.NatsServer(directory / "nats") as broker:
        server = ("--server", broker.url) if module == "tests.support.oracle" else ()
        log = directory / "orchestrator.log"
        async with servers.GrpcProgram(module, [*server, *flags], log=log) as orchestrator:
            async with whole.Worker(directory, broker.url, orchestrator.target, **settings) as worker:
                client = await nats.connect(
                    broker.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_ignore
                )
                try:
                    yield Ground(directory, broker, orchestrator, worker, client)
                finally:
                    await client.close()
                assert worker.running, f"the worker ended with {worker.exit_code}: {worker.last_words()}"
            assert worker.exit_code == 0, f"the worker ended with {worker.exit_code} at SIGTERM"
            worker.lines()


async def _ignore(error: Exception) -> None:
    """The attacker's own connection may fail while the broker is restarted."""


async def unready(worker: whole.Worker, part: str, message: str) -> str:
    """Waits until /readyz reports a problem of this part that contains the message; returns the whole problem."""

    async def reported() -> str:
        code, body = await worker.ask("/readyz")
        problem = str(json.loads(body)["troubles"].get(part, "")) if code == 503 else ""
        return problem if message in problem else ""

    return await wait.until(reported, timeout=60, what=f"/readyz to report {message!r} for {part}")


async def reason_of(server: str, experiment_id: str, message: str) -> str:
    """Waits until the status of the experiment has a reason that contains the message; returns the whole reason."""

    async def reported() -> str:
        status = await whole.status(server, experiment_id)
        reason = str((status or {}).get("reason") or "")
        return reason if message in reason else ""

    return await wait.until(reported, timeout=60, what=f"a status with the reason {message!r}")
