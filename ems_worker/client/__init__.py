"""The client: publishes plans, follows experiments and queries the worker. It needs only NATS.

    async with client.EmsClient("nats://127.0.0.1:4222") as ems:
        ack = await ems.publish(plan)
        decision = await ems.decision(ack.seq, timeout=30)
        final = await ems.wait(decision["experiment_id"])

For a server that needs credentials or certificates, pass an `Access`: `EmsClient(Access(("tls://nats.example:4222",),
creds=Path("engine.creds")))`. `access` makes one from the environment and the contexts of the `nats` command:
`EmsClient(access({"context": "prod"}, os.environ))`.

Documents are those of the platform (`ems.decision.v1`, `ems.status.v1`, ...), as plain dictionaries.
"""

from typing import TYPE_CHECKING, Any

from ems_worker.client.client import TERMINAL, Document, EmsClient, RunConfig, Which, WhichJobs
from ems_worker.client.dead_letters import DeadLetter, DeadLetters
from ems_worker.client.publishing import PubAck
from ems_worker.settings.ways import Access

if TYPE_CHECKING:
    from ems_worker.settings.sources import access

__all__ = [
    "TERMINAL",
    "Access",
    "DeadLetter",
    "DeadLetters",
    "Document",
    "EmsClient",
    "PubAck",
    "RunConfig",
    "Which",
    "WhichJobs",
    "access",
]


def __getattr__(name: str) -> Any:
    """`access` reads settings, whose library takes longer to import than all of the client."""
    if name != "access":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ems_worker.settings.sources import access

    return access
