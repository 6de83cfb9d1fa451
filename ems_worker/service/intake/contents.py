"""A plan's bytes as they were sent: from its message or from the object store."""

import asyncio
import base64
import binascii
import hashlib

from ems_worker import errors
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
        return _sha256(message.headers.get(DIGEST, ""))
    return _digest(message.data)


async def _object(message: Message, name: str, broker: Broker, max_bytes: int) -> bytes:
    digest = message.headers.get(DIGEST)
    wanted = None if digest is None else _sha256(digest)
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
    if await asyncio.to_thread(_digest, data) != wanted:
        raise _refused("plan_object_digest", f"the object {name!r} is not what {DIGEST} says: it was replaced since")
    return data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _sha256(digest: str) -> bytes | None:
    """The 32 bytes of a digest as object stores write it, or in hex; None for anything else."""
    try:
        if digest.upper().startswith("SHA-256="):
            found = base64.urlsafe_b64decode(digest[len("SHA-256=") :])
        else:
            found = bytes.fromhex(digest)
    except (ValueError, binascii.Error):
        return None
    return found if len(found) == hashlib.sha256().digest_size else None


def _refused(code: str, words: str) -> errors.PlanRejected:
    return errors.PlanRejected([Problem(code, "", words)])
