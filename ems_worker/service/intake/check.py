"""Reads and checks plans. Intake, `ems.api.validate` and the offline commands use the same code."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.documents import documents
from ems_worker.core.language import axis_kinds, quotes, version
from ems_worker.core.language.problems import Problems
from ems_worker.core.points import edits, largest, plan, render, space, value_files
from ems_worker.core.points.edits import Edits
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import NewExperiment
from ems_worker.errors import Problem


class PlanReader(Protocol):
    """Reads YAML and JSON; `adapters.yaml_reader` implements it."""

    def read_plan(self, data: bytes) -> Any: ...
    def read_base(self, data: bytes) -> Any: ...
    def with_positions(self, problems: Sequence[Problem], document: Any) -> tuple[Problem, ...]: ...


# Reading a plan of up to this size blocks other threads for a few milliseconds at most.
LARGE_BYTES: Final = 256 * 1024

# Returns the content of the base configuration at a plan's path; raises errors.PlanRejected.
ReadBase = Callable[[str], bytes]
# Returns the content of a file of values, by its name in the plan; raises errors.FileUnreadable.
ReadValues = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid plan with its size and digest.

    `data` is the plan as it was read, `base` the content of its base configuration.
    """

    plan: Plan
    count: SpaceSize
    plan_sha: str
    data: Mapping[str, Any]
    base: Mapping[str, Any]


def refuse_base(path: str) -> bytes:
    """Rejects every path: without a folder of base configurations, a plan has to contain its base configuration."""
    raise errors.PlanRejected(
        [
            Problem(
                "base_not_readable",
                "base_config_file_path",
                f"{quotes.name(path)} can't be read here: no folder of base configurations is set "
                "(EMS_BASE_CONFIG_ROOT). Put its content into the plan as base_config, as ems-publish does",
                location=("base_config_file_path",),
            )
        ]
    )


def read(data: bytes, reader: PlanReader, read_base: ReadBase, read_values: ReadValues | None = None) -> Checked:
    """Reads and parses a plan. Its count may still be an upper bound, and the checks of `steps` follow.

    `read_values` is for the publisher of a plan, who puts the values of files in the place of their names. Raises
    errors.PlanRejected with every problem and its line and column, or errors.Unreadable.
    """
    document = reader.read_plan(data)
    content, of_files = document.data, Problems()
    if read_values is not None:
        content = _inlined(content, read_values, of_files)
    try:
        parsed = _parsed(content, of_files, reader, read_base)
    except errors.PlanRejected as error:
        raise errors.PlanRejected(reader.with_positions(error.problems, document)) from None
    if parsed.warnings:
        parsed = replace(parsed, warnings=reader.with_positions(parsed.warnings, document))
    sha = canonical.plan_sha(content, parsed.base)
    return Checked(parsed, space.count(parsed), sha, content, parsed.base)


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform that a plan is checked against. A check against an unknown value warns instead of rejecting.

    `max_jobs` is the worker's limit; None if it is unlimited or unknown. `model_version` is the version that the
    orchestrator reports; empty or None if it is unknown. `message_limit` is the size of the largest start command that
    the orchestrator accepts, in bytes; None if it is unknown.
    """

    max_jobs: int | None = None
    model_version: str | None = None
    message_limit: int | None = None


def steps(
    checked: Checked, data: bytes, reader: PlanReader, platform: Platform, *, experiment_id: str
) -> Iterator[Checked]:
    """Checks a plan in steps of bounded time; the last value has the exact count and all warnings.

    Intake, `ems.api.validate` and the offline commands all run these steps. `experiment_id` is empty if the id isn't
    known yet. Raises errors.PlanRejected with the problems located in `data`, the plan's text.
    """

    def located(problem: Problem) -> tuple[Problem, ...]:
        return reader.with_positions([problem], reader.read_plan(data))

    def warned(*problems: Problem) -> Checked:
        return replace(checked, plan=replace(checked.plan, warnings=(*checked.plan.warnings, *problems)))

    if (mismatch := _version_problem(checked.plan, platform.model_version)) is not None:
        if platform.model_version:
            raise errors.PlanRejected(located(mismatch))
        checked = warned(*located(mismatch))
    try:
        # The recorded count has to be exact: points are numbered by it, and the experiment ends with its last job.
        for count in space.settle(checked.plan, platform.max_jobs):
            checked = replace(checked, count=count)
            yield checked
    except errors.PlanRejected as error:
        raise errors.PlanRejected(reader.with_positions(error.problems, reader.read_plan(data))) from None
    limit = platform.message_limit
    if (oversize := largest.over(checked.plan, experiment_id, limit or largest.DEFAULT_LIMIT_BYTES)) is not None:
        # It is about a point, not about a place in the text, and reading a large plan again costs its memory again.
        if limit is not None:
            raise errors.PlanRejected([oversize])
        yield warned(oversize)


def _version_problem(parsed: Plan, reported: str | None) -> Problem | None:
    required = parsed.model_version
    if required is None or required == reported:
        return None
    runs = f"runs {reported!r}" if reported else "hasn't reported its version, so this is not checked"
    message = f"the plan is for model version {quotes.name(required)}, and the orchestrator {runs}"
    return Problem("model_version", "model_version", message, location=("model_version",))


def _base(reader: PlanReader, read_base: ReadBase, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of the base file; None if the plan needs none.

    Raises PlanRejected with the problems of the file, and with those of the plan that are found without it.
    """
    path = plan.base_reference(data)
    if path is None:
        return None
    key = next(key for key in canonical.BASE_PATH_KEYS if data.get(key) == path)
    try:
        content: dict[str, Any] = reader.read_base(read_base(path)).data
    except errors.PlanRejected as error:
        found = [problem if problem.line is None else replace(problem, file=path) for problem in error.problems]
    except errors.Unreadable as error:
        found = [Problem("base_not_readable", key, f"{path}: {error}", location=(key,))]
    else:
        return content
    try:
        plan.parse(data)
    except errors.PlanRejected as error:
        found += [problem for problem in error.problems if problem.code != "base_unavailable"]
    raise errors.PlanRejected(found)


