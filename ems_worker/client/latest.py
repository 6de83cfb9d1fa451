"""The latest document of a subject of EMS_STATUS, and the documents that follow it."""

import json
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ems_worker import errors
from ems_worker.client import bus, connection
from ems_worker.core.documents import subjects

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

Document = dict[str, Any]

_STREAM = subjects.STATUS_STREAM
# Messages that arrive while the connection is lost are missed, so the stored message is read again after this silence.
_REREAD_SECONDS = 2.0


async def documents(
    link: connection.Connection,
    subject: str,
    is_ours: Callable[[Document], bool],
    since: datetime | None = None,
) -> AsyncGenerator[Document, None]:
    """Yields the stored message of a subject and every later one, without end.

    The subscription precedes the first read, so that no document is missed, but a document may come twice. While the
    connection is lost, only the last document is kept.

    Documents stored before `since` are skipped: if the stream of plans was recreated, its sequence numbers started at 1
    again, and the document is about an older plan with the same number.

    Only the worker may publish to the subject, but anyone who may send requests to JetStream can direct the broker's
    replies there. Therefore only documents that satisfy `is_ours` are yielded.
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
        return None  # reconnecting: the next read will succeed
    if message is None or message.data is None:
        return None
    if since is not None and message.time is not None and message.time < since:
        return None
    return _read(message.data)


async def _next(live: "Subscription") -> Document | None:
    """The next message; None after a time of silence."""
    try:
        message = await live.next_msg(timeout=_REREAD_SECONDS)
    except bus.nats.errors.TimeoutError:
        return None
    return _read(message.data)


def _read(data: bytes) -> Document:
    """The document; empty if the data is not a JSON object."""
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


async def _unsubscribe(live: "Subscription") -> None:
    try:
        await live.unsubscribe()
    except bus.nats.errors.Error:
        return  # the connection is closed, and with it the subscription
