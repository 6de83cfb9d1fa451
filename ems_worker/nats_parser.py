"""Parsing what a NATS server sends: nats-py's parser, corrected, with a shorter way for many messages."""

import re
from collections.abc import Callable, Mapping
from typing import Protocol

import nats.errors
from nats.protocol import parser

# Spaces and tabs separate the words of a control line. nats-py's own patterns also split at vertical tabs and form
# feeds, which a subject may contain: such a message would break the connection, and again at each redelivery.
_WORD = rb"([^ \t\r\n]+)[ \t]+"
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+" + _WORD + _WORD + rb"(" + _WORD + rb")?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG[ \t]+" + _WORD + _WORD + rb"(" + _WORD + rb")?(\d+)[ \t]+(\d+)\r\n")

# The same for a message anywhere in a buffer.
_MESSAGE = re.compile(rb"MSG[ \t]+" + _WORD + _WORD + rb"(?:" + _WORD + rb")?(\d+)\r\n")
_HEADED_MESSAGE = re.compile(rb"HMSG[ \t]+" + _WORD + _WORD + rb"(?:" + _WORD + rb")?(\d+)[ \t]+(\d+)\r\n")
_LINE_END = b"\r\n"

# What receives a message: its subject, its reply subject, its data and its headers.
Receiver = Callable[[bytes, bytes, bytes, bytes], None]


class Client(Protocol):
    """Whose connection is parsed."""

    async def unreadable(self, error: Exception) -> None:
        """Closes the connection after an exception in what the server's bytes led to."""


class Parser(parser.Parser):
    """nats-py's parser, and a shorter way for complete messages that go to a receiver."""

    def __init__(self, client: Client, receivers: Mapping[int, Receiver]) -> None:
        super().__init__(client)
        self._client = client
        self._receivers = receivers

    async def parse(self, data: bytes = b"") -> None:
        try:
            await self._parse(data)
        except (OSError, nats.errors.ProtocolError):
            raise
        except Exception as error:  # noqa: BLE001 - nats-py would log it and never read again
            await self._client.unreadable(error)

    async def _parse(self, data: bytes) -> None:
        if self.state == parser.AWAITING_MSG_PAYLOAD:
            # Only to the end of the message that began earlier.
            missing = self.needed + len(_LINE_END) - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        if data and self.state == parser.AWAITING_CONTROL_LINE:
            data = bytes(self.buf) + data
            self.buf.clear()
            await super().parse(data[self._deliver(data) :])

    def _deliver(self, data: bytes) -> int:
        """Delivers the complete messages at the beginning of these bytes; returns where the rest begins."""
        at = 0
        while True:
            header_size = b"0"
            if (found := _MESSAGE.match(data, at)) is not None:
                subject, sid, reply, size = found.groups()
            elif (found := _HEADED_MESSAGE.match(data, at)) is not None:
                subject, sid, reply, header_size, size = found.groups()
            else:
                return at
            receiver = self._receivers.get(int(sid))
            start = found.end()
            body, end = start + int(header_size), start + int(size)
            if receiver is None or len(data) < end + len(_LINE_END) or body > end:
                return at
            at = end + len(_LINE_END)
            receiver(subject, reply or b"", data[body:end], data[start:body])
