"""Asks the service of a worker, as programs do."""

import json
from typing import Any

from nats.aio.client import Client

from tests.support.desk import Desk, plan


async def ask(client: Client, verb: str, **request: Any) -> dict[str, Any]:
    """Sends a request; returns the reply, or the code and the message of an error."""
    return await send(client, verb, json.dumps(request).encode())


async def send(client: Client, verb: str, data: bytes) -> dict[str, Any]:
    """Sends the bytes of a request, which need not be valid; returns the same as `ask`."""
    reply = await client.request(f"ems.api.{verb}", data, timeout=5)
    if reply.headers and "Nats-Service-Error-Code" in reply.headers:
        return {"code": reply.headers["Nats-Service-Error-Code"], "message": reply.headers["Nats-Service-Error"]}
    document: dict[str, Any] = json.loads(reply.data)
    return document


async def run_all(desk: Desk, experiment_id: str = "reef", points: int = 3, replicates: int = 1) -> list[str]:
    """Runs an experiment to its end; returns the simulation ids."""
    live = await desk.begin(plan(experiment_id, points=points, replicates=replicates))
    names = await desk.launch(live)
    for number, name in enumerate(names):
        await desk.hear("completed", name, metrics={"population": number})
    await desk.report(experiment_id)
    return names
