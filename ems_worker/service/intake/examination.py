"""Examines a plan message: unpacks, reads, checks and counts the plan, in steps between which the caller may stop.

The results are plain values, so that an `Examiner` can run the examination in another process.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.documents import documents, headings
from ems_worker.core.points import extension, identity, plan
from ems_worker.core.points.edits import Edits
from ems_worker.core.points.extension import Version
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import Headings, NewExperiment
from ems_worker.errors import Problem
from ems_worker.service.intake import check
from ems_worker.service.intake.check import Checked, PlanReader, Platform, ReadBase

# The number of differing paths that the message of a conflict lists.
_MAX_LISTED_PATHS = 10


@dataclass(frozen=True, slots=True)
class Outline:
    """The properties of a valid plan that intake decides by and records.

    `settled`: `count` is exact. Otherwise combinations are still to be counted. `self_contained`: the same bytes always
    mean the same plan. They don't if the plan refers to a base file, or gets its id from its message.
    """

    experiment_id: str | None
    experiment_name: str | None
    description: str | None
    group: str | None
    tags: tuple[str, ...]
    plan_sha: str
    count: SpaceSize
    settled: bool
    replicates: int
    max_concurrent: int | None
    priority: int
    self_contained: bool
    parameters: Mapping[str, str]
    metrics: tuple[str, ...]
    headings: Headings
    goal_metric: str | None
    goal: str | None
    hold: bool
    keep_open: bool
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Tools:
    """The dependencies and limits of an examination.

    `unpack` removes a plan's compression and envelope; it raises if the plan has more than `max_bytes`.
    """

    reader: PlanReader
    read_base: ReadBase
    unpack: Callable[[bytes, int], bytes]
    max_bytes: int
    max_jobs: int | None


def _outline(checked: Checked) -> Outline:
    parsed = checked.plan
    ranked = next((metric for metric in parsed.metrics if metric.goal is not None), None)
    return Outline(
        experiment_id=parsed.experiment_id,
        experiment_name=parsed.experiment_name,
        description=parsed.description,
        group=parsed.group,
        tags=parsed.tags,
        plan_sha=checked.plan_sha,
        count=checked.count,
        settled=parsed.grid.settled,
        replicates=parsed.replicates,
        max_concurrent=parsed.limits.max_concurrent,
        priority=parsed.limits.priority,
        self_contained=parsed.experiment_id is not None and plan.base_reference(checked.data) is None,
        parameters=identity.dotted(parsed),
        metrics=tuple(metric.name for metric in parsed.metrics),
        headings=headings.of(parsed.parameters, parsed.metrics),
        goal_metric=None if ranked is None else ranked.name,
        goal=None if ranked is None else ranked.goal,
        hold=parsed.hold,
        keep_open=parsed.keep_open,
        warnings=parsed.warnings,
    )


@dataclass(frozen=True, slots=True)
class Extension:
    """How an experiment's plan is to be extended: by the message's bytes, or by edits of the experiment's own plan.

    `withdraw`: points that the new plan doesn't have are withdrawn.
    """

    edits: Edits | None = None
    withdraw: bool = False


class Examination:
    """The examination of a message's bytes. `outline` or `extension` has to be called first, `begin` before `step`.

    Each method raises errors.PlanRejected with every problem that it detects, `outline` also errors.Unreadable.
    """

    def __init__(self, data: bytes, tools: Tools) -> None:
        self._data = data
        self._tools = tools
        self._plan = b""
        self._checked: Checked | None = None
        self._outline: Outline | None = None
        self._steps: Iterator[Checked] = iter(())

    @property
    def checked(self) -> Checked:
        """The plan that was read."""
        assert self._checked is not None, "the outline comes first"
        return self._checked

    def outline(self) -> Outline:
        """Unpacks and reads the plan."""
        self._plan = self._tools.unpack(self._data, self._tools.max_bytes)
        self._data = b""
        self._checked = check.read(self._plan, self._tools.reader, self._tools.read_base)
        self._outline = _outline(self._checked)
        return self._outline

    def extension(self, existing: NewExperiment, wanted: Extension) -> Outline:
        """Reads the plan that is to take the place of an experiment's, in place of `outline`.

        It is the message's bytes, or the experiment's own plan with edits. Raises errors.PlanRejected also if it can't
        take that place, with a problem for each path.
        """
        reader = self._tools.reader
        try:
            stored = check.stored(existing, reader)
        except errors.PlanNotReadAsAccepted as error:
            raise errors.PlanRejected([Problem("plan_unreadable", "", str(error))]) from error
        if (reason := check.reads_differently(existing, stored.data)) is not None:
            # Its own points wouldn't be found among those that are recorded.
            message = f"{reason}, so it can't be extended: publish what is to be added as an experiment of its own"
            raise errors.PlanRejected([Problem("plan_unreadable", "", message)])
        if wanted.edits is None:
            outline = self.outline()
        else:
            self._checked = check.edited(stored, wanted.edits, reader)
            self._plan = documents.encode(self._checked.data)
            outline = self._outline = _outline(self._checked)
        problems = extension.compare(
            Version(stored.data, stored.plan),
            Version(self.checked.data, self.checked.plan),
            experiment_id=existing.experiment_id,
            parameters=existing.parameters or {},
            withdraw=wanted.withdraw,
        )
        if problems and wanted.edits is None:
            problems = reader.with_positions(problems, reader.read_plan(self._plan))
        if problems:
            raise errors.PlanRejected(problems)
        return outline

    def begin(self, experiment_id: str, platform: Platform) -> None:
        """Starts the checks of the plan (`check.steps`)."""
        platform = replace(platform, max_jobs=self._tools.max_jobs)
        self._steps = check.steps(self.checked, self._plan, self._tools.reader, platform, experiment_id=experiment_id)

    def step(self) -> Outline | None:
        """Takes the next step and returns the outline after it; None after the last step."""
        if (checked := next(self._steps, None)) is None:
            return None
        self._checked = checked
        assert self._outline is not None
        return replace(self._outline, count=checked.count, warnings=checked.plan.warnings)

    def conflict(self, existing: NewExperiment) -> Problem:
        """The problem that an experiment with this id exists with another plan; its message lists where they differ."""
        known = f"experiment {existing.experiment_id} exists with another plan"
        remedy = "choose another experiment_id"
        try:
            stored = check.stored(existing, self._tools.reader)
        except errors.PlanNotReadAsAccepted:
            return Problem("conflict", "experiment_id", known, suggestion=remedy)
        paths = canonical.differences(
            canonical.with_base(stored.data, stored.base), canonical.with_base(self.checked.data, self.checked.base)
        )
        shown = ", ".join(islice(paths, _MAX_LISTED_PATHS))
        more = sum(1 for _ in paths)
        and_more = f" and {more} more" if more else ""
        return Problem("conflict", "experiment_id", f"{known}; they differ in {shown}{and_more}", suggestion=remedy)

    def plan(self) -> bytes:
        """The plan's text, unpacked."""
        return self._plan

    def base(self) -> bytes:
        """The base configuration's content as JSON."""
        return documents.encode(self.checked.base)


