"""Messages that are to be stored, brought to a size that can be."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ems_worker.core.documents import truncate

# What the protocol adds to headers and payload of a message on its way.
_SLACK_BYTES = 512
# What is left for the headers of a document that is shortened; always the same, so that it always becomes the same.
_HEADERS_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Item:
    """A message to be stored. Where it is too large, a document goes out shortened, all else as `instead` says."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    document: bool = False
    instead: "Item | None" = None

    @property
    def size(self) -> int:
        return len(self.data) + sum(len(k.encode()) + len(v.encode()) + 4 for k, v in self.headers.items())

    def within(self, most: int) -> "Item | None":
        """As it can be stored where messages have at most so many bytes; None where there is no way."""
        if self.size + _SLACK_BYTES <= most:
            return self
        if self.instead is not None:
            return self.instead.within(most)
        data = truncate.truncated(self.data, most - _SLACK_BYTES - _HEADERS_BYTES) if self.document else None
        return None if data is None else replace(self, data=data)

    async def fit(self, most: int) -> "Item | None":
        """The same; in a thread where it takes a while."""
        return self if self.size + _SLACK_BYTES <= most else await asyncio.to_thread(self.within, most)
