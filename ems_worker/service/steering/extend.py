"""`extend`: a new version of an experiment's plan, matched with the points that are there, a bounded step at a time.

A change that extends goes through four phases, each with a cursor. First every point gets its identity. Then the plan
is examined and becomes the experiment's. Then each of the plan's own points is looked up among those that are there:
it is found, and gets the replicates that it lacks, or is appended. Last, points that the plan doesn't have are
withdrawn, if that was asked for, and withdrawn ones that it has again return.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice
from typing import Any

import structlog

from ems_worker import errors
from ems_worker.core.points import identity
from ems_worker.core.points.edits import Edits
from ems_worker.core.points.identity import IdentifiedPoint
from ems_worker.core.points.plan import Plan
from ems_worker.core.records import Change, NewExperiment, PointIdentity, PointRecord
from ems_worker.service.base import crash
from ems_worker.service.base.ports import Manifest
from ems_worker.service.intake import check
from ems_worker.service.intake.check import PlanReader, Platform
from ems_worker.service.intake.examination import Examiner, Extension, Outline
from ems_worker.service.ledger.growth import NextVersion
from ems_worker.service.ledger.judging import Jobs
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.steering import withdrawal
from ems_worker.service.steering.lookup import Lookup

log = structlog.get_logger()

# Points that get an identity, or are looked up, in a step: about twenty milliseconds of a thread.
_POINTS = 1000
# Runs that a step adds.
_RUNS = 2000
# How many combinations a step tries, at about 10 us each.
_TRIES = 10_000
# Jobs that a step withdraws or returns.
_JOBS = 200
_POINT_BITS = 32
# The state that counts name for jobs that weren't there.
NEW = "new"


class _Phase(IntEnum):
    IDENTIFY = 0
    MATCH = 1
    WITHDRAW = 2
    RETURN = 3


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a change that extends is. `point`: the last one that is done, of the experiment's or of the plan's own."""

    phase: _Phase
    point: int = -1
    replicate: int = -1

    @classmethod
    def of(cls, judged: tuple[int, int]) -> "Cursor":
        phase, point = divmod(judged[0] + 1, 1 << _POINT_BITS)
        return cls(_Phase(phase), point - 1, judged[1])

    @property
    def judged(self) -> tuple[int, int]:
        """As the change keeps it: that of a change that was only recorded is (-1, -1)."""
        return (self.phase << _POINT_BITS) + self.point, self.replicate


