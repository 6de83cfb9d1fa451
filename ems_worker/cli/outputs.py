"""What `ems logs`, `artifacts` and `download` share: the orchestrator, and which run is meant."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import exits, shell
from ems_worker.core import ids

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.adapters.orchestrator.output import Outputs

Orchestrator = Annotated[
    str | None,
    typer.Option(
        metavar="TARGET",
        help="gRPC target of the orchestrator. Default: EMS_ORCHESTRATOR, else that of the running `ems up`. The "
        "variables EMS_ORCHESTRATOR_TLS, _CA, _CERT, _KEY, _TOKEN and _PLAINTEXT are those of the worker.",
    ),
]


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the orchestrator and the worker are, as far as flags tell."""

    orchestrator: str | None
    server: str | None
    context: str | None

    def run(self, ask: "Callable[[Outputs], Awaitable[exits.Exit]]") -> exits.Exit:
        """Calls `ask` with a connection to the orchestrator."""
        import asyncio

        async def connected() -> exits.Exit:
            async with self.connected() as outputs:
                return await ask(outputs)

        return asyncio.run(connected())

    def connected(self) -> "AbstractAsyncContextManager[Outputs]":
        """A connection to the orchestrator. Raises errors.SettingsError."""
        # gRPC's core would write lines of its own between ours.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from ems_worker import settings
        from ems_worker.adapters.orchestrator.output import Outputs

        flags = {"orchestrator": self.orchestrator, "server": self.server, "context": self.context}
        return Outputs.connect(settings.channel(flags, os.environ))

    def client(self) -> "client.EmsClient":
        """A client of the worker, to be entered."""
        from ems_worker import client

        return client.EmsClient(shell.access(self.server, self.context), notice=shell.say)

    async def run_id(self, name: str) -> str:
        """The id of the run that is meant. The worker is asked unless it is a whole one. Raises errors.NotFound."""
        if ids.parse_simulation_id(name) is not None:
            return name
        from ems_worker.cli import naming

        async with self.client() as ems:
            return await naming.run(ems, name)
