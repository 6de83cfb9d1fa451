"""The formats of `ems export`, which its help names; export.py writes them."""

from enum import StrEnum


class Format(StrEnum):
    """The format of the rows."""

    CSV = "csv"
    JSONL = "jsonl"