class Extender:
    """Carries out changes that extend. A step is one commit, and can be repeated after a crash."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        examiner: Examiner,
        reader: PlanReader,
        platform: Callable[[], Platform],
        max_jobs: int | None,
    ) -> None:
        """`platform` is what plans are checked against; `max_jobs` limits the jobs of an experiment."""
        self._ledger = ledger
        self._manifest = manifest
        self._examiner = examiner
        self._reader = reader
        self._platform = platform
        self._max_jobs = max_jobs

    async def examine(self, live: Live, request: dict[str, Any]) -> tuple[Outline, NewExperiment]:
        """The plan that the request asks for, and the experiment with it. Raises errors.RequestRefused."""
        spec = live.record.spec
        try:
            data = b"" if request.get("plan") is None else await asyncio.to_thread(_text, request["plan"])
            async with self._examiner.examine(data) as examined:
                outline = await examined.extension(spec, _extension(request))
                async for step in examined.steps(spec.experiment_id, self._platform()):
                    outline = step
                plan = await examined.plan()
        except errors.PlanRejected as error:
            raise errors.RequestRefused("; ".join(str(problem) for problem in error.problems)) from error
        except errors.Unreadable as error:
            raise errors.RequestRefused(str(error)) from error
        parameters = {**(spec.parameters or {}), **outline.parameters}
        return outline, replace(
            spec, plan=plan, plan_sha=outline.plan_sha, replicates=outline.replicates, parameters=parameters
        )

    async def step(self, live: Live, change: Change) -> Change:
        """Takes the next step of the change; the same change if it waits until its experiment is expanded."""
        assert change.judged is not None
        cursor = Cursor.of(change.judged)
        request: dict[str, Any] = json.loads(change.request)
        match cursor.phase:
            case _Phase.IDENTIFY:
                if live.expands:
                    return change
                return await self._identify(live, change, cursor) or await self._begin(live, change, request)
            case _Phase.MATCH:
                return await self._match(live, change, cursor, withdraw=bool(request.get("withdraw")))
            case _Phase.WITHDRAW:
                return await self._withdraw(live, change, cursor)
            case _Phase.RETURN:
                return await self._return(live, change, cursor)

    async def preview(self, live: Live, draft: Change, in_time: Callable[[], bool]) -> Change:
        """The change as it would be once carried out, as far as that is found while it is `in_time`.

        Nothing of the request is recorded. The identities of points are: they don't depend on it.
        """
        request: dict[str, Any] = json.loads(draft.request)
        _, spec = await self.examine(live, request)
        if live.expands:
            return draft
        cursor = Cursor(_Phase.IDENTIFY)
        while in_time():
            if (last := await self._identified(live, cursor.point)) is None:
                version = await self._loaded(spec)
                return await self._compared(live, draft, version, in_time, withdraw=bool(request.get("withdraw")))
            cursor = replace(cursor, point=last)
        return draft

    async def _identify(self, live: Live, change: Change, cursor: Cursor) -> Change | None:
        """Gives the next points an identity; None once all have one."""
        last = await self._identified(live, cursor.point)
        if last is None:
            return None
        crash.point("extend.identified")
        return await self._ledger.judging.carry(live, replace(change, judged=replace(cursor, point=last).judged))

    async def _identified(self, live: Live, after: int) -> int | None:
        """Gives points after this one an identity, and returns the last of them; None if all have one."""
        found = await self._manifest.unidentified(live.key, after, _POINTS)
        if not found:
            return None
        paths = live.record.spec.parameters or {}
        identities = await asyncio.to_thread(_identities, found, paths)
        await self._manifest.identify(live.key, identities, live.record.plan_version)
        return found[-1].point

    async def _begin(self, live: Live, change: Change, request: dict[str, Any]) -> Change:
        """Makes the plan the next version of the experiment's, unless it can't be any more."""
        withdraw = bool(request.get("withdraw"))
        try:
            outline, spec = await self.examine(live, request)
            if spec.plan_sha == live.record.spec.plan_sha and not withdraw:
                return await self._ledger.judging.carry(live, _finished(live, change))
            version = await self._loaded(spec)
            await self._refuse_too_many(live, change, version, outline)
        except errors.RequestRefused as error:
            # The reply was out before the plan was examined, or the experiment's plan has changed since.
            log.warning("experiment.not_extended", experiment_id=live.experiment_id, reason=str(error))
            return await self._ledger.judging.carry(
                live, replace(change, judged=None, changed=False, refused=str(error))
            )
        began = replace(change, judged=Cursor(_Phase.MATCH).judged, added=0, withdrawn=0)
        change = await self._ledger.growth.replace_plan(live, began, version)
        crash.point("extend.begun")
        return change

    async def _loaded(self, spec: NewExperiment) -> NextVersion:
        plan, _, template = await asyncio.to_thread(check.loaded, spec, self._reader)
        return NextVersion(spec, plan, template)

    async def _refuse_too_many(self, live: Live, change: Change, version: NextVersion, outline: Outline) -> None:
        """Raises errors.RequestRefused if the experiment would get more jobs than the worker accepts."""
        limit, jobs = self._max_jobs, live.record.spec.jobs
        if limit is None or jobs + outline.count.jobs <= limit:
            return
        # Most of the plan's jobs may be there.
        compared = await self._compared(live, change, version, lambda: True, withdraw=False)
        jobs += compared.counts.get(NEW, {}).get("pending", 0)
        if jobs > limit:
            message = f"the experiment would have {jobs:,} jobs; this worker accepts at most {limit:,} (EMS_MAX_JOBS)"
            raise errors.RequestRefused(message)

    async def _match(self, live: Live, change: Change, cursor: Cursor, *, withdraw: bool) -> Change:
        """Looks the plan's next points up among those that are there."""
        found = Lookup(live.record.spec.points, live.plan)
        points, complete = await self._look_up(live, found, live.plan, cursor.point + 1, live.record.plan_version)
        at = Cursor(_Phase.MATCH, cursor.point + points)
        if complete:
            at = Cursor(_Phase.WITHDRAW if withdraw else _Phase.RETURN)
        added = (change.added or 0) + len(found.points)
        change = replace(_counted(change, found.jobs), judged=at.judged, added=added)
        change = await self._ledger.growth.add(live, change, found.additions, found.excluded)
        crash.point("extend.matched")
        return change

    async def _look_up(self, live: Live, found: Lookup, plan: Plan, start: int, version: int) -> tuple[int, bool]:
        """Looks up the plan's own points from a position on; returns how many, and whether they are the last ones.

        `version`: they are looked up among points that this version of the plan doesn't have yet.
        """
        limit = max(1, min(_POINTS, _RUNS // plan.replicates))
        points: list[IdentifiedPoint] = []
        complete = False
        while not points and not complete:
            points = await asyncio.to_thread(lambda: list(islice(identity.points(plan, start, _TRIES), limit)))
            complete = len(points) < limit and plan.grid.exhausted
        digests = [own.digest for own in points]
        known = await self._manifest.match(live.key, version, digests, found.wanted(digests)) if points else {}
        for own in points:
            found.look_up(own, known.get(own.digest, ()))
        return len(points), complete

    async def _compared(
        self, live: Live, draft: Change, version: NextVersion, in_time: Callable[[], bool], *, withdraw: bool
    ) -> Change:
        """The change with what the version would do; as it was if that is not found in time."""
        spec = live.record.spec
        found = Lookup(spec.points, version.plan)
        left = bytearray(b"\1" * spec.points)
        start, added, complete = 0, 0, False
        while not complete:
            if not in_time():
                return draft
            points, complete = await self._look_up(live, found, version.plan, start, live.record.plan_version + 1)
            start += points
            added += len(found.points)
            for number in found.matched:
                left[number] = 0
            found.forget()
        compared = replace(_counted(draft, found.jobs), added=added, withdrawn=0)
        if withdraw:
            numbers = [number for number in range(spec.points) if left[number]]
            previewed = await withdrawal.previewed(self._manifest, live, compared, numbers, in_time)
            if previewed is None:
                return draft
            compared = previewed
        changed = version.spec.plan_sha != spec.plan_sha or bool(compared.withdrawn)
        return replace(compared, judged=None, changed=changed, unchanged=spec.points - (compared.withdrawn or 0))

    async def _withdraw(self, live: Live, change: Change, cursor: Cursor) -> Change:
        """Cancels and excludes the jobs of the next points that the plan doesn't have."""

        async def read(_: tuple[int, int]) -> Jobs:
            after = (cursor.point, cursor.replicate)
            return await self._manifest.withdrawn(live.key, live.record.plan_version, after, _JOBS)

        def advance(change: Change, jobs: Jobs) -> Change:
            if not jobs:
                return replace(change, judged=Cursor(_Phase.RETURN).judged)
            at = Cursor(_Phase.WITHDRAW, *jobs[-1][0].key)
            points = withdrawal.points([before for before, _ in jobs])
            return replace(change, judged=at.judged, withdrawn=(change.withdrawn or 0) + points)

        change = await self._ledger.judging.judge(live, change, withdrawal.withdraw, read=read, advance=advance)
        crash.point("extend.withdrawn")
        return change

    async def _return(self, live: Live, change: Change, cursor: Cursor) -> Change:
        """Includes the jobs of the next withdrawn points that the plan has again; cancelled ones get a new attempt."""

        async def read(_: tuple[int, int]) -> Jobs:
            after = (cursor.point, cursor.replicate)
            return await self._manifest.returned(live.key, live.record.plan_version, after, _JOBS)

        def advance(change: Change, jobs: Jobs) -> Change:
            if not jobs:
                return _finished(live, change)
            return replace(change, judged=Cursor(_Phase.RETURN, *jobs[-1][0].key).judged)

        if any(withdrawal.is_stopping(run) for _, owner, run in self._ledger.open_runs() if owner is live):
            return change  # their next attempts wait until these are out
        change = await self._ledger.judging.judge(
            live, change, withdrawal.put_back, read=read, advance=advance, reopens=True
        )
        crash.point("extend.returned")
        return change


def _counted(change: Change, jobs: int) -> Change:
    """The change with more jobs that weren't there."""
    if not jobs:
        return change
    pending = change.counts.get(NEW, {}).get("pending", 0)
    return replace(change, counts={**change.counts, NEW: {"pending": pending + jobs}})


def _finished(live: Live, change: Change) -> Change:
    """The change once all of it is done."""
    added, withdrawn = change.added or 0, change.withdrawn or 0
    unchanged = live.record.spec.points - added - withdrawn
    # Its cursor left the first phase if the plan has changed.
    begun = change.added is not None
    return replace(change, judged=None, changed=begun, added=added, withdrawn=withdrawn, unchanged=unchanged)


def _identities(points: Sequence[PointRecord], paths: Any) -> list[PointIdentity]:
    return [PointIdentity(point.point, identity.digest(point.params, point.run_id_suffix, paths)) for point in points]


def _text(plan: str | dict[str, Any]) -> bytes:
    """A plan of a request, which has it as text or as an object. The order of its keys is that of its points."""
    if isinstance(plan, str):
        return plan.encode()
    try:
        return json.dumps(plan, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise errors.Unreadable(f"the plan has a number that isn't finite: {error}") from error


def _extension(request: dict[str, Any]) -> Extension:
    withdraw = bool(request.get("withdraw"))
    if request.get("plan") is not None:
        return Extension(None, withdraw)
    return Extension(Edits(request.get("replicates"), request.get("samples"), request.get("add") or {}), withdraw)
