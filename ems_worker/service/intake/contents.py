"""Reads a plan's bytes, from its message or from the object store."""

import asyncio

from ems_worker import errors
from ems_worker.core import digests
from ems_worker.core.documents import subjects
from ems_worker.core.wire import Message
from ems_worker.errors import Problem
from ems_worker.service.base.ports import Broker

OBJECT = subjects.PLAN_OBJECT_HEADER
DIGEST = subjects.PLAN_DIGEST_HEADER

# At this delivery of the message a missing object becomes a rejection.
OBJECT_TRIES = 5


class ObjectAwaitedError(Exception):
    """The plan's object is missing but may still arrive; the message is to be redelivered after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the plan's object is missing: retried in {seconds:g} s")


async def read(message: Message, broker: Broker, max_bytes: int) -> bytes:
    """The plan as its publisher sent it, possibly compressed or in an envelope.

    Raises PlanRejected, ObjectAwaitedError, and the broker's errors if it can't be reached.
    """
    if (name := message.headers.get(OBJECT)) is not None:
        return await _object(message, name, broker, max_bytes)
    return message.data


def digest(message: Message) -> bytes | None:
    """The SHA-256 of the plan's bytes, without reading an object; None if the message contains no valid digest."""
    if OBJECT in message.headers:
        return digests.parse(message.headers.get(DIGEST, ""))
    return digests.of(message.data)


async def _object(message: Message, name: str, broker: Broker, max_bytes: int) -> bytes:
    expected = digests.parse(message.headers.get(DIGEST, ""))
    if expected is None:
        reason = f"a plan with {OBJECT} needs {DIGEST}: SHA-256= and the digest in base64, or the digest in hex"
        raise _rejected("plan_object_digest", reason)
    try:
        data = await broker.plan_object(name, max_bytes)
    except errors.NotFound as error:
        if message.delivered < OBJECT_TRIES:
            # The message may have overtaken its object, or been read from another server of the cluster.
            raise ObjectAwaitedError(2.0 ** (message.delivered - 2)) from error
        raise _rejected("plan_object_missing", f"{error}: store the object before publishing the message") from error
    except errors.RequestRefused as error:
        raise _rejected("plan_object_unusable", str(error)) from error
    if await asyncio.to_thread(digests.of, data) != expected:
        reason = (
            f"the object {name!r} has another digest than {DIGEST}: it was replaced after the message was published"
        )
        raise _rejected("plan_object_digest", reason)
    return data


def _rejected(code: str, message: str) -> errors.PlanRejected:
    return errors.PlanRejected([Problem(code, "", message)])
