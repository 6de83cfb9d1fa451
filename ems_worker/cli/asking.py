"""Commands that send a request to the worker over NATS: connect, ask, close."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

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
    import asyncio

    from ems_worker import client

    access = shell.access(server, context)

    async def connected() -> exits.Exit:
        async with client.EmsClient(access, notice=shell.say) as ems:
            return await ask(ems)

    return asyncio.run(connected())
