"""Plans on this side: read with their base files, checked by the worker's own rules, made into one message."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import exits
from ems_worker.core import canonical, render
from ems_worker.service import check as plan_check

_STDIN = "-"
_CONTENT_TYPES = {"yaml": "application/yaml", "json": "application/json"}


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan as its author wrote it; base files are found from `folder`."""

    name: str
    data: bytes
    folder: Path


@dataclass(frozen=True, slots=True)
class Message:
    """What is published; `lines_stay` where the plan's own lines have the same numbers in it."""

    data: bytes
    content_type: str
    lines_stay: bool


def read(argument: str) -> PlanFile:
    """The plan of this path, `-` for standard input. Raises exits.Misused where it can't be read."""
    path = Path(argument)
    try:
        if argument == _STDIN:
            return PlanFile("<stdin>", sys.stdin.buffer.read(), Path())
        return PlanFile(argument, path.read_bytes(), path.parent)
    except OSError as failed:
        name = "on standard input" if argument == _STDIN else argument
        raise exits.Misused(f"the plan {name} can't be read: {failed.strerror}") from failed


def check(file: PlanFile) -> plan_check.Checked:
    """Validates as the worker does, all but what only it knows. Raises PlanRejected with everything that is wrong."""
    try:
        return plan_check.check(file.data, yaml_reader, lambda path: _read_base(file, path))
    except errors.Unreadable as error:
        raise errors.PlanRejected([errors.Problem("unreadable", "", str(error))]) from error


def message(file: PlanFile, checked: plan_check.Checked) -> Message:
    """The plan with the content of its base file beside it.

    A plan in block YAML keeps its own text, comments and line numbers, and gets a block at its end; where that would
    say anything else than the plan and the content, both go as JSON.
    """
    document = yaml_reader.read_plan(file.data)
    if canonical.BASE_KEY in document.data:
        return Message(file.data, _CONTENT_TYPES[document.format], lines_stay=True)
    whole = {**document.data, canonical.BASE_KEY: checked.base}
    if document.format == "yaml":
        end = "" if document.text.endswith("\n") else "\n"
        data = f"{document.text}{end}{render.block({canonical.BASE_KEY: checked.base})}".encode()
        if _says(data, whole):
            return Message(data, _CONTENT_TYPES["yaml"], lines_stay=True)
    data = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return Message(data, _CONTENT_TYPES["json"], lines_stay=False)


def _says(data: bytes, whole: Mapping[str, object]) -> bool:
    try:
        said = yaml_reader.read_plan(data).data
    except (errors.PlanRejected, errors.Unreadable):
        return False
    return canonical.canonical_json(said) == canonical.canonical_json(whole)


def _read_base(file: PlanFile, path: str) -> bytes:
    try:
        return (file.folder / path).read_bytes()
    except (OSError, ValueError) as failed:
        why = failed.strerror if isinstance(failed, OSError) else str(failed)
        data = yaml_reader.read_plan(file.data).data
        key = next(key for key in canonical.BASE_PATH_KEYS if key in data)
        place = f"{file.folder}" if file.folder != Path() else "the working directory"
        words = f"the base file {path!r} can't be read: {why}; its path is taken from {place}"
        raise errors.PlanRejected([errors.Problem("base_not_readable", key, words, place=(key,))]) from failed