def _inlined(data: Mapping[str, Any], read_values: ReadValues, problems: Problems) -> Mapping[str, Any]:
    """The plan with the values of its files; a file with a problem stays as it is named."""
    contents: dict[str, bytes] = {}
    unreadable: set[str] = set()
    for reference in value_files.references(data):
        if reference.file in contents or reference.file in unreadable:
            continue
        try:
            contents[reference.file] = read_values(reference.file)
        except errors.FileUnreadable as failed:
            unreadable.add(reference.file)
            problems.add("file_not_readable", reference.location, f"{quotes.brief(reference.file)} {failed}")
    return value_files.inlined(data, contents, problems) if contents else data


def _parsed(data: Mapping[str, Any], of_files: Problems, reader: PlanReader, read_base: ReadBase) -> Plan:
    """The plan. Raises PlanRejected with its problems, after those of the files whose values it lacks."""
    of_plan: Sequence[Problem] = ()
    try:
        parsed = plan.parse(data, _base(reader, read_base, data))
        if not len(of_files):
            return parsed
    except errors.PlanRejected as error:
        of_plan = error.problems
    known = axis_kinds.FILE_NOT_READ if len(of_files) else None
    raise errors.PlanRejected([*of_files.collected(), *(problem for problem in of_plan if problem.code != known)])


def not_as_accepted(spec: NewExperiment, reason: str) -> errors.PlanNotReadAsAccepted:
    """The error for a recorded plan that this worker can't read, or reads differently."""
    return errors.PlanNotReadAsAccepted(
        f"this worker doesn't read the plan of {spec.experiment_id} as it was accepted: {reason}. Run a worker of the "
        "version that accepted it, with the same extras"
    )


# A plan that is kept in memory, with its size and its template.
Loaded = tuple[Plan, SpaceSize, render.Template]


def loaded(spec: NewExperiment, reader: PlanReader) -> Loaded:
    """A recorded experiment's plan, size and template, to be kept in memory. Raises the same errors as `stored`.

    The data from which the plan was parsed is freed.
    """
    large = len(spec.plan) + len(spec.base) > LARGE_BYTES
    with _uncollected() if large else contextlib.nullcontext():
        checked = stored(spec, reader)
        runs = checked.data.get("runs")
        # In slices: freeing a hundred thousand objects at once blocks all threads.
        while isinstance(runs, list) and runs:
            del runs[-1000:]
        return checked.plan, checked.count, render.Template(checked.plan, spec.parameters)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Excludes the objects that are created here from garbage collection, which blocks all threads for a large plan.

    A plan has no reference cycles, so reference counting frees it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def stored(spec: NewExperiment, reader: PlanReader) -> Checked:
    """The plan of a recorded experiment. `reads_differently` says whether its points are those that were accepted.

    Raises errors.PlanNotReadAsAccepted if this worker rejects the plan, for example for a missing extra, or doesn't
    know the version of the plan language that it was accepted under.
    """
    if spec.language > version.VERSION:
        reason = f"it is in version {spec.language} of the plan language, and this worker knows {version.VERSION}"
        raise not_as_accepted(spec, reason)
    try:
        data = reader.read_plan(spec.plan).data
        base = reader.read_plan(spec.base).data
        parsed = plan.parse(data, base)
    except errors.PlanRejected as error:
        earlier = f" (accepted under version {spec.language} of the plan language)"
        reason = f"{error.problems[0]}{earlier if spec.language < version.VERSION else ''}"
        raise not_as_accepted(spec, reason) from error
    except errors.Unreadable as error:
        raise not_as_accepted(spec, str(error)) from error
    return Checked(parsed, space.count(parsed), spec.plan_sha, data, base)


def reads_differently(spec: NewExperiment, data: Mapping[str, Any]) -> str | None:
    """Why the plan of a recorded experiment may have other points than when it was accepted; None if it hasn't.

    `data` is the plan as it was read. Points that are recorded stay as they are.
    """
    if (path := version.changed(data, spec.language)) is None:
        return None
    earlier = f"it was accepted under version {spec.language} of the plan language"
    return f"{earlier}, and version {version.VERSION} may read {quotes.brief(path)} in another way"


def edited(stored: Checked, wanted: Edits, reader: PlanReader) -> Checked:
    """A stored plan with edits. Raises errors.PlanRejected: locations are those in the plan's data, without lines."""
    data = edits.edited(stored.data, stored.plan, wanted)
    try:
        # It will be read as a whole plan: values of a request may be ones that a plan can't have.
        reader.read_plan(documents.encode(data))
    except errors.PlanRejected as error:
        raise errors.PlanRejected([replace(problem, line=None, column=None) for problem in error.problems]) from error
    parsed = plan.parse(data, stored.base)
    return Checked(parsed, space.count(parsed), canonical.plan_sha(data, parsed.base), data, stored.base)
