"""The queries of reads_steering.sql that give rows, each with the names of its columns; see reads.py."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ems_worker.adapters.manifest import reads
from ems_worker.adapters.manifest.reads import Read


class ChangeRow(NamedTuple):
    """A change of an experiment."""

    number: int
    request_id: str
    experiment: int
    verb: str
    request: str
    received_ms: int
    language: int
    changed: int
    state: str
    round: int
    revision: int
    judged_point: int | None
    judged_replicate: int | None
    counts: str
    added: int | None
    withdrawn: int | None
    unchanged: int | None
    refused: str | None
    applied_ms: int | None
    published: int


class ErrorRow(NamedTuple):
    """An error, and how many jobs ended with it."""

    error_kind: str
    error_message: str | None
    jobs: int


class MatchedRow(NamedTuple):
    """A point with a digest, which is in hexadecimal."""

    digest: str
    point: int
    replicates: int
    excluded: str | None


class EndedRow(NamedTuple):
    """An experiment that has ended."""

    key: int
    experiment_id: str


CHANGE_FROM = Read("change_from", ChangeRow)
OPEN_CHANGES = Read("open_changes", ChangeRow)
UNPUBLISHED_CHANGES = Read("unpublished_changes", ChangeRow)
LATEST_CHANGES = Read("latest_changes", ChangeRow)
AWAITING_JOBS = Read("awaiting_jobs", reads.RunRow)
JOBS_AFTER = Read("jobs_after", reads.RunRow)
COMMONEST_ERROR = Read("commonest_error", ErrorRow)
UNIDENTIFIED = Read("unidentified", reads.PointRow)
MATCHED = Read("matched", MatchedRow)
WITHDRAWN = Read("withdrawn", reads.RunRow)
RETURNED = Read("returned", reads.RunRow)
OPEN_REMOVALS = Read("open_removals", ChangeRow)
ENDED_BEFORE = Read("ended_before", EndedRow)

_ALL = [query for query in list(vars().values()) if isinstance(query, Read)]
# The columns of each query's rows, by its name.
COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType({read.name: read.columns for read in _ALL})
