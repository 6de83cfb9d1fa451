"""Messages to store, brought to a size that the server takes."""

import asyncio
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from ems_worker.core.documents import truncate

# What the protocol adds to the headers and payload of a message.
_SLACK_BYTES = 512
# Reserved for the headers of a shortened document. It is fixed, so that a document is always shortened the same way.
_HEADERS_BYTES = 1024


class Item(Struct, frozen=True, gc=False):
    """A message to store. If it is too large, a document is shortened; other messages are replaced with `instead`."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    document: bool = False
    instead: "Item | None" = None

    @property
    def size(self) -> int:
        return len(self.data) + sum(len(k.encode()) + len(v.encode()) + 4 for k, v in self.headers.items())

    def within(self, max_bytes: int) -> "Item | None":
        """The message as it can be stored where messages have at most `max_bytes`; None if it can't be stored."""
        if self.size + _SLACK_BYTES <= max_bytes:
            return self
        if self.instead is not None:
            return self.instead.within(max_bytes)
        data = truncate.truncated(self.data, max_bytes - _SLACK_BYTES - _HEADERS_BYTES) if self.document else None
        return None if data is None else replace(self, data=data)

    async def fit(self, max_bytes: int) -> "Item | None":
        """Like `within`, but shortens in a thread, because that takes a while."""
        return self if self.size + _SLACK_BYTES <= max_bytes else await asyncio.to_thread(self.within, max_bytes)
