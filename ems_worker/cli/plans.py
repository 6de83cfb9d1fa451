"""Plans on the publisher's side: reads files, checks them by the worker's rules, builds the message to publish."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ems_worker import errors
from ems_worker.adapters import files, yaml_reader
from ems_worker.cli import exits
from ems_worker.core import canonical
from ems_worker.core.points import plan, render, value_files
from ems_worker.service.intake import check as plan_check

_STDIN = "-"
_HOLD = "hold"
_CONTENT_TYPES = {"yaml": "application/yaml", "json": "application/json"}


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan as its author wrote it.

    Paths in it are relative to `folder`. The files have to be below `folder` or a directory of `allowed`.
    """

    name: str
    data: bytes
    folder: Path
    allowed: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What is published. `lines_stay` is whether the plan's lines keep their numbers."""

    data: bytes
    content_type: str
    lines_stay: bool


def read(argument: str, allow_files_from: Sequence[Path] | None = None) -> PlanFile:
    """Reads a plan from a path, or from standard input if the argument is `-`.

    Files that a plan from standard input names are relative to the working directory. Raises exits.Misused if the plan
    can't be read or `allow_files_from` names something that is not a directory.
    """
    path = Path(argument)
    allowed = tuple(allow_files_from or ())
    for directory in allowed:
        if not directory.is_dir():
            raise exits.Misused(f"--allow-files-from {directory}: there is no such directory")
    try:
        if argument == _STDIN:
            return PlanFile("<stdin>", sys.stdin.buffer.read(), Path(), allowed)
        return PlanFile(argument, path.read_bytes(), path.parent, allowed)
    except OSError as failed:
        name = "on standard input" if argument == _STDIN else argument
        raise exits.Misused(f"the plan {name} can't be read: {failed.strerror}") from failed


def held(file: PlanFile) -> PlanFile:
    """The plan with `hold: true`: another plan than without, with another sha."""
    return with_key(file, _HOLD, True)


def with_key(file: PlanFile, key: str, value: object) -> PlanFile:
    """The plan with this value of a key. A plan in block YAML that has no such key keeps its lines.

    A plan that can't be read stays as it is, so that its problems are reported.
    """
    try:
        document = yaml_reader.read_plan(file.data)
    except (errors.PlanRejected, errors.Unreadable):
        return file
    if document.data.get(key) == value:
        return file
    whole = {**document.data, key: value}
    if document.format == "yaml" and key not in document.data:
        data = f"{_ended(document.text)}{render.block({key: value})}".encode()
        if _means(data, whole):
            return replace(file, data=data)
    return replace(file, data=_json(whole))


def base(file: PlanFile) -> dict[str, canonical.JSON] | None:
    """The content of the base file that the plan names; None if it names none.

    Raises PlanRejected and Unreadable with the problems of the plan or of the base file.
    """
    path = plan.base_reference(yaml_reader.read_plan(file.data).data)
    return None if path is None else yaml_reader.read_base(_read_base(file, path)).data


def check(file: PlanFile) -> plan_check.Checked:
    """Checks a plan by the steps that the worker takes, not knowing its limits or its orchestrator.

    Raises PlanRejected with every problem found.
    """
    try:
        checked = plan_check.read(
            file.data, yaml_reader, lambda path: _read_base(file, path), lambda name: _read_inside(file, name)
        )
        *_, checked = plan_check.steps(
            checked, file.data, yaml_reader, plan_check.Platform(), experiment_id=checked.plan.experiment_id or ""
        )
        return checked
    except errors.Unreadable as error:
        raise errors.PlanRejected([errors.Problem("unreadable", "", str(error))]) from error


def message(file: PlanFile, checked: plan_check.Checked) -> Message:
    """Builds the message: the plan, the content of its base file, and the values of the files that it names.

    A plan in block YAML keeps its text, comments and line numbers, and the content of its base file is appended as a
    block. If the result would not parse as exactly the plan and the contents, all is sent as JSON.
    """
    document = yaml_reader.read_plan(file.data)
    inlined = bool(value_files.references(document.data))
    if canonical.BASE_KEY in document.data and not inlined:
        return Message(file.data, _CONTENT_TYPES[document.format], lines_stay=True)
    whole = {**checked.data, canonical.BASE_KEY: checked.base}
    if document.format == "yaml" and not inlined:
        data = f"{_ended(document.text)}{render.block({canonical.BASE_KEY: checked.base})}".encode()
        if _means(data, whole):
            return Message(data, _CONTENT_TYPES["yaml"], lines_stay=True)
    return Message(_json(whole), _CONTENT_TYPES["json"], lines_stay=False)


def _ended(text: str) -> str:
    """The text with a line break at its end."""
    return text if text.endswith("\n") else f"{text}\n"


def _json(whole: Mapping[str, object]) -> bytes:
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _means(data: bytes, whole: Mapping[str, object]) -> bool:
    try:
        parsed = yaml_reader.read_plan(data).data
    except (errors.PlanRejected, errors.Unreadable):
        return False
    return canonical.canonical_json(parsed) == canonical.canonical_json(whole)


def _read_base(file: PlanFile, path: str) -> bytes:
    try:
        return _read_inside(file, path)
    except errors.FileUnreadable as failed:
        raise _unreadable(file, f"the base file {path!r} {failed}") from failed


def _read_inside(file: PlanFile, path: str) -> bytes:
    """Reads a file in an allowed directory: a plan may come from anyone, and what it names is published.

    Raises errors.FileUnreadable with a message to put after the file's name.
    """
    folder = f"{file.folder}" if file.folder != Path() else "the working directory"
    try:
        return files.read_inside(file.folder / path, [root.resolve() for root in (file.folder, *file.allowed)])
    except files.OutsideError as outside:
        raise errors.FileUnreadable(
            f"is {outside.path}, which is outside {folder}, the directory of the plan; to allow it: "
            "--allow-files-from DIR"
        ) from outside
    except errors.FileUnreadable as failed:
        raise errors.FileUnreadable(f"{failed}; its path is relative to {folder}") from failed


def _unreadable(file: PlanFile, message: str) -> errors.PlanRejected:
    data = yaml_reader.read_plan(file.data).data
    key = next(key for key in canonical.BASE_PATH_KEYS if key in data)
    return errors.PlanRejected([errors.Problem("base_not_readable", key, message, location=(key,))])
