"""A message's delivery by a consumer, read from its reply subject (NATS ADR-15, versions 1 and 2)."""

from typing import NamedTuple

from ems_worker.core.documents import subjects

# The server writes numbers of at most this many digits.
_MAX_DIGITS = 20
# $JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQ.CONSUMER_SEQ.TIME.PENDING has 9 tokens. Version 2 inserts DOMAIN.ACCOUNT
# after $JS.ACK, and may append a token that only makes the subject unique.
_PLAIN, _DOMAIN, _UNIQUE = 9, 11, 12
_ACK = subjects.JETSTREAM_ACK.split(".")


class Metadata(NamedTuple):
    """`delivered` counts the deliveries of this message; `pending` is how many the consumer has still to deliver."""

    stream: str
    consumer: str
    delivered: int
    seq: int
    published_ns: int
    pending: int


def read(reply: str) -> Metadata | None:
    """The delivery that a reply subject describes; None for a subject that doesn't acknowledge a message."""
    tokens = reply.split(".", _UNIQUE)
    count = len(tokens)
    if count not in (_PLAIN, _DOMAIN, _UNIQUE) or tokens[:2] != _ACK:
        return None
    stream, consumer, delivered, seq, _, published, pending = tokens[2:9] if count == _PLAIN else tokens[4:11]
    for number in (delivered, seq, published, pending):
        if len(number) > _MAX_DIGITS or not (number.isascii() and number.isdigit()):
            return None
    return Metadata(stream, consumer, int(delivered), int(seq), int(published), int(pending))
