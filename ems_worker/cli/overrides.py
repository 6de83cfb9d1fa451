"""`--set PATH=VALUE`: changes a plan before it is sent."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import exits, plans
from ems_worker.core import canonical
from ems_worker.core.language import aliases, paths
from ems_worker.core.points import plan, render

_BASE: Final = canonical.BASE_KEY


def applied(file: plans.PlanFile, assignments: Sequence[str]) -> plans.PlanFile:
    """The plan with these values set.

    A path whose first segment is a key of plans is in the plan; any other is in its base configuration. A plan that
    can't be read stays as it is, so that its problems are reported. Raises exits.Misused for a path that leads nowhere.
    """
    if not assignments:
        return file
    try:
        document = yaml_reader.read_plan(file.data).data
    except (errors.PlanRejected, errors.Unreadable):
        return file
    data = aliases.expanded(paths.copied(document))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise exits.Misused(f"--set {assignment}: should be PATH=VALUE, such as num_replicates_per_run=5")
        first, *rest = path.split(".")
        first = aliases.LONG_NAMES.get(first, first)
        value = _value(assignment, text)
        if first in plan.KEYS:
            _place(data, [first, *rest], value)
        else:
            _place_in_base(data, file, [first, *rest], value=value, assignment=assignment)
    return replace(file, data=render.block(data).encode())


def _place_in_base(
    data: dict[str, Any], file: plans.PlanFile, segments: list[str], *, value: Any, assignment: str
) -> None:
    if _BASE not in data:
        content = plans.base(file)
        if content is None:
            raise exits.Misused(
                f"--set {assignment}: {segments[0]!r} is no key of plans, and the plan names no base file"
            )
        data[_BASE] = content
    if not isinstance(data[_BASE], dict):  # which is reported with the plan's problems
        return
    if not data.get("allow_new_paths") and not _leads_somewhere(data[_BASE], segments):
        path = ".".join(segments)
        raise exits.Misused(f"--set {assignment}: neither plans nor the plan's base configuration have {path!r}")
    _place(data[_BASE], segments, value)


def _leads_somewhere(container: Any, segments: list[str]) -> bool:
    return not segments or any(_leads_somewhere(inner, rest) for inner, rest in _steps(container, segments))


def _place(container: Any, segments: list[str], value: Any) -> None:
    """Sets a value at a path. A key that has several segments of it, as in a parameter space, is found too."""
    for length in range(len(segments), 0, -1):
        key = _key(container, segments[:length])
        if key is None:
            continue
        if length == len(segments):
            container[key] = value
            return
        if isinstance(container[key], dict | list):
            _place(container[key], segments[length:], value)
            return
    if isinstance(container, dict):
        for segment in segments[:-1]:
            container[segment] = container = {}
        container[segments[-1]] = value
    else:
        raise exits.Misused(f"--set {'.'.join(segments)}: the list has {len(container):,} elements, from 0")


def _steps(container: Any, segments: list[str]) -> list[tuple[Any, list[str]]]:
    keys = ((_key(container, segments[:length]), segments[length:]) for length in range(len(segments), 0, -1))
    return [(container[key], rest) for key, rest in keys if key is not None]


def _key(container: Any, segments: list[str]) -> Any:
    """The key of a container that these segments are; None if it has none."""
    name = ".".join(segments)
    if isinstance(container, dict):
        return name if name in container else None
    if isinstance(container, list) and name.isdecimal() and int(name) < len(container):
        return int(name)
    return None


def _value(assignment: str, text: str) -> Any:
    try:
        return yaml_reader.read_plan(f"value: {text}".encode()).data["value"]
    except (errors.PlanRejected, errors.Unreadable) as error:
        raise exits.Misused(f"--set {assignment}: the value can't be read: {error}") from error
