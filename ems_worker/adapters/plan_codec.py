"""Unwraps the text of a plan from the bytes of its message.

The message may be compressed with gzip. The result may be a protobuf GenericEventRequest with the type key of plans;
anything else is the text itself, in JSON or YAML. Each wrapping may occur once.
"""

import zlib

from google.protobuf.message import DecodeError

from ems_worker import errors
from ems_worker.core.documents import subjects
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest

TYPE_KEY = f"{subjects.SUBMIT}.v1"

_GZIP_MAGIC = b"\x1f\x8b"
# Such a piece expands to at most 8 MB, which are in memory beside the data so far.
_STEP_BYTES = 8192
# Block-wise compressors write a member every 64 KB. Each member takes some microseconds, even if it is empty.
_MAX_MEMBERS = 1000
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
# The part of a type key that messages show.
_MAX_SHOWN_KEY = 100


def unpack(data: bytes, max_bytes: int) -> bytes:
    """The text of a plan. Never holds much more than `max_bytes` of decompressed data.

    Raises PlanRejected if the plan is larger than `max_bytes`, and Unreadable if a wrapping is damaged.
    """
    if len(data) > max_bytes:
        raise _too_large(f"{len(data):,}", max_bytes)
    if data.startswith(_GZIP_MAGIC):
        data = _decompressed(data, max_bytes)
        if data.startswith(_GZIP_MAGIC):
            raise errors.Unreadable("the plan is compressed twice")
    return _unwrapped(data)


def _decompressed(data: bytes, max_bytes: int) -> bytes:
    out = bytearray()
    at = members = 0
    # A gzip file is one or more members; `cat a.gz b.gz` is one.
    while at < len(data):
        members += 1
        if members > _MAX_MEMBERS:
            raise errors.Unreadable(f"a gzip file of more than {_MAX_MEMBERS:,} members")
        stream = zlib.decompressobj(_GZIP_FORMAT)
        while not stream.eof:
            if at >= len(data):
                raise errors.Unreadable("damaged gzip data: the end is missing")
            try:
                out += stream.decompress(data[at : at + _STEP_BYTES], max_bytes + 1 - len(out))
            except zlib.error as error:
                raise errors.Unreadable(f"damaged gzip data: {error}") from error
            if len(out) > max_bytes:
                raise _too_large(f"more than {max_bytes:,}", max_bytes)
            at += _STEP_BYTES
        at = min(at, len(data)) - len(stream.unused_data)
        # Zeros after the last member are padding.
        if data[at : at + 1] == b"\0" and not data[at:].strip(b"\0"):
            break
    return bytes(out)


def _unwrapped(data: bytes) -> bytes:
    try:
        envelope = GenericEventRequest.FromString(data)
    except DecodeError:
        return data
    # Text can be valid protobuf, but has no type key: the tag of that field is a control character.
    key = envelope.event_type_key
    if not key:
        return data
    if key != TYPE_KEY:
        raise errors.Unreadable(
            f"a GenericEventRequest with event_type_key {key[:_MAX_SHOWN_KEY]!r}; that of plans is {TYPE_KEY}"
        )
    return envelope.event_payload


def _too_large(size: str, max_bytes: int) -> errors.PlanRejected:
    message = f"the plan has {size} bytes; this worker accepts at most {max_bytes:,}, decompressed (EMS_MAX_PLAN_BYTES)"
    return errors.PlanRejected([errors.Problem("plan_too_large", "", message)])
