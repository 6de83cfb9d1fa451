"""Commands that send a request to the worker over NATS: connect, ask, close."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ems_worker import errors
from ems_worker.cli import exits, shell

if TYPE_CHECKING:
    from ems_worker import client


RequestId = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Repeating a request with the same id has no further effect. Default: a new id."),
]


def run(
    server: str | None, context: str | None, ask: "Callable[[client.EmsClient], Awaitable[exits.Exit]]"
) -> exits.Exit:
    """Calls `ask` with a connected client and closes the connection."""
    from ems_worker import client

    access = shell.access(server, context)

    async def connected() -> exits.Exit:
        async with client.EmsClient(access, notice=shell.say) as ems:
            return await ask(ems)

    return asyncio.run(connected())


def change(
    verb: Literal["retry", "resume"],
    experiment_id: str,
    *,
    request_id: str | None,
    json: bool,
    server: str | None,
    context: str | None,
) -> exits.Exit:
    """Requests a change of an experiment and prints the outcome."""
    from ems_worker.cli import views

    request = request_id or str(uuid.uuid4())

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        request_change = ems.retry if verb == "retry" else ems.resume
        try:
            document = await request_change(experiment_id, request_id=request)
        except errors.NoAnswer:
            shell.say(f"the worker may still carry it out; to repeat the request safely: --request-id {request}")
            raise
        if json:
            shell.out_json(document)
        else:
            views.change(verb, document)
        return exits.Exit.OK

    return run(server, context, ask)