# Calls a method of an examination by name, in a thread or another process.
Call = Callable[..., Awaitable[Any]]


class Examined:
    """An `Examination` in a thread or another process: it has the same methods, awaited."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def outline(self) -> Outline:
        """As `Examination.outline`."""
        outline: Outline = await self._call("outline")
        return outline

    async def extension(self, existing: NewExperiment, wanted: Extension) -> Outline:
        """As `Examination.extension`."""
        outline: Outline = await self._call("extension", existing, wanted)
        return outline

    async def steps(self, experiment_id: str, platform: Platform) -> AsyncIterator[Outline]:
        """Checks the plan in steps of bounded time; the last outline has the exact count and all warnings."""
        await self._call("begin", experiment_id, platform)
        while (outline := await self._call("step")) is not None:
            yield outline

    async def conflict(self, existing: NewExperiment) -> Problem:
        """As `Examination.conflict`."""
        problem: Problem = await self._call("conflict", existing)
        return problem

    async def plan(self) -> bytes:
        """As `Examination.plan`."""
        plan: bytes = await self._call("plan")
        return plan

    async def base(self) -> bytes:
        """As `Examination.base`."""
        base: bytes = await self._call("base")
        return base


class Examiner(Protocol):
    """Examines plans without blocking the event loop; `ems_worker.reading` implements it."""

    def examine(self, data: bytes) -> AbstractAsyncContextManager[Examined]: ...
