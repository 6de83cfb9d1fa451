"""Reads .sql files in which every query has a name and a description:

    -- name: unpark key=3
    -- What it does, in a line or two.
    DELETE FROM ...;

`key=N` says that the first N values of a row identify the row of the table that it is about, see writer.py. `:rows`
stands for as many rows of values as there are, `{columns}` for the columns of the query's rows (reads.py), and the name
of a rule in braces for its expression (rules.sql).
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from ems_worker.adapters.manifest import due_reads, reads, steering_reads

_HEADER = re.compile(r"^-- name: (?P<name>\w+)(?: key=(?P<key>\d+))?$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
# The columns of each query's rows, by its name.
COLUMNS = {**reads.COLUMNS, **due_reads.COLUMNS, **steering_reads.COLUMNS}
_PLACEHOLDER = re.compile(r"\{(?:(\w+)\.)?(\w+)\}")


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


def load(*files: str) -> Mapping[str, Query]:
    """The queries of some files of this package, by name."""
    return MappingProxyType(
        {
            name: Query(name, _PLACEHOLDER.sub(functools.partial(_filled, name), body), key)
            for file in files
            for name, (body, key) in _read(file).items()
        }
    )


def _read(file: str) -> dict[str, tuple[str, int]]:
    """The statements of a file as they are written there, each with its `key`."""
    text = resources.files(__package__).joinpath(file).read_text("utf-8")
    _, *parts = _HEADER.split(text)
    return {
        name: (body.strip().rstrip(";"), int(key or 0))
        for name, key, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def _filled(query: str, placeholder: re.Match[str]) -> str:
    """What stands for a placeholder in this query; `{runs.columns}` are those columns of that table."""
    table, name = placeholder.groups()
    if name != "columns":
        return RULES[name]
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"{column}"' for column in COLUMNS[query])


# The rules of the core that queries need too, as expressions over a row of `runs`.
RULES = MappingProxyType(
    {name: _COMMENT.sub("", f"{body}\n").strip() for name, (body, _) in _read("rules.sql").items()}
)
READS = load("reads.sql", "reads_steering.sql", "reads_removals.sql")
WRITES = load("writes.sql", "writes_steering.sql", "writes_metrics.sql", "writes_removals.sql")
