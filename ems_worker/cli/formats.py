"""The formats of `ems export` and `ems points`, which their help names; export.py writes the rows."""

from enum import StrEnum


class Format(StrEnum):
    """The format of the rows."""

    CSV = "csv"
    JSONL = "jsonl"


class PointFormat(StrEnum):
    """The format of points: a table for people, or rows."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
