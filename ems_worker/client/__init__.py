"""The client: publishes plans, follows experiments and asks what the worker knows, over NATS alone.

    async with client.EmsClient("nats://127.0.0.1:4222") as ems:
        ack = await ems.publish(plan)
        decision = await ems.decision(ack.seq, timeout=30)
        final = await ems.wait(decision["experiment_id"])

Other ways in than an open server on this machine are an `Access`: `EmsClient(Access(("tls://nats.example:4222",),
creds=Path("engine.creds")))`, or what the environment and the contexts of the `nats` command say:
`EmsClient(access({"context": "prod"}, os.environ))`.

Documents are the platform's (`ems.decision.v1`, `ems.status.v1`, ...), as plain dictionaries.
"""

from ems_worker.client.client import TERMINAL, Document, EmsClient, RunConfig
from ems_worker.client.dead_letters import DeadLetter, DeadLetters
from ems_worker.client.publishing import PubAck
from ems_worker.settings import Access, access

__all__ = ["TERMINAL", "Access", "DeadLetter", "DeadLetters", "Document", "EmsClient", "PubAck", "RunConfig", "access"]
