"""Plans on this side: read with their base files, checked by the worker's own rules, made into one message."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ems_worker import errors
from ems_worker.adapters import files, yaml_reader
from ems_worker.cli import exits
from ems_worker.core import canonical
from ems_worker.core.points import render
from ems_worker.service.intake import check as plan_check

_STDIN = "-"
_CONTENT_TYPES = {"yaml": "application/yaml", "json": "application/json"}


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan as its author wrote it; its files are found from `folder`, and have to be below it or one of `allowed`."""

    name: str
    data: bytes
    folder: Path
    allowed: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What is published; `lines_stay` where the plan's own lines have the same numbers in it."""

    data: bytes
    content_type: str
    lines_stay: bool


def read(argument: str, allow_files_from: Sequence[Path] | None = None) -> PlanFile:
    """The plan of this path, `-` for standard input, whose files are found from the working directory.

    Raises exits.Misused where it can't be read, or where a directory that files are allowed from is none.
    """
    path = Path(argument)
    allowed = tuple(allow_files_from or ())
    for one in allowed:
        if not one.is_dir():
            raise exits.Misused(f"--allow-files-from {one}: there is no such directory")
    try:
        if argument == _STDIN:
            return PlanFile("<stdin>", sys.stdin.buffer.read(), Path(), allowed)
        return PlanFile(argument, path.read_bytes(), path.parent, allowed)
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
    """A plan may come from anyone, and what its base file says is published: only files beside it are read."""
    place = f"{file.folder}" if file.folder != Path() else "the working directory"
    try:
        return files.read_inside(file.folder / path, [one.resolve() for one in (file.folder, *file.allowed)])
    except files.OutsideError as outside:
        words = (
            f"the base file {path!r} is {outside.path}, outside {place}, where the plan's files have to be; "
            "to allow it: --allow-files-from DIR"
        )
        raise _unreadable(file, words) from outside
    except errors.FileUnreadable as failed:
        raise _unreadable(file, f"the base file {path!r} {failed}; its path is taken from {place}") from failed


def _unreadable(file: PlanFile, words: str) -> errors.PlanRejected:
    data = yaml_reader.read_plan(file.data).data
    key = next(key for key in canonical.BASE_PATH_KEYS if key in data)
    return errors.PlanRejected([errors.Problem("base_not_readable", key, words, location=(key,))])
