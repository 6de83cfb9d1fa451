"""What `ems logs`, `artifacts` and `download` share: the orchestrator, and which run is meant."""

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import exits, shell
from ems_worker.core import ids

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.adapters.orchestrator.output import Outputs

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's id, or its job's id without -aATTEMPT: the last attempt.")
]
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
        """The id of the run that is meant. The worker is asked only for the last attempt at a job.

        Raises errors.NotFound.
        """
        if ids.parse_simulation_id(name) is not None:
            return name
        job = job_id(name)
        if job is None:
            raise errors.NotFound(
                f"{name!r} is not the id of a run, such as ID-p000000-r000-a1; `ems export ID` lists them"
            )
        async with self.client() as ems:
            found = await ems.job(job.experiment_id, job.point, job.replicate)
        simulation_id: str = found["simulation_id"]
        return simulation_id


def job_id(name: str) -> ids.SimulationId | None:
    """The parts of a job's id, with 1 as its attempt; None if the text is not one."""
    return ids.parse_simulation_id(f"{name}-a1")


def matching(where: str | None, parameters: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the expression holds for a job, as `ems.result.v1`. Raises exits.Misused if it can't be read.

    `parameters`: names to paths. A parameter that is too long for the document matches nothing.
    """
    from ems_worker.core.language import where as language
    from ems_worker.core.language.expressions import ExpressionError

    if where is None:
        return lambda job: True
    try:
        condition = language.read(where, parameters)
    except ExpressionError as error:
        hint = f"; did you mean {error.suggestion}?" if error.suggestion else ""
        raise exits.Misused(f"--where: {error}{hint}") from None

    def matches(job: Mapping[str, Any]) -> bool:
        facts = language.Facts(
            state=job["state"],
            error_kind=(job["error"] or {}).get("kind"),
            point=job["point"],
            replicate=job["replicate"],
            attempt=job["attempt"],
            host=job["host"],
        )
        return condition.holds(job["params"], job["labels"], facts)

    return matches
