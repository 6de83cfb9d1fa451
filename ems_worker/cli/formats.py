"""The formats of files that commands write: named by --format, else by the file's extension."""

from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from ems_worker.cli import exits


class Format(StrEnum):
    """The format of the rows."""

    CSV = "csv"
    JSONL = "jsonl"


class PointFormat(StrEnum):
    """The format of points: a table for people, or rows."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


class ConfigFormat(StrEnum):
    """The format of a configuration."""

    YAML = "yaml"
    JSON = "json"


# Other extensions of the same formats.
_ALSO: Final = {"ndjson": "jsonl", "yml": "yaml"}
_AnyFormat = TypeVar("_AnyFormat", bound=StrEnum)


def of_file(given: _AnyFormat | None, file: Path | None, usual: _AnyFormat) -> _AnyFormat:
    """The format to write: the given one, else that of the file's extension, else for a name without one the usual.

    Raises exits.Misused if there is no format of this extension.
    """
    if given is not None or file is None or not file.suffix:
        return usual if given is None else given
    extension = file.suffix[1:].lower()
    # A table is for people, and no format of files.
    by_extension = {one.value: one for one in type(usual) if one.value != "table"}
    found = by_extension.get(_ALSO.get(extension, extension))
    if found is None:
        known = " or ".join(f".{name}" for name in by_extension)
        raise exits.Misused(f"{file}: there is no format .{extension}; end the name in {known}, or give --format")
    return found
