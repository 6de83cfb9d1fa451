"""`extend`: a new version of an experiment's plan, matched with the points that are there, a bounded step at a time.

A change that extends goes through four phases, each with a cursor. First every point gets its identity. Then the plan
is examined and becomes the experiment's. Then each of the plan's own points is looked up among those that are there:
it is found, and gets the replicates that it lacks, or is appended. Last, points that the plan doesn't have are
withdrawn, if that was asked for, and withdrawn ones that it has again return.
"""

import asyncio
import json
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.records import Change
from ems_worker.service.base import crash
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.growth import NextVersion
from ems_worker.service.ledger.judging import Jobs
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.steering import matching, withdrawal
from ems_worker.service.steering.lookup import Lookup
from ems_worker.service.steering.matching import Matching
from ems_worker.service.steering.next_plan import Plans

log = structlog.get_logger()

# Jobs that a step withdraws or puts back.
_JOBS = 200
# How long a plan's examination is waited for at once, by a request or by a step. A plan that takes longer is refused in
# the change's last word.
_EXAMINATION_SECONDS = 0.7
_POINT_BITS = 32


class _Phase(IntEnum):
    IDENTIFY = 0
    MATCH = 1
    WITHDRAW = 2
    RETURN = 3


class Cursor(Struct, frozen=True, gc=False):
    """How far a change that extends is. `point`: the last that is done, of the experiment's or of the plan's own."""

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

    @property
    def job(self) -> tuple[int, int]:
        return self.point, self.replicate


