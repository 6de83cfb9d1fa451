"""A document that the broker would not take whole, brought to a size that it takes: its experiment is told in any case.

What is cut is named in the document itself; the manifest has all of it.
"""

import json
from collections.abc import Iterable
from itertools import accumulate, islice, takewhile
from typing import Any

from ems_worker.core.documents import documents

# The field in which a document names those of its fields that are not whole.
MARK = "shortened"

_Path = tuple[str, ...]

_PARAMETERS: tuple[_Path, ...] = (("params",), ("best", "params"))
# What may be long: mappings, lists and texts. All else has bounds of its own.
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
_CUT = "…"
# Longer than any digest with its size, so that what is one already stays what it is.
_LONGEST_VALUE_BYTES = 128


def fitted(data: bytes, most: int) -> bytes | None:
    """The document within `most` bytes; None for what is no document, or can't be brought to that size.

    If it has to be shortened, parameters of over 128 bytes leave as their digests. If that isn't enough, the longest
    fields lose what is at their ends.
    """
    if len(data) <= most:
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
        if isinstance(params := _at(document, path), dict):
            short = documents.shortened(params, _LONGEST_VALUE_BYTES)
            if short != params:
                marks.append(".".join(path))
                _put(document, path, short)
    encoded = documents.encode(document)
    for path, size in _longest_first(document):
        if len(encoded) <= most:
            break
        if (name := ".".join(path)) not in marks:
            marks.append(name)
        over = len(documents.encode(document)) - most
        _put(document, path, _beginning(_at(document, path), size - over))
        encoded = documents.encode(document)
    return encoded if len(encoded) <= most else None


def _longest_first(document: documents.Document) -> list[tuple[_Path, int]]:
    """The fields that can be cut, with their bytes."""
    found = ((path, _at(document, path)) for path in _LONG)
    sizes = [(path, len(documents.encode(value))) for path, value in found if value]
    return sorted(sizes, key=lambda one: one[1], reverse=True)


def _beginning(value: Any, room: int) -> Any:
    """As many of the first entries (or characters) as take no more than `room` bytes."""
    if isinstance(value, str):
        kept = _count((len(documents.encode(one)) - 2 for one in value), room - len(documents.encode(_CUT)))
        return value[:kept] + _CUT
    if isinstance(value, list):
        return value[: _count((len(documents.encode(one)) + 1 for one in value), room - 2)]
    entries = (len(documents.encode({name: one})) - 1 for name, one in value.items())
    return dict(islice(value.items(), _count(entries, room - 2)))


def _count(sizes: Iterable[int], room: int) -> int:
    """How many of the first there is room for."""
    return sum(1 for _ in takewhile(lambda total: total <= room, accumulate(sizes)))


def _at(document: documents.Document, path: _Path) -> Any:
    """The field's value; None where the document has none."""
    found: Any = document
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _put(document: documents.Document, path: _Path, value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value
