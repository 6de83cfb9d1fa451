"""A plan on its way to the stream: as one message where it fits, compressed where that helps, else by way of the object
store. The worker tells them apart by itself."""

import asyncio
import base64
import gzip
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
import nats.js.errors

from ems_worker import errors
from ems_worker.client import connection
from ems_worker.core.documents import subjects

SUBJECT = subjects.SUBMIT
BUCKET = subjects.PLAN_BUCKET
_PUBLISHER = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What subject, headers and protocol take of the server's limit; a message of just the limit would cost the connection.
_HEADROOM_BYTES = 4096
# A piece of an object, as other clients of object stores make them; smaller where the server takes less.
_CHUNK_BYTES = 128 * 1024
# One try of a publish; it is repeated under the same message id, so that it is stored once.
_TRY_SECONDS = 2.0
# An object goes in acknowledged pieces: so much time for each megabyte, on top of a request's.
_SECONDS_A_MEGABYTE = 2.0


@dataclass(frozen=True, slots=True)
class PubAck:
    """What JetStream said about a stored plan; (`stream`, `seq`) names the submission."""

    stream: str
    seq: int


def subject(publisher: str | None) -> str:
    """Where a publisher of this name sends its plans. Raises errors.RequestRefused for what can't be a name."""
    if publisher is None:
        return SUBJECT
    if not _PUBLISHER.fullmatch(publisher):
        raise errors.RequestRefused(f"publisher {publisher!r}: should be 1 to 64 letters, digits, '-' and '_'")
    return f"{SUBJECT}.{publisher}"


async def fitting(link: connection.Connection, plan: bytes) -> bytes:
    """The plan, compressed if it would not fit into a message; it may still not fit then."""
    return plan if len(plan) <= _room(link) else await asyncio.to_thread(_compressed, plan)


def _compressed(plan: bytes) -> bytes:
    # Without the time: the worker recognises a plan that it has by its bytes.
    return gzip.compress(plan, 6, mtime=0)


async def store(
    link: connection.Connection, subject: str, plan: bytes, headers: Mapping[str, str], timeout: float
) -> PubAck:
    """Returns once the plan is stored, exactly once. `timeout` in seconds, longer for large plans.

    Raises errors.BrokerMisconfigured where no stream, or no object store, takes plans, errors.RequestRefused where it
    is full, errors.NoAnswer, errors.BrokerUnavailable.
    """
    data = await fitting(link, plan)
    more = {"Nats-Msg-Id": uuid.uuid4().hex, **headers}
    if data is not plan:
        more["Content-Encoding"] = "gzip"
    try:
        with link.translated():
            if len(data) > _room(link):
                async with asyncio.timeout(timeout + _SECONDS_A_MEGABYTE * len(data) / 1e6):
                    more |= await _put(link, data)
                data = b""
            async with asyncio.timeout(timeout):
                return await _publish(link, subject, data, more)
    except nats.js.errors.NoStreamResponseError as nobody:
        await link.require_jetstream(_TRY_SECONDS)
        raise errors.BrokerMisconfigured(
            f"NATS at {link.servers} has no stream for plans: no worker has ever run there. "
            f"Start one (ems-worker run): it creates the stream {subjects.PLANS_STREAM}"
        ) from nobody


async def _put(link: connection.Connection, data: bytes) -> dict[str, str]:
    """Puts the plan into the object store under a name of its own; the headers that say where it is.

    By its own few messages: nats-py first asks for an object of this name, which takes the right to read everybody's.
    """
    jetstream = link.client.jetstream()
    name, size = uuid.uuid4().hex, min(_CHUNK_BYTES, link.client.max_payload)
    chunks = range(0, len(data), size)
    try:
        for start in chunks:
            await jetstream.publish(f"$O.{BUCKET}.C.{name}", data[start : start + size])
    except nats.js.errors.NoStreamResponseError as missing:
        raise errors.BrokerMisconfigured(
            f"the plan has {len(data):,} bytes, compressed; NATS at {link.servers} takes {link.client.max_payload:,} "
            f"in a message and has no object store {BUCKET}. Start a worker (ems-worker run): it creates it"
        ) from missing
    digest = f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}"
    info = {
        "name": name,
        "bucket": BUCKET,
        "nuid": name,
        "size": len(data),
        "chunks": len(chunks),
        "digest": digest,
        "mtime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "options": {"max_chunk_size": size},
    }
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    await jetstream.publish(subject, json.dumps(info).encode(), headers={"Nats-Rollup": "sub"})
    return {subjects.PLAN_OBJECT_HEADER: name, subjects.PLAN_DIGEST_HEADER: digest}


async def _publish(link: connection.Connection, subject: str, data: bytes, headers: dict[str, str]) -> PubAck:
    jetstream = link.client.jetstream()
    while True:
        try:
            ack = await jetstream.publish(subject, data, timeout=_TRY_SECONDS, headers=headers)
        except nats.errors.TimeoutError:
            continue
        return PubAck(ack.stream, ack.seq)


def _room(link: connection.Connection) -> int:
    return link.client.max_payload - _HEADROOM_BYTES
