"""Points of a plan looked up among those that an experiment has, a bounded number at a time and off the event loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from msgspec.structs import replace

from ems_worker.core.documents import changes
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.points import identity
from ems_worker.core.points.identity import IdentifiedPoint
from ems_worker.core.points.plan import Plan
from ems_worker.core.records import Change, PointIdentity, PointRecord
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger import judging
from ems_worker.service.ledger.growth import NextVersion
from ems_worker.service.ledger.live import Live
from ems_worker.service.steering import withdrawal
from ems_worker.service.steering.lookup import Lookup

# Points that get an identity, or are looked up, at once: some ten milliseconds of a thread.
_POINTS = 500
# Runs that are added at once.
_RUNS = 1000
# How much is counted at once if the points are not counted yet: about 100 ms.
_STEPS = 200_000


@dataclass(frozen=True, slots=True)
class Matching:
    """Looks points up in the manifest."""

    manifest: Manifest

    async def identify(self, live: Live, after: int) -> int | None:
        """Gives the next points after this one an identity, and returns the last of them; None if all have one."""
        found = await self.manifest.unidentified(live.key, after, _POINTS)
        if not found:
            return None
        identities = await asyncio.to_thread(_identities, found, live.record.spec.parameters or {})
        await self.manifest.identify(live.key, identities, live.record.plan_version)
        return found[-1].point

    async def look_up(self, live: Live, found: Lookup, plan: Plan, start: int, *, version: int) -> tuple[int, bool]:
        """Looks up the plan's own points from a position on; returns how many, and whether they are the last ones.

        `version`: they are looked up among points that this version of the plan doesn't have yet.
        """
        limit = max(1, min(_POINTS, _RUNS // plan.replicates))
        points: list[IdentifiedPoint] = []
        complete = False
        while not points and not complete:
            points = await asyncio.to_thread(_own_points, plan, start, limit)
            complete = len(points) < limit and plan.grid.exact
        digests = [own.digest for own in points]
        known = await self.manifest.match(live.key, version, digests, found.wanted(digests)) if points else {}
        for own in points:
            found.look_up(own, known.get(own.digest, ()))
        return len(points), complete

    async def compared(
        self, live: Live, draft: Change, version: NextVersion, in_time: Callable[[], bool], *, withdraw: bool
    ) -> Change:
        """The change with what the version would do; as it was if that is not found in time."""
        spec = live.record.spec
        found = Lookup(spec.points, version.plan)
        left = bytearray(b"\1" * spec.points)
        returning: list[int] = []
        start, added, complete = 0, 0, False
        while not complete:
            if not in_time():
                return draft
            following = live.record.plan_version + 1
            points, complete = await self.look_up(live, found, version.plan, start, version=following)
            start += points
            added += len(found.points)
            returning += found.returning
            for number in found.matched:
                left[number] = 0
            found.forget()
        lacking = [number for number in range(spec.points) if left[number]] if withdraw else []
        compared = replace(counted(draft, found.jobs), added=added, withdrawn=0)
        for effect, numbers in ((withdrawal.would_withdraw, lacking), (withdrawal.would_return, sorted(returning))):
            for first in range(0, len(numbers), _POINTS):
                if not in_time():
                    return draft
                for row in await self.manifest.points(live.key, numbers[first : first + _POINTS]):
                    compared = effect(compared, row)
        changed = version.spec.plan_sha != spec.plan_sha or bool(compared.withdrawn)
        return replace(compared, judged=None, changed=changed, unchanged=spec.points - (compared.withdrawn or 0))


def counted(change: Change, jobs: int) -> Change:
    """The change with so many more jobs that weren't there."""
    return judging.counted(change, changes.NEW, Bucket.PENDING, jobs) if jobs else change


def added_jobs(change: Change) -> int:
    """How many jobs the change added."""
    return change.counts.get(changes.NEW, {}).get(Bucket.PENDING, 0)


def _own_points(plan: Plan, start: int, limit: int) -> list[IdentifiedPoint]:
    return list(islice(identity.points(plan, start, _STEPS), limit))


def _identities(points: Sequence[PointRecord], paths: Mapping[str, str]) -> list[PointIdentity]:
    return [PointIdentity(point.point, identity.digest(point.params, point.run_id_suffix, paths)) for point in points]