class Extender:
    """Carries out changes that extend. A step is one commit, and can be repeated after a crash."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        plans: Plans,
        max_jobs: int | None,
        on_examined: Callable[[], None],
    ) -> None:
        """`max_jobs` limits the jobs of an experiment; None: there is no limit. `on_examined`: a step waits no more."""
        self._ledger = ledger
        self._manifest = manifest
        self._plans = plans
        self._matching = Matching(manifest)
        self._max_jobs = max_jobs
        self._on_examined = on_examined
        # The examinations under way, by the numbers of their changes.
        self._examinations: dict[int, asyncio.Task[NextVersion | None]] = {}

    async def check(self, live: Live, request: dict[str, Any]) -> None:
        """Raises errors.RequestRefused if the experiment can't be extended so, as far as that is found in time."""
        try:
            async with asyncio.timeout(_EXAMINATION_SECONDS):
                await self._plans.examined(live, request)
        except TimeoutError:
            log.info("experiment.extension_takes_long", experiment_id=live.experiment_id)

    async def step(self, live: Live, change: Change) -> Change:
        """Takes the next step of the change; the same change if it has to wait.

        It waits until its experiment is expanded, for its plan's examination, and for the end of runs whose jobs are
        to return.
        """
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
        try:
            async with asyncio.timeout(_EXAMINATION_SECONDS):
                wanted = await self._plans.examined(live, request)
        except TimeoutError:
            return draft
        after = -1
        while in_time() and not live.expands:
            last = await self._matching.identify(live, after)
            if last is not None:
                after = last
            else:
                version = await self._plans.loaded(wanted.spec)
                withdraw = bool(request.get("withdraw"))
                # Jobs are counted by their states in the manifest.
                await self._ledger.flush()
                compared = await self._matching.compared(live, draft, version, in_time, withdraw=withdraw)
                await self._refuse_too_many(live, compared)
                return compared
        return draft

    async def _identify(self, live: Live, change: Change, cursor: Cursor) -> Change | None:
        """Gives the next points an identity; None once all have one."""
        last = await self._matching.identify(live, cursor.point)
        if last is None:
            return None
        crash.point("extend.identified")
        return await self._ledger.judging.carry(live, replace(change, judged=replace(cursor, point=last).judged))

    async def _begin(self, live: Live, change: Change, request: dict[str, Any]) -> Change:
        """Makes the plan the next version of the experiment's, unless it can't be any more."""
        if (examination := await self._examination(live, change, request)) is None:
            return change
        try:
            version = examination.result()
        except errors.RequestRefused as error:
            # The reply was out before the plan was examined, or the experiment's plan has changed since.
            log.warning("experiment.not_extended", experiment_id=live.experiment_id, reason=str(error))
            refused = replace(change, judged=None, changed=False, refused=str(error))
            return await self._ledger.judging.carry(live, refused)
        if version is None:
            return await self._ledger.judging.carry(live, _finished(live, change))
        began = replace(change, judged=Cursor(_Phase.MATCH).judged, added=0, withdrawn=0)
        change = await self._ledger.growth.replace_plan(live, began, version)
        crash.point("extend.begun")
        return change

    async def _examination(
        self, live: Live, change: Change, request: dict[str, Any]
    ) -> "asyncio.Task[NextVersion | None] | None":
        """The examination of the plan once it is over; None while it takes long, which other changes don't wait for."""
        if (task := self._examinations.get(change.number)) is None:
            task = self._examinations[change.number] = asyncio.create_task(self._examined(live, change, request))
            task.add_done_callback(lambda _: self._on_examined())
            await asyncio.wait({task}, timeout=_EXAMINATION_SECONDS)
        if not task.done():
            return None
        return self._examinations.pop(change.number)

    async def _examined(self, live: Live, change: Change, request: dict[str, Any]) -> NextVersion | None:
        """The next version of the plan; None if nothing would change. Raises errors.RequestRefused.

        The points that are there stay as they are meanwhile: changes that follow are carried out after this one.
        """
        wanted = await self._plans.examined(live, request)
        if wanted.spec.plan_sha == live.record.spec.plan_sha and not request.get("withdraw"):
            return None
        version = await self._plans.loaded(wanted.spec)
        if await self._too_many(live, wanted.jobs) is not None:
            # Most of the plan's jobs may be there.
            compared = await self._matching.compared(live, change, version, lambda: True, withdraw=False)
            await self._refuse_too_many(live, compared)
        return version

    def abandon(self) -> None:
        """Ends the examinations under way; the next steps would begin them anew."""
        for task in self._examinations.values():
            task.cancel()
        self._examinations.clear()

    async def _refuse_too_many(self, live: Live, compared: Change) -> None:
        """Raises errors.RequestRefused if the change adds more jobs than the worker accepts."""
        if (refusal := await self._too_many(live, matching.added_jobs(compared))) is not None:
            raise errors.RequestRefused(refusal)

    async def _too_many(self, live: Live, added: int) -> str | None:
        """Why the experiment can't have so many more jobs; None if it can."""
        before = live.record.spec.jobs
        jobs, limit = before + added, self._max_jobs
        if not added:
            return None
        if limit is not None and jobs > limit:
            return f"the experiment would have {jobs:,} jobs; this worker accepts at most {limit:,} (EMS_MAX_JOBS)"
        if (quota := self._plans.quotas.jobs) is None:
            return None
        work = await self._manifest.open_work(await self._manifest.publisher(live.key))
        jobs += work.jobs - (0 if live.ended else before)
        if jobs <= quota:
            return None
        return f"its publisher may have {quota:,} jobs in open experiments (EMS_MAX_OPEN_JOBS), and would have {jobs:,}"

    async def _match(self, live: Live, change: Change, cursor: Cursor, *, withdraw: bool) -> Change:
        """Looks the plan's next points up among those that are there."""
        record, found = live.record, Lookup(live.record.spec.points, live.plan)
        points, complete = await self._matching.look_up(
            live, found, live.plan, cursor.point + 1, version=record.plan_version
        )
        at = Cursor(_Phase.MATCH, cursor.point + points)
        if complete:
            at = Cursor(_Phase.WITHDRAW if withdraw else _Phase.RETURN)
        added = (change.added or 0) + len(found.points)
        change = replace(matching.counted(change, found.jobs), judged=at.judged, added=added)
        change = await self._ledger.growth.add(live, change, found.additions, found.excluded)
        crash.point("extend.matched")
        return change

    async def _withdraw(self, live: Live, change: Change, cursor: Cursor) -> Change:
        """Cancels and excludes the next jobs of points that the plan doesn't have."""

        async def read(_: tuple[int, int]) -> Jobs:
            return await self._manifest.withdrawn(live.key, live.record.plan_version, cursor.job, _JOBS)

        def advance(change: Change, jobs: Jobs) -> Change:
            if not jobs:
                return replace(change, judged=Cursor(_Phase.RETURN).judged)
            at = Cursor(_Phase.WITHDRAW, *jobs[-1][0].key)
            return replace(change, judged=at.judged, withdrawn=(change.withdrawn or 0) + withdrawal.points(jobs))

        change = await self._ledger.judging.judge(live, change, withdrawal.withdraw, read=read, advance=advance)
        crash.point("extend.withdrawn")
        return change

    async def _return(self, live: Live, change: Change, cursor: Cursor) -> Change:
        """Includes the next jobs of withdrawn points that the plan has again; cancelled ones get a new attempt."""

        async def read(_: tuple[int, int]) -> Jobs:
            version, reason = live.record.plan_version, withdrawal.REASON
            return await self._manifest.returned(live.key, version, cursor.job, reason=reason, limit=_JOBS)

        stopping = withdrawal.stopping(run for _, owner, run in self._ledger.open_runs() if owner is live)
        if stopping and any(stored.key in stopping for stored, _ in await read(cursor.job)):
            return change

        def advance(change: Change, jobs: Jobs) -> Change:
            if not jobs:
                return _finished(live, change)
            return replace(change, judged=Cursor(_Phase.RETURN, *jobs[-1][0].key).judged)

        change = await self._ledger.judging.judge(
            live, change, withdrawal.put_back, read=read, advance=advance, reopens=True
        )
        crash.point("extend.returned")
        return change


def _finished(live: Live, change: Change) -> Change:
    """The change once all of it is done: it has changed something if the plan has another version now."""
    added, withdrawn = change.added or 0, change.withdrawn or 0
    unchanged = live.record.spec.points - added - withdrawn
    begun = change.added is not None
    return replace(change, judged=None, changed=begun, added=added, withdrawn=withdrawn, unchanged=unchanged)
