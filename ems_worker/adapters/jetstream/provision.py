"""Creating the streams and the object store once, as an administrator, so that the worker needs no right to do so."""

import asyncio
import contextlib
from collections.abc import Mapping

from ems_worker import errors
from ems_worker.adapters.jetstream import connection, objects, streams
from ems_worker.settings import Access

_PAUSE_SECONDS = 0.25


async def provision(access: Access, timeout: float) -> Mapping[str, bool]:
    """Creates what is missing. Maps the name of each stream, and of the object store's, to whether it is new.

    Raises BrokerUnavailable without an answer within `timeout` seconds or without the rights, and BrokerMisconfigured
    with everything that contradicts what the worker needs.
    """
    async with contextlib.AsyncExitStack() as stack:
        link = await _connected(access, timeout)
        stack.push_async_callback(link.close)
        names = [spec.name for spec in streams.SPECS]
        try:
            before = [name for name in (*names, objects.STREAM) if await streams.look(link, name) is not None]
            identities = await streams.ensure(link, create=True)
            await objects.ensure(link, create=True)
        except errors.BrokerUnavailable as failed:
            if (refused := link.refusals.summary) is None:
                raise
            raise errors.BrokerUnavailable(f"{failed} ({refused})") from failed
    # Run events may be in a stream of another name, which we never create.
    actual = [identities[name].name for name in names]
    return {name: name in (*names, objects.STREAM) and name not in before for name in (*actual, objects.STREAM)}


async def _connected(access: Access, timeout: float) -> connection.Connection:
    """Retries until the timeout: a server that starts together with us may not listen yet."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + timeout
    while True:
        link = connection.Connection(access, name="ems-worker provision")
        try:
            await link.open(give_up_at - loop.time())
        except errors.BrokerUnavailable:
            if loop.time() + _PAUSE_SECONDS > give_up_at:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return link
