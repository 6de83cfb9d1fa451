"""The bytes of a plan's message to the plan's own text: what publishers wrap around it is taken off.

Told apart in this order: gzip; a protobuf GenericEventRequest with the type key of plans; else it is the text itself,
JSON or YAML. Each wrapping may be there once.
"""

import zlib

from google.protobuf.message import DecodeError

from ems_worker import errors
from ems_worker.core.documents import subjects
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest

TYPE_KEY = f"{subjects.SUBMIT}.v1"

_GZIP_MAGIC = b"\x1f\x8b"
# Expands to 8 MB at most: what is held at once beside what came out so far.
_STEP_BYTES = 8192
# Block-wise compressors make one every 64 KB; each costs some microseconds, however little is in it.
_MOST_MEMBERS = 1000
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
# Of a type key that is shown to people.
_LONGEST_KEY = 100


def unpack(data: bytes, most_bytes: int) -> bytes:
    """The plan's text. Never holds much more than `most_bytes` of what a compressed plan expands to.

    Raises PlanRejected for a plan over `most_bytes`, Unreadable for a wrapping that is broken.
    """
    if len(data) > most_bytes:
        raise _too_large(f"{len(data):,}", most_bytes)
    if data.startswith(_GZIP_MAGIC):
        data = _decompressed(data, most_bytes)
        if data.startswith(_GZIP_MAGIC):
            raise errors.Unreadable("the plan is compressed twice")
    return _unwrapped(data)


def _decompressed(data: bytes, most_bytes: int) -> bytes:
    out = bytearray()
    at = members = 0
    # A gzip file is one or more members; `cat a.gz b.gz` is one.
    while at < len(data):
        members += 1
        if members > _MOST_MEMBERS:
            raise errors.Unreadable(f"gzip of more than {_MOST_MEMBERS:,} members")
        stream = zlib.decompressobj(_GZIP_FORMAT)
        while not stream.eof:
            if at >= len(data):
                raise errors.Unreadable("broken gzip: its end is missing")
            try:
                out += stream.decompress(data[at : at + _STEP_BYTES], most_bytes + 1 - len(out))
            except zlib.error as error:
                raise errors.Unreadable(f"broken gzip: {error}") from error
            if len(out) > most_bytes:
                raise _too_large(f"more than {most_bytes:,}", most_bytes)
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
    # Text that happens to be protobuf has no type key: the tag of that field is a control character.
    key = envelope.event_type_key
    if not key:
        return data
    if key != TYPE_KEY:
        raise errors.Unreadable(
            f"a GenericEventRequest with event_type_key {key[:_LONGEST_KEY]!r}; plans have {TYPE_KEY}"
        )
    return envelope.event_payload


def _too_large(size: str, most_bytes: int) -> errors.PlanRejected:
    words = f"the plan has {size} bytes; this worker takes {most_bytes:,} at most, decompressed (EMS_MAX_PLAN_BYTES)"
    return errors.PlanRejected([errors.Problem("plan_too_large", "", words)])
