"""The NATS service `ems`: queries and control. Every request gets one reply."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import nats.micro
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Handler, Request, ServiceError

from ems_worker import errors
from ems_worker.adapters.jetstream import connection
from ems_worker.core.documents import subjects

NAME = "ems"
PREFIX = subjects.API
_DESCRIPTION = "Experiments on simulations: queries and control"
_MAX_ERROR_CHARACTERS = 4000
_SLACK_BYTES = 512
_FLUSH_SECONDS = 5
# How many requests of one endpoint are worked on at once; more wait in the connection's buffer.
_AT_ONCE = 16

Answering = Callable[[bytes], Awaitable[bytes]]
# Whether a reply may go to a subject; its second argument is the request's subject. See `service.replies.Replies`.
Allows = Callable[[str, str], bool]

# The code that a reply has for each of our errors, like an HTTP status; the first match counts.
CODES: tuple[tuple[type[errors.EmsError], str], ...] = (
    (errors.NotFound, "404"),
    # The worker ends and is started again: the same request may succeed then.
    (errors.ManifestConflict, "503"),
    (errors.BrokerUnavailable, "503"),
    (errors.OrchestratorUnavailable, "503"),
    (errors.ManifestUnusable, "503"),
    (errors.EmsError, "400"),
)


class _Gated:
    """The part of a client that `nats.micro` uses. It drops requests whose reply subject isn't allowed.

    So the rule covers discovery (`$SRV.*`) too, and a request that can't be answered isn't carried out either. It works
    on several requests of a subject at once, where a subscription of nats-py has them wait for one another.
    """

    def __init__(
        self,
        client: Client,
        allows: Allows,
        *,
        tasks: "set[asyncio.Task[None]]",
        on_error: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._allows = allows
        self._on_error = on_error
        self._tasks = tasks
        self._nuid = client._nuid
        self.flush = client.flush

    async def subscribe(
        self, subject: str, queue: str = "", cb: Callable[[Msg], Awaitable[None]] | None = None
    ) -> Subscription:
        assert cb is not None
        handle, free = cb, asyncio.Semaphore(_AT_ONCE)

        async def answer(msg: Msg) -> None:
            try:
                await handle(msg)
            except connection.FOREIGN as error:  # the reply can't be sent: the client repeats its request
                self._on_error(error)
            finally:
                free.release()

        async def gated(msg: Msg) -> None:
            if self._allows(msg.reply, msg.subject):
                await free.acquire()
                task = asyncio.create_task(answer(msg))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return await self._client.subscribe(subject, queue=queue, cb=gated)


class Service:
    """Announces and serves the endpoints on every connection."""

    def __init__(
        self, link: connection.Connection, endpoints: Mapping[str, Answering], version: str, allows: Allows
    ) -> None:
        self._link = link
        self._endpoints = endpoints
        self._version = version
        self._allows = allows
        # Requests that are being answered.
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, client: Client) -> None:
        """Part of `connection.Listener`."""
        gated = cast(Client, _Gated(client, self._allows, tasks=self._tasks, on_error=self._link.on_error))
        service = await nats.micro.add_service(gated, name=NAME, version=self._version, description=_DESCRIPTION)
        group = service.add_group(name=PREFIX)
        for verb, answering in self._endpoints.items():
            await group.add_endpoint(name=verb, handler=self._handler(answering))
        # Until the server has the subscriptions, clients get "no responders".
        # Flush twice: nats-py's flush may overtake what waits in its buffer, and then only ensures that this is sent.
        await client.flush(_FLUSH_SECONDS)
        await client.flush(_FLUSH_SECONDS)

    def lost(self) -> None:
        """Part of `connection.Listener`: clients have to repeat their requests.

        What is being carried out goes on: it must not be left half done because its reply can't be sent.
        """

    async def close(self) -> None:
        """Ends the work on requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _handler(self, answering: Answering) -> Handler:
        async def handle(request: Request) -> None:
            try:
                reply = await answering(request.data)
            except errors.EmsError as error:
                raise ServiceError(code(error), str(error)[:_MAX_ERROR_CHARACTERS]) from error
            except Exception as error:  # a bug must neither end the service nor stay unnoticed
                self._link.on_error(error)
                raise ServiceError(
                    "500", f"internal error ({type(error).__name__}); the worker's log has the details"
                ) from error
            max_bytes = self._link.max_payload - _SLACK_BYTES
            if len(reply) > max_bytes:
                raise ServiceError(
                    "413", f"the reply has {len(reply):,} bytes and the server takes {max_bytes:,}: ask for fewer"
                )
            await request.respond(reply)

        return handle


def code(error: errors.EmsError) -> str:
    """The code that a reply has for this error."""
    return next(code for kind, code in CODES if isinstance(error, kind))
