"""Making the streams and the object store once, by an administrator, so that the worker needs no right to."""

import asyncio
import contextlib
from collections.abc import Mapping

from ems_worker import errors
from ems_worker.adapters.jetstream import connection, objects, streams
from ems_worker.settings import Access

_PAUSE_SECONDS = 0.25


async def provision(access: Access, timeout: float) -> Mapping[str, bool]:
    """Makes what is missing; for each stream, the object store among them, whether it was made now.

    Raises BrokerUnavailable without an answer within `timeout` seconds or without the rights, BrokerMisconfigured with
    everything that contradicts what the worker needs.
    """
    async with contextlib.AsyncExitStack() as stack:
        link = await _connected(access, timeout)
        stack.push_async_callback(link.close)
        names = [spec.name for spec in streams.SPECS]
        try:
            before = [name for name in (*names, objects.STREAM) if await streams.look(link, name) is not None]
            found = await streams.ensure(link, create=True)
            await objects.ensure(link, create=True)
        except errors.BrokerUnavailable as failed:
            if (refused := link.refusals.words) is None:
                raise
            raise errors.BrokerUnavailable(f"{failed} ({refused})") from failed
    # Run events may be in a stream of another name, which is never made here.
    there = [found[name].name for name in names]
    return {name: name in (*names, objects.STREAM) and name not in before for name in (*there, objects.STREAM)}


async def _connected(access: Access, timeout: float) -> connection.Connection:
    """A server that is started with us may not listen yet."""
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
