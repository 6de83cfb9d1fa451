"""Plans too large for a message: the object store bucket that publishers put them in, made and read.

Read by its own few requests: nats-py's reader makes a consumer for every object, and waits for ever for a chunk that
is gone.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams

BUCKET = "EMS_PLAN_OBJECTS"
STREAM = f"OBJ_{BUCKET}"
_SUBJECTS = [f"$O.{BUCKET}.C.>", f"$O.{BUCKET}.M.>"]
_DIGEST = "SHA-256="


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
    """An object's content. Raises NotFound where it (or a part of it) isn't there, RequestRefused where it is larger
    than `most_bytes`, or its content isn't what its store says."""
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    try:
        found = await api.call(link, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": subject})
    except api.Refused as refused:
        if refused.missing:
            raise errors.NotFound(f"the object store {BUCKET} has no object {name!r}") from refused
        raise
    info = _info(found["message"], name)
    if int(info["size"]) > most_bytes:
        raise errors.RequestRefused(
            f"the object has {int(info['size']):,} bytes; this worker takes {most_bytes:,} at most (EMS_MAX_PLAN_BYTES)"
        )
    content = await _chunks(link, str(info["nuid"]), int(info["chunks"]), most_bytes, name)
    if not matches(content, str(info.get("digest", ""))):
        raise errors.RequestRefused(f"the object {name!r} is damaged: its store has another digest for it")
    return content


def matches(content: bytes, digest: str) -> bool:
    """Whether this is its digest: SHA-256 as object stores write it (`SHA-256=` and base64), or in hex."""
    found = hashlib.sha256(content)
    if digest.startswith(_DIGEST):
        return digest.removeprefix(_DIGEST).rstrip("=") == base64.urlsafe_b64encode(found.digest()).decode().rstrip("=")
    return digest.lower() == found.hexdigest()


def _info(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    try:
        info = orjson.loads(base64.b64decode(message.get("data", "")))
    except ValueError:
        info = None
    if not isinstance(info, dict) or not {"nuid", "size", "chunks"} <= info.keys() or info.get("deleted"):
        raise errors.NotFound(f"the object store {BUCKET} has no object {name!r}, or only its link")
    return info


async def _chunks(link: connection.Connection, nuid: str, count: int, most_bytes: int, name: str) -> bytes:
    parts: list[bytes] = []
    seq = total = 0
    for _ in range(count):
        ask = {"seq": seq + 1, "next_by_subj": f"$O.{BUCKET}.C.{nuid}"}
        reply = await link.request(f"$JS.API.DIRECT.GET.{STREAM}", orjson.dumps(ask), api.TIMEOUT_SECONDS)
        headers = reply.headers or {}
        if "Nats-Sequence" not in headers:
            raise errors.NotFound(f"a part of the object {name!r} is missing")
        seq = int(headers["Nats-Sequence"])
        total += len(reply.data)
        if total > most_bytes:
            raise errors.RequestRefused(f"the object {name!r} is larger than its store says")
        parts.append(reply.data)
    return b"".join(parts)
