"""The formats that the help of commands names; export.py writes the rows of `ems export` and `ems points`."""

from enum import StrEnum


class Format(StrEnum):
    """The format of the rows."""

    CSV = "csv"
    JSONL = "jsonl"


class ConfigFormat(StrEnum):
    """The format of the configuration that a program gets."""

    YAML = "yaml"
    JSON = "json"


class PointFormat(StrEnum):
    """The format of points: a table for people, or rows."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
