"""A plan's bytes as they were sent: from its message or from the object store."""

import asyncio

from ems_worker import errors
from ems_worker.core import digests
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message
from ems_worker.errors import Problem
from ems_worker.service.base.ports import Broker

OBJECT = subjects.PLAN_OBJECT_HEADER
DIGEST = subjects.PLAN_DIGEST_HEADER

# From this delivery on an object that isn't there counts as one that never comes.
OBJECT_TRIES = 5


class NotYetError(Exception):
    """The object of the plan isn't there, and may come: ask again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"again in {seconds:g} s")


async def read(message: Message, broker: Broker, max_bytes: int) -> bytes:
    """The plan as its publisher sent it, wrapped or not.

    Raises PlanRejected, NotYetError, and what the broker raises when it is away.
    """
    if (name := message.headers.get(OBJECT)) is not None:
        return await _object(message, name, broker, max_bytes)
    return message.data


def digest(message: Message) -> bytes | None:
    """SHA-256 of the bytes that `read` gives, without reading an object; None where a message doesn't tell."""
    if OBJECT in message.headers:
        return digests.parse(message.headers.get(DIGEST, ""))
    return digests.of(message.data)


async def _object(message: Message, name: str, broker: Broker, max_bytes: int) -> bytes:
    digest = message.headers.get(DIGEST)
    wanted = None if digest is None else digests.parse(digest)
    if wanted is None:
        words = f"a plan by {OBJECT} needs {DIGEST}: SHA-256= and the digest in base64, or the digest in hex"
        raise _refused("plan_object_digest", words)
    try:
        data = await broker.plan_object(name, max_bytes)
    except errors.NotFound as error:
        if message.delivered < OBJECT_TRIES:
            # The message may have overtaken its object, or been read from another server of the cluster.
            raise NotYetError(2.0 ** (message.delivered - 2)) from error
        raise _refused("plan_object_missing", f"{error}: put it there before the message is published") from error
    except errors.RequestRefused as error:
        raise _refused("plan_object_unusable", str(error)) from error
    if await asyncio.to_thread(digests.of, data) != wanted:
        raise _refused("plan_object_digest", f"the object {name!r} is not what {DIGEST} says: it was replaced since")
    return data


def _refused(code: str, words: str) -> errors.PlanRejected:
    return errors.PlanRejected([Problem(code, "", words)])
