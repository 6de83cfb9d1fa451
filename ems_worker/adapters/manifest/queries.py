"""Reads .sql files in which every query has a name and a description:

    -- name: unpark key=3
    -- What it does, in a line or two.
    DELETE FROM ...;

`key=N` says that the first N values of a row name the one row that it is about, see writer.py. `:rows` in a query
stands for as many rows of values as there are.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

_HEADER = re.compile(r"^-- name: (?P<name>\w+)(?: key=(?P<key>\d+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """A named statement. `key`: how many leading values of a row identify it; 0 where it is about any rows."""

    name: str
    text: str
    key: int = 0

    def for_rows(self, count: int, width: int) -> str:
        """The statement for `count` rows of `width` values each."""
        return _expanded(self.text, count, width)


@functools.lru_cache(maxsize=256)
def _expanded(text: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return text.replace(":rows", ", ".join([row] * count))


def load(file: str) -> Mapping[str, Query]:
    """The queries of a file of this package, by name."""
    text = resources.files(__package__).joinpath(file).read_text("utf-8")
    _, *parts = _HEADER.split(text)
    found = {
        name: Query(name, body.strip().rstrip(";"), int(key or 0))
        for name, key, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }
    return MappingProxyType(found)


READS = load("reads.sql")
WRITES = load("writes.sql")
