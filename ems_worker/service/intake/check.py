"""A plan's bytes checked, offline and at intake by the same code: read, parsed, counted; every problem at its place."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import plan, render, space
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


def check(data: bytes, reader: PlanReader, read_base: ReadBase, max_jobs: int | None = None) -> Checked:
    """Reads and validates a plan, exactly as intake does, which may take half a minute.

    Raises errors.PlanRejected with every problem found, each at its line and column, or errors.Unreadable.
    """
    checked = read(data, reader, read_base)
    *_, count = settling(checked, data, reader, max_jobs)
    return replace(checked, count=count)


def read(data: bytes, reader: PlanReader, read_base: ReadBase) -> Checked:
    """As `check`, all but what takes its time: `settling` is still to be done, and the count may be a bound."""
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


def settling(checked: Checked, data: bytes, reader: PlanReader, max_jobs: int | None) -> Iterator[SpaceSize]:
    """`core.points.space.settle` of a plan that was read, its problems in their places."""
    try:
        # What is recorded has to be exact: points are numbered, and jobs are waited for.
        yield from space.settle(checked.plan, max_jobs)
    except errors.PlanRejected as error:
        raise errors.PlanRejected(reader.with_positions(error.problems, reader.read_plan(data))) from None


def suited(checked: Checked, data: bytes, reader: PlanReader, told: str | None) -> Checked:
    """A plan for the model that the orchestrator runs; with a warning where that isn't `told` (empty or None).

    Raises errors.PlanRejected where it runs another version.
    """
    asked = checked.plan.model_version
    if asked is None or asked == told:
        return checked
    runs = f"runs {told!r}" if told else "tells none now: this isn't checked"
    words = f"the plan is for model version {asked!r}, and the orchestrator {runs}"
    one = Problem("model_version", "model_version", words, location=("model_version",))
    placed = reader.with_positions([one], reader.read_plan(data))
    if told:
        raise errors.PlanRejected(placed)
    return replace(checked, plan=replace(checked.plan, warnings=(*checked.plan.warnings, *placed)))


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
