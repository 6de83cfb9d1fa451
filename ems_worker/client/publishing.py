"""Publishes a plan: as a message, as a compressed message if it is large, or through the object store if it is larger.

The worker distinguishes these forms by itself.
"""

import asyncio
import base64
import gzip
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ems_worker import errors
from ems_worker.client import bus, connection
from ems_worker.core import digests
from ems_worker.core.documents import subjects

SUBJECT = subjects.SUBMIT
BUCKET = subjects.PLAN_BUCKET
_PUBLISHER = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Room for subject, headers and protocol, which count too: the server cuts a connection that exceeds its limit.
_HEADROOM_BYTES = 4096
# The usual chunk size of object stores, unless the server accepts only smaller messages.
_CHUNK_BYTES = 128 * 1024
# After this time a publish is repeated with the same message id, so that the plan is stored once.
_TRY_SECONDS = 2.0
# An object is sent in acknowledged chunks, which take more time than a request does.
_SECONDS_A_MEGABYTE = 2.0


@dataclass(frozen=True, slots=True)
class PubAck:
    """JetStream's acknowledgement of a stored plan; (`stream`, `seq`) identifies the submission."""

    stream: str
    seq: int


def subject(publisher: str | None) -> str:
    """The subject for the plans of a publisher. Raises errors.RequestRefused if the name is invalid."""
    if publisher is None:
        return SUBJECT
    if not _PUBLISHER.fullmatch(publisher):
        raise errors.RequestRefused(f"publisher {publisher!r}: should be 1 to 64 letters, digits, '-' and '_'")
    return f"{SUBJECT}.{publisher}"


async def compress_if_large(link: connection.Connection, plan: bytes) -> bytes:
    """Compresses the plan if it doesn't fit into a message. Even then it may not fit."""
    return plan if len(plan) <= _room(link) else await asyncio.to_thread(_compressed, plan)


def _compressed(plan: bytes) -> bytes:
    # Without a timestamp, so that equal plans have equal bytes: the worker recognizes duplicates by them.
    return gzip.compress(plan, 6, mtime=0)


async def store(
    link: connection.Connection, subject: str, plan: bytes, *, headers: Mapping[str, str], timeout: float
) -> PubAck:
    """Returns when the plan is stored, exactly once. `timeout` is in seconds and is extended for large plans.

    Raises errors.BrokerMisconfigured if there is no stream or no object store for plans, errors.RequestRefused if it is
    full, errors.NoAnswer and errors.BrokerUnavailable.
    """
    data = await compress_if_large(link, plan)
    sent_headers = {"Nats-Msg-Id": uuid.uuid4().hex, **headers}
    if data is not plan:
        sent_headers["Content-Encoding"] = "gzip"
    try:
        with link.translated():
            if len(data) > _room(link):
                async with asyncio.timeout(timeout + _SECONDS_A_MEGABYTE * len(data) / 1e6):
                    sent_headers |= await _put(link, data)
                data = b""
            async with asyncio.timeout(timeout):
                return await _publish(link, subject, data, sent_headers)
    except bus.nats.js.errors.NoStreamResponseError as nobody:
        await link.require_jetstream(_TRY_SECONDS)
        raise errors.BrokerMisconfigured(
            f"NATS at {link.servers} has no stream for plans: no worker has ever run there. "
            f"Start one (ems-worker run), which creates the stream {subjects.PLANS_STREAM}"
        ) from nobody


async def _put(link: connection.Connection, data: bytes) -> dict[str, str]:
    """Puts the plan into the object store under a unique name. Returns the headers that refer to it.

    It doesn't use nats-py's object store, which would first look up the name, and so needs the right to read the plans
    of all publishers.
    """
    jetstream = link.client.jetstream()
    name, size = uuid.uuid4().hex, min(_CHUNK_BYTES, link.client.max_payload)
    chunks = range(0, len(data), size)
    try:
        for start in chunks:
            await jetstream.publish(f"$O.{BUCKET}.C.{name}", data[start : start + size])
    except bus.nats.js.errors.NoStreamResponseError as missing:
        raise errors.BrokerMisconfigured(
            f"the plan has {len(data):,} bytes, compressed; NATS at {link.servers} accepts {link.client.max_payload:,} "
            f"in a message and has no object store {BUCKET}. Start a worker (ems-worker run), which creates it"
        ) from missing
    digest = digests.text(digests.of(data))
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
        except bus.nats.errors.TimeoutError:
            continue
        return PubAck(ack.stream, ack.seq)


def _room(link: connection.Connection) -> int:
    return link.client.max_payload - _HEADROOM_BYTES
