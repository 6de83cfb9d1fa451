"""A plan's bytes checked, offline and at intake by the same code: read, parsed, counted; every problem at its place."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import largest, plan, render, space
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import NewExperiment
from ems_worker.errors import Problem


class PlanReader(Protocol):
    """Turns bytes into data: `adapters.yaml_reader`."""

    def read_plan(self, data: bytes) -> Any: ...
    def read_base(self, data: bytes) -> Any: ...
    def with_positions(self, problems: Sequence[Problem], document: Any) -> tuple[Problem, ...]: ...


# Up to this size reading a plan holds up others for a few milliseconds at a time.
LARGE_BYTES: Final = 256 * 1024

# Reads a base configuration's file by the path that a plan gives; raises errors.PlanRejected.
ReadBase = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid plan, how much it asks for, and its identity; `base` is the base configuration's content."""

    plan: Plan
    count: SpaceSize
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
                location=("base_config_file_path",),
            )
        ]
    )


def read(data: bytes, reader: PlanReader, read_base: ReadBase) -> Checked:
    """Reads and parses a plan; the count may be a bound, and `steps` are still to be done.

    Raises errors.PlanRejected with every problem found, each at its line and column, or errors.Unreadable.
    """
    document = reader.read_plan(data)
    try:
        path = plan.base_reference(document.data)
        base = None if path is None else _base(path, reader, read_base, document.data)
        parsed = plan.parse(document.data, base)
    except errors.PlanRejected as error:
        raise errors.PlanRejected(reader.with_positions(error.problems, document)) from None
    if parsed.warnings:
        parsed = replace(parsed, warnings=reader.with_positions(parsed.warnings, document))
    sha = canonical.plan_sha(document.data, parsed.base)
    return Checked(parsed, space.count(parsed), sha, document.data, parsed.base)


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform that a plan is checked against; what is not known leads to a warning in place of a rejection.

    `max_jobs`: the worker's limit; None: unlimited, or not known. `model_version`: what the orchestrator reports; empty
    or None: not known. `message_limit`: the largest start command that it takes, in bytes; None: not known.
    """

    max_jobs: int | None = None
    model_version: str | None = None
    message_limit: int | None = None


def steps(
    checked: Checked, data: bytes, reader: PlanReader, platform: Platform, *, experiment_id: str
) -> Iterator[Checked]:
    """Checks a plan that was read, a step of bounded time at a time; the last value has the exact count.

    Every check of a plan takes these steps: at intake, in `ems.api.validate`, and offline. The plan's experiment gets
    this id, empty if that is not known yet. Raises errors.PlanRejected, with problems located in `data`.
    """

    def located(problem: Problem) -> tuple[Problem, ...]:
        return reader.with_positions([problem], reader.read_plan(data))

    def warned(problem: Problem) -> Checked:
        return replace(checked, plan=replace(checked.plan, warnings=(*checked.plan.warnings, *located(problem))))

    if (mismatch := _version_problem(checked.plan, platform.model_version)) is not None:
        if platform.model_version:
            raise errors.PlanRejected(located(mismatch))
        checked = warned(mismatch)
    try:
        # What is recorded has to be exact: points are numbered, and jobs are waited for.
        for count in space.settle(checked.plan, platform.max_jobs):
            checked = replace(checked, count=count)
            yield checked
    except errors.PlanRejected as error:
        raise errors.PlanRejected(reader.with_positions(error.problems, reader.read_plan(data))) from None
    limit = platform.message_limit
    if (oversize := largest.over(checked.plan, experiment_id, limit or largest.DEFAULT_LIMIT_BYTES)) is not None:
        if limit is not None:
            raise errors.PlanRejected(located(oversize))
        yield warned(oversize)


def _version_problem(parsed: Plan, reported: str | None) -> Problem | None:
    required = parsed.model_version
    if required is None or required == reported:
        return None
    runs = f"runs {reported!r}" if reported else "hasn't reported its version, so this is not checked"
    message = f"the plan is for model version {required!r}, and the orchestrator {runs}"
    return Problem("model_version", "model_version", message, location=("model_version",))


def _base(path: str, reader: PlanReader, read_base: ReadBase, data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the base file; its problems are told at the key that names it, with their place in that file."""
    key = next(key for key in canonical.BASE_PATH_KEYS if key in data)
    try:
        content: dict[str, Any] = reader.read_base(read_base(path)).data
    except errors.PlanRejected as error:
        raise errors.PlanRejected([_in_file(one, key, path) for one in error.problems]) from None
    except errors.Unreadable as error:
        raise errors.PlanRejected([Problem("base_not_readable", key, f"{path}: {error}", location=(key,))]) from None
    return content


def _in_file(one: Problem, key: str, path: str) -> Problem:
    if one.location == (key,):
        return one
    at = f", line {one.line}, column {one.column}" if one.line is not None else ""
    where = f" ({one.path})" if one.path else ""
    return Problem(one.code, key, f"{path}{at}{where}: {one.message}", suggestion=one.suggestion, location=(key,))


def not_as_accepted(spec: NewExperiment, reason: str) -> errors.PlanNotReadAsAccepted:
    """The error for a recorded plan that this worker can't go on with."""
    return errors.PlanNotReadAsAccepted(
        f"this worker doesn't read the plan of {spec.experiment_id} as it was accepted: {reason}. Run a worker of the "
        "version, and with the extras, of the one that accepted it"
    )


def loaded(spec: NewExperiment, reader: PlanReader) -> tuple[Plan, SpaceSize, render.Template]:
    """The plan of `stored`, to be kept, and its template; raises what that does. The text's data is gone by then."""
    large = len(spec.plan) + len(spec.base) > LARGE_BYTES
    with _uncollected() if large else contextlib.nullcontext():
        checked = stored(spec, reader)
        runs = checked.data.get("runs")
        # A few at a time: to free a hundred thousand at once stops all threads.
        while isinstance(runs, list) and runs:
            del runs[-1000:]
        return checked.plan, checked.count, render.Template(checked.plan)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage walks what is made here, now or ever: with a million objects it stops all threads.

    A plan has no cycles; it goes when nothing refers to it any more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def stored(spec: NewExperiment, reader: PlanReader) -> Checked:
    """The plan of a recorded experiment, as it was accepted.

    Raises errors.PlanNotReadAsAccepted where it was accepted by a worker that read it differently, or had more.
    """
    try:
        data = reader.read_plan(spec.plan).data
        base = reader.read_plan(spec.base).data
        parsed = plan.parse(data, base)
    except errors.PlanRejected as error:
        raise not_as_accepted(spec, str(error.problems[0])) from error
    except errors.Unreadable as error:
        raise not_as_accepted(spec, str(error)) from error
    return Checked(parsed, space.count(parsed), spec.plan_sha, data, base)
