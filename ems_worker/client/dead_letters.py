"""Lists, replays and drops dead letters, the messages that the worker could not process. It needs no worker."""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ems_worker import errors
from ems_worker.client import bus, connection
from ems_worker.client.publishing import PubAck
from ems_worker.core.access import dead_letters
from ems_worker.core.documents import subjects

if TYPE_CHECKING:
    from nats.js.api import RawStreamMsg

_STREAM: Final = subjects.DEAD_LETTER_STREAM
_SUBJECT: Final = subjects.DEAD_LETTERS


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that the worker could not process.

    `seq` is its number among the dead letters. `stream`, `original_seq` and `subject` are its origin. `delivered` is
    how often the worker received it, `size` its length in bytes. `data` is None if it was too large to be copied.
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
    """The dead letters at a broker. Every method may raise errors.BrokerUnavailable and errors.NoAnswer."""

    def __init__(self, link: connection.Connection, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    async def list(self, kind: str | None = None) -> AsyncGenerator[DeadLetter, None]:
        """Yields all dead letters, or those of a kind (`plan` or `event`), oldest first."""
        subject = f"{_SUBJECT}.{kind or '*'}"
        seq = 0
        while (message := await self._message(_STREAM, seq + 1, subject)) is not None:
            seq = message.seq or 0
            yield _letter(message)

    async def get(self, seq: int) -> DeadLetter:
        """The dead letter with this number. Raises errors.NotFound."""
        message = await self._message(_STREAM, seq)
        if message is None:
            raise errors.NotFound(f"there is no dead letter {seq}")
        return _letter(message)

    async def replay(self, seq: int) -> PubAck:
        """Sends a plan or an event to its original subject again, then drops the dead letter.

        Only the headers that describe the content are sent. A second replay that follows immediately is a duplicate to
        the broker. Raises errors.NotFound if the letter or the message that it refers to is gone. Raises
        errors.RequestRefused if the letter claims to be anything but a plan or an event, as anyone who may publish to
        `ems.dlq.*` can forge a letter.
        """
        letter = await self.get(seq)
        if (reason := dead_letters.refusal(letter.kind, letter.subject, letter.stream)) is not None:
            raise errors.RequestRefused(f"dead letter {seq} is not sent again: {reason}")
        data, headers = await self._original(letter)
        headers["Nats-Msg-Id"] = f"replay-{letter.sha256[:16]}-{seq}"
        with self._link.translated():
            try:
                async with asyncio.timeout(self._timeout):
                    ack = await self._link.client.jetstream().publish(letter.subject, data, headers=headers)
            except bus.nats.js.errors.NoStreamResponseError as nobody:
                raise errors.BrokerMisconfigured(f"no stream stores {letter.subject}") from nobody
        await self.drop(seq)
        return PubAck(ack.stream, ack.seq)

    async def drop(self, seq: int) -> None:
        """Deletes a dead letter permanently. Raises errors.NotFound."""
        await self.get(seq)  # deleting a missing message fails with the same code as any other failure
        with self._link.translated():
            await self._link.client.jetstream().delete_msg(_STREAM, seq)

    async def _original(self, letter: DeadLetter) -> tuple[bytes, dict[str, str]]:
        """The data and headers of the original message: from its stream if it is still there, else from the letter."""
        message = await self._message(letter.stream, letter.original_seq)
        if message is not None and message.subject != letter.subject:
            raise errors.RequestRefused(
                f"dead letter {letter.seq} is not sent again: it claims the subject {letter.subject}, but message "
                f"{letter.original_seq} of stream {letter.stream} has the subject {message.subject!r}"
            )
        if message is not None and hashlib.sha256(message.data or b"").hexdigest() == letter.sha256:
            return message.data or b"", dead_letters.headers(_headers(message))
        if letter.data is None:
            raise errors.NotFound(
                f"dead letter {letter.seq} does not contain its message, which was too large, and the original, "
                f"message {letter.original_seq} of stream {letter.stream}, is gone"
            )
        if not letter.data:
            raise errors.NotFound(
                f"dead letter {letter.seq} is empty, and the original, message {letter.original_seq} of stream "
                f"{letter.stream}, whose headers may have named an object with the content, is gone"
            )
        return letter.data, {}

    async def _message(self, stream: str, seq: int, subject: str | None = None) -> "RawStreamMsg | None":
        """The message with this number, or the first one with `subject` from this number on. None if there is none."""
        with self._link.translated():
            try:
                async with asyncio.timeout(self._timeout):
                    stored = self._link.client.jetstream()
                    return await stored.get_msg(stream, seq, subject=subject, next=subject is not None)
            except (bus.nats.js.errors.NotFoundError, bus.nats.errors.NoRespondersError):
                return None


def _letter(message: "RawStreamMsg") -> DeadLetter:
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


def _headers(message: "RawStreamMsg") -> Mapping[str, str]:
    """The headers as text: nats-py returns values with non-ASCII bytes as another type."""
    return {name: str(value) for name, value in (message.headers or {}).items()}


def _number(text: str | None) -> int:
    # The server's numbers have 64 bits, but anyone may have written these.
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else 0
