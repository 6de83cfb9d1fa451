"""Plays the worker for the client: publishes its documents and answers its queries."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats
import nats.micro
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.micro.request import Request

from tests.support import broker

Answer = Callable[[dict[str, Any]], Any]


@contextlib.asynccontextmanager
async def connection(server: str) -> AsyncIterator[Client]:
    """A connection that reconnects without end."""
    client = await nats.connect(server, error_cb=_ignore, reconnect_time_wait=0, max_reconnect_attempts=-1)
    try:
        yield client
    finally:
        await client.close()


async def _ignore(error: Exception) -> None:
    """Ignores errors: some tests lose connections on purpose."""


async def create_streams(client: Client) -> None:
    """Creates the streams of plans and statuses."""
    plans = StreamConfig(name="EMS_PLANS", subjects=["ems.experiment.submit", "ems.experiment.submit.*"])
    subjects = ["ems.experiment.status.*", "ems.experiment.decision.*"]
    status = StreamConfig(name="EMS_STATUS", subjects=subjects, max_msgs_per_subject=1, allow_direct=True)
    for config in (plans, status):
        await client.jetstream().add_stream(config)


async def publish_status(client: Client, revision: int, state: str = "running") -> None:
    document = {"experiment_id": "e", "revision": revision, "state": state}
    await client.jetstream().publish("ems.experiment.status.e", json.dumps(document).encode())


async def publish_decision(client: Client, seq: int, decision: str) -> None:
    document = {"decision": decision, "submission": {"stream": "EMS_PLANS", "seq": seq}}
    await client.jetstream().publish(f"ems.experiment.decision.{seq}", json.dumps(document).encode())


async def serve(client: Client, verb: str, answer: Answer) -> None:
    """Answers a query as the worker does."""
    service = await nats.micro.add_service(client, name="ems", version="1.0.0")

    async def handle(request: Request) -> None:
        await request.respond(json.dumps(answer(json.loads(request.data))).encode())

    await service.add_group(name="ems.api").add_endpoint(name=verb, handler=handle)
    await broker.subscribed(client)
