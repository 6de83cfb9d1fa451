"""Making the streams and the object store once, by an administrator, so that the worker needs no right to."""

import contextlib
from collections.abc import Mapping

from ems_worker import errors
from ems_worker.adapters.jetstream import connection, objects, streams
from ems_worker.settings import Access


async def provision(access: Access, timeout: float) -> Mapping[str, bool]:
    """Makes what is missing; for each stream, the object store among them, whether it was made now.

    Raises BrokerUnavailable without an answer within `timeout` seconds or without the rights, BrokerMisconfigured with
    everything that contradicts what the worker needs.
    """
    link = connection.Connection(access, name="ems-worker provision")
    await link.open(timeout)
    async with contextlib.AsyncExitStack() as stack:
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
