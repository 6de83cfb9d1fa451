"""Shortens a document that is too large for a message of the broker: a short report is better than none.

The document itself names the fields that were cut; the manifest has all of them.
"""

import json
from collections.abc import Iterable
from itertools import accumulate, islice, takewhile
from typing import Any

from ems_worker.core.documents import documents

# The field in which a document names those of its fields that are not complete.
MARK = "shortened"

_Path = tuple[str, ...]

_PARAMETERS: tuple[_Path, ...] = (("params",), ("best", "params"))
# The mappings, lists and texts that may be long. All other fields are limited in size.
_LONG: tuple[_Path, ...] = (
    *_PARAMETERS,
    ("metrics",),
    ("artifacts",),
    ("labels",),
    ("error", "message"),
    ("errors",),
    ("warnings",),
    ("tags",),
    ("reason",),
    ("experiment_name",),
)
_ELLIPSIS = "…"
# Longer than a digest with its size, so that values that are digests already are kept.
_MAX_VALUE_BYTES = 128


def truncated(data: bytes, max_bytes: int) -> bytes | None:
    """The document in at most `max_bytes`; None if it can't be made that short or is no JSON object.

    First, parameters of over 128 bytes are replaced by their digests. If that isn't enough, the longest fields lose
    their last entries or characters.
    """
    if len(data) <= max_bytes:
        return data
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    marks: list[str] = []
    document[MARK] = marks
    for path in _PARAMETERS:
        if isinstance(params := _get(document, path), dict):
            short = documents.shortened(params, _MAX_VALUE_BYTES)
            if short != params:
                marks.append(".".join(path))
                _set(document, path, short)
    encoded = documents.encode(document)
    for path, size in _longest_first(document):
        if len(encoded) <= max_bytes:
            break
        if (name := ".".join(path)) not in marks:
            marks.append(name)
        excess = len(documents.encode(document)) - max_bytes
        _set(document, path, _beginning(_get(document, path), size - excess))
        encoded = documents.encode(document)
    return encoded if len(encoded) <= max_bytes else None


def _longest_first(document: documents.Document) -> list[tuple[_Path, int]]:
    """The fields that can be cut, with their sizes in bytes."""
    values = ((path, _get(document, path)) for path in _LONG)
    sizes = [(path, len(documents.encode(value))) for path, value in values if value]
    return sorted(sizes, key=lambda field: field[1], reverse=True)


def _beginning(value: Any, room: int) -> Any:
    """The first entries or characters of a value, as many as take at most `room` bytes."""
    if isinstance(value, str):
        sizes = (len(documents.encode(character)) - 2 for character in value)
        return value[: _count(sizes, room - len(documents.encode(_ELLIPSIS)))] + _ELLIPSIS
    if isinstance(value, list):
        return value[: _count((len(documents.encode(entry)) + 1 for entry in value), room - 2)]
    sizes = (len(documents.encode({name: entry})) - 1 for name, entry in value.items())
    return dict(islice(value.items(), _count(sizes, room - 2)))


def _count(sizes: Iterable[int], room: int) -> int:
    """How many of the first sizes there is room for."""
    return sum(1 for _ in takewhile(lambda total: total <= room, accumulate(sizes)))


def _get(document: documents.Document, path: _Path) -> Any:
    """A field's value; None if the document doesn't have the field."""
    value: Any = document
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _set(document: documents.Document, path: _Path, value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value
