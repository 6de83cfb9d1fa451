"""A plan's bytes checked, offline and at intake by the same code: read, parsed, counted; every problem at its place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ems_worker import errors
from ems_worker.core import canonical, documents, largest, plan, space
from ems_worker.core.plan import Plan
from ems_worker.core.records import NewExperiment, Verdict
from ems_worker.core.space import Count
from ems_worker.errors import Problem


class Reader(Protocol):
    """Turns bytes into data: `adapters.yaml_reader`."""

    def read_plan(self, data: bytes) -> Any: ...
    def read_base(self, data: bytes) -> Any: ...
    def place(self, found: Sequence[Problem], document: Any) -> tuple[Problem, ...]: ...


# Reads a base configuration's file by the path that a plan gives; raises errors.PlanRejected.
ReadBase = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid plan, how much it asks for, and its identity; `base` is the base configuration's content."""

    plan: Plan
    count: Count
    plan_sha: str
    data: Mapping[str, Any]
    base: Mapping[str, Any]


def refuse_base(path: str) -> bytes:
    """For plans whose base configuration must travel with them."""
    raise errors.PlanRejected(
        [
            Problem(
                "base_not_readable",
                "base_config_file_path",
                f"{path!r} can't be read here: no folder of base configurations is set (EMS_BASE_CONFIG_ROOT). "
                "Send its content with the plan as base_config; ems-publish does",
                place=("base_config_file_path",),
            )
        ]
    )


def check(data: bytes, reader: Reader, read_base: ReadBase, max_jobs: int | None = None) -> Checked:
    """Reads and validates a plan, exactly as intake does.

    Raises errors.PlanRejected with every problem found, each at its line and column, or errors.Unreadable.
    """
    document = reader.read_plan(data)
    try:
        checked = _check(document.data, reader, read_base, max_jobs)
    except errors.PlanRejected as error:
        raise errors.PlanRejected(reader.place(error.problems, document)) from None
    if not checked.plan.warnings:
        return checked
    return replace(checked, plan=replace(checked.plan, warnings=reader.place(checked.plan.warnings, document)))


def _check(data: Mapping[str, Any], reader: Reader, read_base: ReadBase, max_jobs: int | None) -> Checked:
    path = plan.base_reference(data)
    base = None if path is None else _base(path, reader, read_base, data)
    parsed = plan.parse(data, base)
    # What is recorded has to be exact: points are numbered, and jobs are waited for.
    count = space.exact_count(parsed)
    if count.points == 0:
        raise errors.PlanRejected(
            [Problem("no_points", "constraints", "no combination is left", place=("constraints",))]
        )
    if max_jobs is not None and count.jobs > max_jobs:
        words = f"the plan has {count.jobs:,} jobs; this worker takes {max_jobs:,} at most (EMS_MAX_JOBS)"
        raise errors.PlanRejected([Problem("too_many_jobs", "", words)])
    return Checked(parsed, count, canonical.plan_sha(data, parsed.base), data, parsed.base)


def _base(path: str, reader: Reader, read_base: ReadBase, data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the base file; its problems are told at the key that names it, with their place in that file."""
    key = next(key for key in canonical.BASE_PATH_KEYS if key in data)
    try:
        content: dict[str, Any] = reader.read_base(read_base(path)).data
    except errors.PlanRejected as error:
        raise errors.PlanRejected([_in_file(one, key, path) for one in error.problems]) from None
    except errors.Unreadable as error:
        raise errors.PlanRejected([Problem("base_not_readable", key, f"{path}: {error}", place=(key,))]) from None
    return content


def _in_file(one: Problem, key: str, path: str) -> Problem:
    if one.place == (key,):
        return one
    at = f", line {one.line}, column {one.column}" if one.line is not None else ""
    where = f" ({one.path})" if one.path else ""
    return Problem(one.code, key, f"{path}{at}{where}: {one.message}", suggestion=one.suggestion, place=(key,))


def examine(
    data: bytes,
    reader: Reader,
    read_base: ReadBase,
    max_jobs: int | None,
    unpack: Callable[[bytes], bytes] = bytes,
    message_limit: int | None = None,
) -> tuple[documents.Document, Checked | None]:
    """What intake would decide, as far as that can be told from the plan alone; with the plan if it is valid.

    `unpack` takes off what its publisher wrapped around it; `message_limit`: of a start command, in bytes.
    """
    try:
        checked = check(unpack(data), reader, read_base, max_jobs)
        if message_limit is not None and (over := largest.over(checked.plan, "", message_limit)) is not None:
            raise errors.PlanRejected([over])
    except errors.PlanRejected as error:
        return documents.decision(Verdict.REJECTED, errors=error.problems), None
    except errors.Unreadable as error:
        return documents.decision(Verdict.REJECTED, errors=[Problem("unreadable", "", str(error))]), None
    document = documents.decision(
        Verdict.ACCEPTED,
        experiment_id=checked.plan.experiment_id,
        points=checked.count.points,
        jobs=checked.count.jobs,
        plan_sha=checked.plan_sha,
        warnings=checked.plan.warnings,
    )
    return document, checked


def stored(spec: NewExperiment, reader: Reader) -> Checked:
    """The plan of a recorded experiment, as it was accepted."""
    data = reader.read_plan(spec.plan).data
    base = reader.read_plan(spec.base).data
    parsed = plan.parse(data, base)
    return Checked(parsed, space.count(parsed), spec.plan_sha, data, base)
