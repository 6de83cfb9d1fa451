"""A message's delivery by a consumer, read from its reply subject (NATS ADR-15, versions 1 and 2)."""

import re
from typing import NamedTuple

from ems_worker.core.documents import subjects

# $JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQ.CONSUMER_SEQ.TIME.PENDING has 9 tokens. Version 2 inserts DOMAIN.ACCOUNT
# after $JS.ACK, and may append a token that only makes the subject unique. Numbers have at most 20 digits.
_ACK = re.escape(subjects.JETSTREAM_ACK).encode()
_NUMBER = rb"\.([0-9]{1,20})"
_DELIVERY = rb"([^.]*)\.([^.]*)" + 2 * _NUMBER + rb"\.[^.]*" + 2 * _NUMBER
_PLAIN = re.compile(_ACK + rb"\." + _DELIVERY)
_DOMAIN = re.compile(_ACK + rb"\.[^.]*\.[^.]*\." + _DELIVERY + rb"(?:\.[^.]*)?")


class Metadata(NamedTuple):
    """`delivered` counts the deliveries of this message; `pending` is how many the consumer has still to deliver."""

    stream: bytes
    consumer: bytes
    delivered: int
    seq: int
    published_ns: int
    pending: int


def read(reply: bytes) -> Metadata | None:
    """The delivery that a reply subject describes; None for a subject that doesn't acknowledge a message."""
    match = _PLAIN.fullmatch(reply) or _DOMAIN.fullmatch(reply)
    if match is None:
        return None
    stream, consumer, delivered, seq, published, pending = match.groups()
    return Metadata(stream, consumer, int(delivered), int(seq), int(published), int(pending))
