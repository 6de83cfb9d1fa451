"""One plan message examined: unpacked, read, checked, counted, in steps between which whoever asked may turn away.

What comes out is plain values, so that it can happen in another process: see `Examiner`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.documents import documents
from ems_worker.core.points import plan
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import NewExperiment
from ems_worker.errors import Problem
from ems_worker.service.intake import check
from ems_worker.service.intake.check import Checked, PlanReader, Platform, ReadBase

# How many of the paths in which two plans differ a conflict names.
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a plan that was read and is valid so far.

    `settled`: `count` is exact, and no combination is left to be tried. `by_itself`: the same bytes are the same plan
    at any time; not so where it names a base file, or takes its id from its message.
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
    by_itself: bool
    parameters: Mapping[str, str]
    metrics: tuple[str, ...]
    goal_metric: str | None
    goal: str | None
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Tools:
    """What plans are examined with. `unpack` takes off what publishers wrap around a plan, up to `most_bytes`."""

    reader: PlanReader
    read_base: ReadBase
    unpack: Callable[[bytes, int], bytes]
    most_bytes: int
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
        by_itself=parsed.experiment_id is not None and plan.base_reference(checked.data) is None,
        parameters={parameter.name: ".".join(map(str, parameter.path)) for parameter in parsed.parameters},
        metrics=tuple(metric.name for metric in parsed.metrics),
        goal_metric=None if ranked is None else ranked.name,
        goal=None if ranked is None else ranked.goal,
        warnings=parsed.warnings,
    )


class Examination:
    """The examination of one message's bytes: `outline` first, then the others in any order.

    Each raises errors.PlanRejected with every problem found, `outline` also errors.Unreadable.
    """

    def __init__(self, data: bytes, tools: Tools) -> None:
        self._packed = data
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
        self._plan = self._tools.unpack(self._packed, self._tools.most_bytes)
        self._packed = b""
        self._checked = check.read(self._plan, self._tools.reader, self._tools.read_base)
        self._outline = _outline(self._checked)
        return self._outline

    def begin(self, experiment_id: str, platform: Platform) -> None:
        """Prepares the steps by which the plan is checked (`check.steps`)."""
        platform = replace(platform, max_jobs=self._tools.max_jobs)
        self._steps = check.steps(self.checked, self._plan, self._tools.reader, platform, experiment_id=experiment_id)

    def step(self) -> Outline | None:
        """Takes the next step: the outline as it is known then; None after the last step."""
        if (checked := next(self._steps, None)) is None:
            return None
        self._checked = checked
        assert self._outline is not None
        return replace(self._outline, count=checked.count, warnings=checked.plan.warnings)

    def conflict(self, existing: NewExperiment) -> Problem:
        """The experiment of this id has another plan: where they differ."""
        known = f"experiment {existing.experiment_id} exists with another plan"
        remedy = "choose another experiment_id"
        try:
            sent = check.stored(existing, self._tools.reader)
        except errors.PlanNotReadAsAccepted:
            return Problem("conflict", "experiment_id", known, suggestion=remedy)
        paths = canonical.differences(
            canonical.with_base(sent.data, sent.base), canonical.with_base(self.checked.data, self.checked.base)
        )
        shown = ", ".join(islice(paths, _MOST_NAMED))
        more = sum(1 for _ in paths)
        and_more = f" and {more} more" if more else ""
        return Problem("conflict", "experiment_id", f"{known}; they differ in {shown}{and_more}", suggestion=remedy)

    def plan(self) -> bytes:
        """The plan's own text, unpacked."""
        return self._plan

    def base(self) -> bytes:
        """The base configuration's content as JSON."""
        return documents.encode(self.checked.base)


# Calls a method of an examination by its name, away from the event loop.
Call = Callable[..., Awaitable[Any]]


class Examined:
    """An `Examination` that goes on elsewhere: the same methods, awaited."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def outline(self) -> Outline:
        """As `Examination.outline`."""
        found: Outline = await self._call("outline")
        return found

    async def steps(self, experiment_id: str, platform: Platform) -> AsyncIterator[Outline]:
        """Checks the plan in steps of bounded time; the last outline has the exact count and all warnings."""
        await self._call("begin", experiment_id, platform)
        while (outline := await self._call("step")) is not None:
            yield outline

    async def conflict(self, existing: NewExperiment) -> Problem:
        """As `Examination.conflict`."""
        found: Problem = await self._call("conflict", existing)
        return found

    async def plan(self) -> bytes:
        """As `Examination.plan`."""
        found: bytes = await self._call("plan")
        return found

    async def base(self) -> bytes:
        """As `Examination.base`."""
        found: bytes = await self._call("base")
        return found


class Examiner(Protocol):
    """Has plans examined without holding up the event loop: `ems_worker.reading`."""

    def examine(self, data: bytes) -> AbstractAsyncContextManager[Examined]: ...
