"""Which dead letters may be replayed, and with which headers.

A client that may publish to `ems.dlq.*` chooses the headers of a letter, and the operator who replays it has more
rights than that client: a trusted letter could delete a stream or end a run with the operator's rights. So a replay
publishes only plans and run events, only from the streams that hold them, and only with headers that describe the
content.
"""

import re
from collections.abc import Mapping
from typing import Final

from ems_worker.core.documents import subjects

PLANS_STREAM: Final = subjects.PLANS_STREAM
_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
# A token of a subject has no white space, no dot and no wildcard.
_WORD: Final = r"[^.*>\s]+"
_SUBJECTS: Final[Mapping[str, re.Pattern[str]]] = {
    "plan": re.compile(rf"{re.escape(subjects.SUBMIT)}(\.{_WORD})?"),
    "event": re.compile(rf"({'|'.join(map(re.escape, subjects.RUN_EVENTS))})(\.{_WORD})*"),
}
_MAX_SUBJECT: Final = 512
_MAX_VALUE: Final = 1024
# Header names by their lower case. The message id is not replayed: the replay would be dropped as a duplicate.
_HEADERS: Final[Mapping[str, str]] = {
    name.lower(): name
    for name in (
        "Content-Type",
        "Content-Encoding",
        subjects.PLAN_OBJECT_HEADER,
        subjects.PLAN_DIGEST_HEADER,
        "traceparent",
    )
}


def refusal(kind: str, subject: str, stream: str) -> str | None:
    """Why a letter of this kind, from this subject of this stream, may not be replayed; None if it may."""
    pattern = _SUBJECTS.get(kind)
    if pattern is None:
        return f"it is neither a plan nor an event but {kind!r}"
    if len(subject) > _MAX_SUBJECT or not subject.isprintable() or not pattern.fullmatch(subject):
        return f"it says that it was sent to {subject[:_MAX_SUBJECT]!r}, which is no subject of {kind}s"
    if not _STREAM.fullmatch(stream) or (kind == "plan" and stream != PLANS_STREAM):
        return f"it says that it comes from the stream {stream[:_MAX_SUBJECT]!r}, which holds no {kind}s"
    return None


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """The headers that are replayed: those that describe the content, unchanged."""
    return {
        _HEADERS[name.lower()]: value
        for name, value in given.items()
        if name.lower() in _HEADERS and len(value) <= _MAX_VALUE and value.isprintable()
    }
