"""What the worker could not use: listed, looked at, sent again, dropped. It needs no worker."""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.js.api import RawStreamMsg

from ems_worker import errors
from ems_worker.client import connection
from ems_worker.client.publishing import PubAck
from ems_worker.core.access import dead_letters
from ems_worker.core.documents import subjects

_STREAM: Final = subjects.DEAD_LETTER_STREAM
_SUBJECT: Final = subjects.DEAD_LETTERS


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was put aside. `seq` is its number among dead letters; `data` is None where it was too large.

    `stream`, `original_seq` and `subject` are where it came from, `delivered` how often it was tried, `size` in bytes.
    """

    seq: int
    kind: str
    reason: str
    subject: str
    stream: str
    original_seq: int
    delivered: int
    size: int
    sha256: str
    at: datetime | None
    data: bytes | None = dataclasses.field(repr=False)


class DeadLetters:
    """Of one broker. Every method may raise errors.BrokerUnavailable and errors.NoAnswer."""

    def __init__(self, link: connection.Connection, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    async def list(self, kind: str | None = None) -> AsyncGenerator[DeadLetter, None]:
        """All of them, or those of one kind, the oldest first."""
        subject = f"{_SUBJECT}.{kind or '*'}"
        seq = 0
        while (message := await self._message(_STREAM, seq + 1, subject)) is not None:
            seq = message.seq or 0
            yield _letter(message)

    async def get(self, seq: int) -> DeadLetter:
        """One of them. Raises errors.NotFound."""
        message = await self._message(_STREAM, seq)
        if message is None:
            raise errors.NotFound(f"there is no dead letter {seq}")
        return _letter(message)

    async def replay(self, seq: int) -> PubAck:
        """Sends a plan or an event again to where it was sent first, then drops the dead letter.

        Of its headers only those that say what the content is go along. A repetition that follows at once is the same
        message to the broker. Raises errors.NotFound where the letter, or what it refers to, is gone, and
        errors.RequestRefused where it says that it was anything but a plan or an event: anyone who may publish to
        `ems.dlq.*` can say so.
        """
        letter = await self.get(seq)
        if (why := dead_letters.refusal(letter.kind, letter.subject, letter.stream)) is not None:
            raise errors.RequestRefused(f"dead letter {seq} is not sent again: {why}")
        data, headers = await self._original(letter)
        headers["Nats-Msg-Id"] = f"replay-{letter.sha256[:16]}-{seq}"
        with self._link.translated():
            try:
                async with asyncio.timeout(self._timeout):
                    ack = await self._link.client.jetstream().publish(letter.subject, data, headers=headers)
            except nats.js.errors.NoStreamResponseError as nobody:
                raise errors.BrokerMisconfigured(f"no stream takes {letter.subject}") from nobody
        await self.drop(seq)
        return PubAck(ack.stream, ack.seq)

    async def drop(self, seq: int) -> None:
        """Deletes one for good. Raises errors.NotFound."""
        await self.get(seq)  # the refusal to delete what isn't there has the code of any failure
        with self._link.translated():
            await self._link.client.jetstream().delete_msg(_STREAM, seq)

    async def _original(self, letter: DeadLetter) -> tuple[bytes, dict[str, str]]:
        """The message as it was sent: from its stream, which has its headers, else from the letter."""
        message = await self._message(letter.stream, letter.original_seq)
        if message is not None and message.subject != letter.subject:
            raise errors.RequestRefused(
                f"dead letter {letter.seq} is not sent again: it says that it was sent to {letter.subject}, and "
                f"message {letter.original_seq} of stream {letter.stream} was sent to {message.subject!r}"
            )
        if message is not None and hashlib.sha256(message.data or b"").hexdigest() == letter.sha256:
            return message.data or b"", dead_letters.headers(_headers(message))
        if letter.data is None:
            raise errors.NotFound(
                f"dead letter {letter.seq} is too large to be kept whole, and message {letter.original_seq} of stream "
                f"{letter.stream}, which it is about, is gone"
            )
        if not letter.data:
            raise errors.NotFound(
                f"dead letter {letter.seq} is empty, and message {letter.original_seq} of stream {letter.stream} is "
                "gone, which may have said where its content is"
            )
        return letter.data, {}

    async def _message(self, stream: str, seq: int, subject: str | None = None) -> RawStreamMsg | None:
        """The message of this number, or with a subject the first of it from this number on; None: there is none."""
        with self._link.translated():
            try:
                async with asyncio.timeout(self._timeout):
                    stored = self._link.client.jetstream()
                    return await stored.get_msg(stream, seq, subject=subject, next=subject is not None)
            except (nats.js.errors.NotFoundError, nats.errors.NoRespondersError):
                return None


def _letter(message: RawStreamMsg) -> DeadLetter:
    headers = _headers(message)
    return DeadLetter(
        seq=message.seq or 0,
        kind=(message.subject or "").rpartition(".")[2],
        reason=headers.get(subjects.REASON_HEADER, ""),
        subject=headers.get(subjects.SUBJECT_HEADER, ""),
        stream=headers.get(subjects.STREAM_HEADER, ""),
        original_seq=_number(headers.get(subjects.SEQUENCE_HEADER)),
        delivered=_number(headers.get(subjects.DELIVERED_HEADER)),
        size=_number(headers.get(subjects.BYTES_HEADER)),
        sha256=headers.get(subjects.SHA256_HEADER, ""),
        at=message.time,
        data=None if subjects.BY_REFERENCE_HEADER in headers else message.data or b"",
    )


def _headers(message: RawStreamMsg) -> Mapping[str, str]:
    """As text: where there are bytes beyond ASCII, the library gives something else."""
    return {name: str(value) for name, value in (message.headers or {}).items()}


def _number(text: str | None) -> int:
    # The server's numbers have 64 bits; anyone may have written these.
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else 0
