"""The client: publishes plans, follows experiments and asks what the worker knows, over NATS alone.

    async with client.EmsClient("nats://127.0.0.1:4222") as ems:
        ack = await ems.publish(plan)
        decision = await ems.decision(ack.seq, timeout=30)
        final = await ems.wait(decision["experiment_id"])

Documents are the platform's (`ems.decision.v1`, `ems.status.v1`, ...), as plain dictionaries.
"""

from ems_worker.client.client import TERMINAL, Document, EmsClient, RunConfig
from ems_worker.client.publishing import PubAck

__all__ = ["TERMINAL", "Document", "EmsClient", "PubAck", "RunConfig"]
