"""What the broker refuses the worker at the moment: rights that are missing, a store that is full, no answer at all.

The connection is up all the while, so nothing else would show it.
"""

import asyncio
import re

from ems_worker.core.documents import subjects

# NATS says once a message that it wasn't allowed. What the worker still tries comes again within this time: statuses
# and results every some 20 s, messages that can't be acknowledged every 30 s.
_DENIED_SECONDS = 90.0
_MOST = 50
_LONGEST = 300
_VIOLATION = re.compile(r"permissions violation for (publish|subscription) (?:to|with reply of) \"([^\"]*)\"", re.I)
# What the worker publishes to for its own work. Elsewhere it only replies, and a requester may choose an inbox that the
# worker has no right to.
_OURS = (f"{subjects.JETSTREAM}.", "$O.", subjects.PREFIX)


class Refusals:
    """By kind of subject, the broker's words."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    @property
    def words(self) -> str | None:
        """All of them with their subjects, on one line; None if nothing is refused. May be asked by any thread."""
        return "; ".join(f"{kind}: {words}" for kind, words in sorted(self._words.copy().items())) or None

    def note(self, subject: str, words: str) -> None:
        """The broker refuses messages on this kind of subject."""
        if len(self._words) < _MOST or _kind(subject) in self._words:
            self._words[_kind(subject)] = words[:_LONGEST]

    def note_silence(self, subject: str, words: str) -> None:
        """Nothing is heard about this kind of subject. Where the broker has said why, that stays."""
        if _kind(subject) not in self._words:
            self.note(subject, words)

    def note_violation(self, error: Exception) -> bool:
        """Notes the subject that an error of the connection denies; whether it denies one that isn't noted yet.

        It counts for a while, since NATS never says that a right has been granted.
        """
        found = _VIOLATION.search(str(error))
        if found is None:
            return False
        kind = _kind(found[2])
        if found[1].lower() == "publish" and not kind.startswith(_OURS):
            return False
        news = kind not in self._words
        self.note(kind, found[0])
        if (expiry := self._expiries.pop(kind, None)) is not None:
            expiry.cancel()
        if kind in self._words:
            self._expiries[kind] = asyncio.get_running_loop().call_later(_DENIED_SECONDS, self.over, kind)
        return news

    def over(self, subject: str) -> None:
        """A message on this kind of subject got through, or its answer came."""
        self._words.pop(_kind(subject), None)
        if (expiry := self._expiries.pop(_kind(subject), None)) is not None:
            expiry.cancel()

    def clear(self) -> None:
        """The connection is gone: the next one may be another server, or have other rights."""
        for kind in list(self._words):
            self.over(kind)


def _kind(subject: str) -> str:
    """A subject without what differs from message to message."""
    if subject.startswith(f"{subjects.JETSTREAM_ACK}."):
        return ".".join(subject.split(".", 4)[:4])
    if subject.startswith(f"{subjects.EXPERIMENT}."):
        return ".".join(subject.split(".", 3)[:3])
    return subject[:_LONGEST]
