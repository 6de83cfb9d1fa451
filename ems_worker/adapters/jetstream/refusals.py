"""What the broker refuses the worker at the moment: a missing right, a full store, or no answer.

The connection stays up all the while, so nothing else would show it.
"""

import asyncio
import re

from ems_worker.core.documents import subjects

# NATS reports every message that it denies. Whatever the worker still tries comes again within this time: statuses and
# results about every 20 s, messages whose acknowledgement is denied every 30 s.
DENIED_SECONDS = 90.0
_MAX_SUBJECTS = 50
_MAX_CHARACTERS = 300
_VIOLATION = re.compile(r"permissions violation for (publish|subscription) (?:to|with reply of) \"([^\"]*)\"", re.I)
# The subjects that the worker publishes to for its own work. Elsewhere it only replies, and a requester may choose an
# inbox that the worker has no right to.
_OWN_PREFIXES = (f"{subjects.JETSTREAM}.", "$O.", subjects.PREFIX)


class Refusals:
    """The broker's reasons, by kind of subject."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    @property
    def summary(self) -> str | None:
        """All reasons with their subjects, on one line; None if nothing is refused. Safe to call from any thread."""
        return "; ".join(f"{kind}: {reason}" for kind, reason in sorted(self._reasons.copy().items())) or None

    @property
    def any(self) -> bool:
        """Whether the broker refuses anything."""
        return bool(self._reasons)

    def record(self, subject: str, reason: str) -> None:
        """The broker refuses messages on this kind of subject."""
        if len(self._reasons) < _MAX_SUBJECTS or _kind(subject) in self._reasons:
            self._reasons[_kind(subject)] = reason[:_MAX_CHARACTERS]

    def record_silence(self, subject: str, reason: str) -> None:
        """No answer comes on this kind of subject. A reason that the broker gave before is kept."""
        if _kind(subject) not in self._reasons:
            self.record(subject, reason)

    def record_violation(self, error: Exception) -> bool:
        """Records the subject that a permissions violation denies; whether that is new.

        The record expires, because NATS never reports that a right was granted.
        """
        match = _VIOLATION.search(str(error))
        if match is None:
            return False
        kind = _kind(match[2])
        if match[1].lower() == "publish" and not kind.startswith(_OWN_PREFIXES):
            return False
        is_new = kind not in self._reasons
        self.record(kind, match[0])
        if (expiry := self._expiries.pop(kind, None)) is not None:
            expiry.cancel()
        if kind in self._reasons:
            self._expiries[kind] = asyncio.get_running_loop().call_later(DENIED_SECONDS, self.resolve, kind)
        return is_new

    def resolve(self, subject: str) -> None:
        """A message on this kind of subject got through, or was answered."""
        if not self._reasons and not self._expiries:
            return
        self._reasons.pop(_kind(subject), None)
        if (expiry := self._expiries.pop(_kind(subject), None)) is not None:
            expiry.cancel()

    def clear(self) -> None:
        """The connection is lost: the next server, or the rights on it, may differ."""
        for kind in list(self._reasons):
            self.resolve(kind)


def _kind(subject: str) -> str:
    """The part of a subject that is the same for all messages of its kind."""
    if subject.startswith(f"{subjects.JETSTREAM_ACK}."):
        return ".".join(subject.split(".", 4)[:4])
    if subject.startswith(f"{subjects.EXPERIMENT}."):
        return ".".join(subject.split(".", 3)[:3])
    return subject[:_MAX_CHARACTERS]
