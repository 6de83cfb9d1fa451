"""The latest document of a subject of EMS_STATUS, and those that follow it."""

import json
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.subscription import Subscription

from ems_worker import errors
from ems_worker.client import connection
from ems_worker.core.documents import subjects

Document = dict[str, Any]

_STREAM = subjects.STATUS_STREAM
# Live messages are lost while the connection is: then the stored one is looked at again.
_LOOK_AGAIN_SECONDS = 2.0


async def documents(
    link: connection.Connection,
    subject: str,
    is_ours: Callable[[Document], bool],
    since: datetime | None = None,
) -> AsyncGenerator[Document, None]:
    """The stored message of a subject and live ones, for ever; what was missed while disconnected is looked up.

    Subscribed before the look, so that nothing falls between them; a document may come twice. Stored before
    `since`: about a namesake, of the time before the stream of plans was made anew, and counts from 1 again.

    Only the worker may publish here, but whoever may ask JetStream for something can have the broker put its answer
    here. So only documents count that `is_ours` takes.
    """
    with link.translated():
        live = await link.client.subscribe(subject)
    try:
        while True:
            stored = await _stored(link, subject, since)
            if stored is not None and is_ours(stored):
                yield stored
            while (message := await _next(live)) is not None:
                if is_ours(message):
                    yield message
    finally:
        await _unsubscribe(live)


async def _stored(link: connection.Connection, subject: str, since: datetime | None) -> Document | None:
    try:
        message = await link.last(_STREAM, subject)
    except (errors.BrokerUnavailable, errors.NoAnswer):
        return None  # connecting again: the next look tells
    if message is None or message.data is None:
        return None
    if since is not None and message.time is not None and message.time < since:
        return None
    return _read(message.data)


async def _next(live: Subscription) -> Document | None:
    """The next message; None if none came for a while."""
    try:
        message = await live.next_msg(timeout=_LOOK_AGAIN_SECONDS)
    except nats.errors.TimeoutError:
        return None
    return _read(message.data)


def _read(data: bytes) -> Document:
    """Empty for what is no JSON object."""
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


async def _unsubscribe(live: Subscription) -> None:
    try:
        await live.unsubscribe()
    except nats.errors.Error:
        return  # the connection has ended, and the subscription with it
