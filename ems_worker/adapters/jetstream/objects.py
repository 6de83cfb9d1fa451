"""Plans too large for a message: the object store bucket that publishers put them in, made and read.

Read by its own few requests: nats-py's reader makes a consumer for every object, and waits for ever for a chunk that
is gone.
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
_LONGEST_NAME_BYTES = 1024
# Chunks smaller than this on average would make reading an object take as many requests as its publisher likes.
_SMALLEST_CHUNK_BYTES = 1024
_LARGEST_NUMBER = 2**53
_SEQUENCE_DIGITS = 20


class _Info(pydantic.BaseModel):
    """An object's metadata as its publisher wrote it: whoever may write to the bucket may write anything there."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)

    # One token: it becomes part of a subject, and a wildcard would match the chunks of others.
    nuid: Annotated[str, Field(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
    size: Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)]
    chunks: Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)]
    digest: Annotated[str, Field(max_length=200)] = ""
    deleted: bool = False
    options: dict[str, Any] | None = None

    @property
    def there(self) -> bool:
        """Whether it has content of its own: it wasn't deleted, and is no link to another object."""
        return not self.deleted and not (self.options or {}).get("link")


async def ensure(link: connection.Connection, *, create: bool) -> None:
    """Makes the bucket where it is missing and `create` allows it; objects are kept as long as plans.

    Without the bucket nothing is lost but large plans, which their publishers are told of. Raises BrokerMisconfigured
    for one that can't be read.
    """
    info = await api.find(link, f"STREAM.INFO.{STREAM}")
    if info is not None:
        config = info["config"]
        if not config.get("allow_direct") or sorted(config.get("subjects") or []) != _SUBJECTS:
            raise errors.BrokerMisconfigured(
                f"stream {STREAM} is no object store that can be read. Remedy: nats stream edit {STREAM} "
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


async def read(link: connection.Connection, name: str, most_bytes: int) -> bytes:
    """An object's content.

    Raises NotFound where it (or a part of it) isn't there; RequestRefused where it is larger than `most_bytes`, its
    content isn't what its store says, or what its store says makes no sense.
    """
    encoded = name.encode("utf-8", "replace")
    if len(encoded) > _LONGEST_NAME_BYTES:
        raise errors.RequestRefused(
            f"the object's name has {len(encoded):,} bytes; {_LONGEST_NAME_BYTES:,} is the limit"
        )
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(encoded).decode()}"
    try:
        found = await api.call(link, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": subject})
    except api.Refused as refused:
        if refused.missing:
            raise errors.NotFound(f"the object store {BUCKET} has no object {name!r}") from refused
        raise
    info = _info(base64.b64decode(found["message"].get("data", "")), name)
    if not info.there:
        raise errors.NotFound(f"the object store {BUCKET} has no object {name!r}, or only its link")
    if info.size > most_bytes:
        raise errors.RequestRefused(
            f"the object has {info.size:,} bytes; this worker takes {most_bytes:,} at most (EMS_MAX_PLAN_BYTES)"
        )
    most_chunks = info.size // _SMALLEST_CHUNK_BYTES + 1
    if info.chunks > most_chunks:
        raise errors.RequestRefused(
            f"the object {name!r} has {info.chunks:,} chunks for {info.size:,} bytes; {most_chunks:,} at most are "
            "read: put it there in larger chunks"
        )
    content = await _chunks(link, info, name)
    if not matches(content, info.digest):
        raise errors.RequestRefused(f"the object {name!r} is damaged: its store has another digest for it")
    return content


def matches(content: bytes, digest: str) -> bool:
    """Whether this is its digest: SHA-256 as object stores write it (`SHA-256=` and base64), or in hex."""
    found = hashlib.sha256(content)
    if digest.startswith(_DIGEST):
        return digest.removeprefix(_DIGEST).rstrip("=") == base64.urlsafe_b64encode(found.digest()).decode().rstrip("=")
    return digest.lower() == found.hexdigest()


def _info(data: bytes, name: str) -> _Info:
    try:
        return _Info.model_validate(orjson.loads(data))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        words = f"{field}: {first['msg']}" if field else "it is no JSON object"
    except ValueError:
        words = "it is no JSON"
    raise errors.RequestRefused(f"the object store {BUCKET} has metadata of {name!r} that can't be used: {words}")


async def _chunks(link: connection.Connection, info: _Info, name: str) -> bytes:
    parts: list[bytes] = []
    seq = total = 0
    for _ in range(info.chunks):
        ask = {"seq": seq + 1, "next_by_subj": f"$O.{BUCKET}.C.{info.nuid}"}
        reply = await link.request(
            f"{subjects.JETSTREAM_API}.DIRECT.GET.{STREAM}", orjson.dumps(ask), api.TIMEOUT_SECONDS
        )
        found = (reply.headers or {}).get("Nats-Sequence")
        if found is None:
            raise errors.NotFound(f"a part of the object {name!r} is missing")
        # A chunk's publisher may have given it headers of this name.
        if not found.isascii() or not found.isdigit() or len(found) > _SEQUENCE_DIGITS or int(found) <= seq:
            raise errors.RequestRefused(f"a part of the object {name!r} has a sequence that can't be right")
        seq = int(found)
        total += len(reply.data)
        if total > info.size:
            raise errors.RequestRefused(f"the object {name!r} is larger than its store says")
        parts.append(reply.data)
    return b"".join(parts)
