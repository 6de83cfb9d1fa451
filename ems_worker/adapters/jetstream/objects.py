"""The object store bucket for plans that are too large for a message: creating it, and reading objects from it.

It is read with a few requests of our own, because nats-py's reader creates a consumer for every object and waits
indefinitely for a missing chunk.
"""

import base64
import hashlib
from typing import Annotated, Any

import orjson
import pydantic
from pydantic import Field

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams
from ems_worker.core.documents import subjects

BUCKET = subjects.PLAN_BUCKET
STREAM = subjects.PLAN_OBJECTS_STREAM
_SUBJECTS = [f"$O.{BUCKET}.C.>", f"$O.{BUCKET}.M.>"]
_DIGEST = "SHA-256="
_MAX_NAME_BYTES = 1024
# The least average size of chunks: it bounds the number of requests that a publisher can make us send.
_MIN_CHUNK_BYTES = 1024
_MAX_NUMBER = 2**53
_MAX_SEQUENCE_DIGITS = 20


class ObjectInfo(pydantic.BaseModel):
    """An object's metadata. It can't be trusted: any client with access to the bucket may have written it."""

    # Built when the first object is read: few workers ever read one, and all would wait for it at their start.
    model_config = pydantic.ConfigDict(strict=True, frozen=True, defer_build=True)

    # A single token: it becomes part of a subject, and a wildcard would match the chunks of other objects.
    nuid: Annotated[str, Field(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
    size: Annotated[int, Field(ge=0, le=_MAX_NUMBER)]
    chunks: Annotated[int, Field(ge=0, le=_MAX_NUMBER)]
    digest: Annotated[str, Field(max_length=200)] = ""
    deleted: bool = False
    options: dict[str, Any] | None = None

    @property
    def has_content(self) -> bool:
        """Whether the object exists and isn't a link to another object."""
        return not self.deleted and not (self.options or {}).get("link")


async def ensure(link: connection.Connection, *, create: bool) -> None:
    """Creates the bucket if it is missing and `create` allows it. Objects are kept as long as plans.

    Without the bucket, only plans that need it are rejected. Raises BrokerMisconfigured if an existing bucket can't be
    read.
    """
    info = await api.find(link, f"STREAM.INFO.{STREAM}")
    if info is not None:
        config = info["config"]
        if not config.get("allow_direct") or sorted(config.get("subjects") or []) != _SUBJECTS:
            raise errors.BrokerMisconfigured(
                f"stream {STREAM} is not an object store that the worker can read. Remedy: nats stream edit {STREAM} "
                f"--subjects '{','.join(_SUBJECTS)}' --allow-direct"
            )
        return
    if not create:
        return
    plans = await api.call(link, f"STREAM.INFO.{streams.PLANS}")
    config = {
        "name": STREAM,
        "description": "Plans that are too large for a message",
        "subjects": _SUBJECTS,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": plans["config"].get("max_age", 0),
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    await api.call(link, f"STREAM.CREATE.{STREAM}", config)


async def read(link: connection.Connection, name: str, max_bytes: int) -> bytes:
    """An object's content.

    Raises NotFound if the object, or a part of it, is missing. Raises RequestRefused if it is larger than `max_bytes`,
    if its content doesn't match its metadata, or if its metadata makes no sense.
    """
    encoded = name.encode("utf-8", "replace")
    if len(encoded) > _MAX_NAME_BYTES:
        raise errors.RequestRefused(f"the object's name has {len(encoded):,} bytes; {_MAX_NAME_BYTES:,} is the limit")
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(encoded).decode()}"
    try:
        answer = await api.call(link, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": subject})
    except api.JetStreamError as error:
        if error.missing:
            raise errors.NotFound(f"the object store {BUCKET} has no object {name!r}") from error
        raise
    info = parse_info(base64.b64decode(answer["message"].get("data", "")), name)
    if not info.has_content:
        raise errors.NotFound(f"the object store {BUCKET} has no object {name!r}, or only its link")
    if info.size > max_bytes:
        raise errors.RequestRefused(
            f"the object has {info.size:,} bytes; this worker takes {max_bytes:,} at most (EMS_MAX_PLAN_BYTES)"
        )
    max_chunks = info.size // _MIN_CHUNK_BYTES + 1
    if info.chunks > max_chunks:
        raise errors.RequestRefused(
            f"the object {name!r} has {info.chunks:,} chunks for {info.size:,} bytes; the worker reads {max_chunks:,} "
            "at most: store it in larger chunks"
        )
    content = await _read_chunks(link, info, name)
    if not matches(content, info.digest):
        raise errors.RequestRefused(f"the object {name!r} is damaged: its digest differs from the one in its metadata")
    return content


def matches(content: bytes, digest: str) -> bool:
    """Whether `digest` is the content's SHA-256: as object stores write it (`SHA-256=` and base64), or in hex."""
    actual = hashlib.sha256(content)
    if digest.startswith(_DIGEST):
        encoded = base64.urlsafe_b64encode(actual.digest()).decode()
        return digest.removeprefix(_DIGEST).rstrip("=") == encoded.rstrip("=")
    return digest.lower() == actual.hexdigest()


def parse_info(data: bytes, name: str) -> ObjectInfo:
    """The metadata of the object `name`; raises RequestRefused for metadata that can't be used."""
    try:
        return ObjectInfo.model_validate(orjson.loads(data))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        reason = f"{field}: {first['msg']}" if field else "it is not a JSON object"
    except ValueError:
        reason = "it is not JSON"
    raise errors.RequestRefused(f"the object store {BUCKET} has metadata of {name!r} that can't be used: {reason}")


async def _read_chunks(link: connection.Connection, info: ObjectInfo, name: str) -> bytes:
    parts: list[bytes] = []
    seq = total = 0
    for _ in range(info.chunks):
        request = {"seq": seq + 1, "next_by_subj": f"$O.{BUCKET}.C.{info.nuid}"}
        reply = await link.request(
            f"{subjects.JETSTREAM_API}.DIRECT.GET.{STREAM}", orjson.dumps(request), api.TIMEOUT_SECONDS
        )
        sequence = (reply.headers or {}).get("Nats-Sequence")
        if sequence is None:
            raise errors.NotFound(f"a part of the object {name!r} is missing")
        # The publisher of a chunk may have set a header of this name.
        is_number = sequence.isascii() and sequence.isdigit() and len(sequence) <= _MAX_SEQUENCE_DIGITS
        if not is_number or int(sequence) <= seq:
            raise errors.RequestRefused(f"a part of the object {name!r} has an impossible sequence")
        seq = int(sequence)
        total += len(reply.data)
        if total > info.size:
            raise errors.RequestRefused(f"the object {name!r} is larger than its metadata says")
        parts.append(reply.data)
    return b"".join(parts)
