"""Whether an experiment's points that aren't recorded yet fit those that are."""

import asyncio
from collections.abc import Iterable, Mapping
from itertools import islice

from ems_worker.core.language import version
from ems_worker.core.points import identity, space
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import Change, Experiment, PointRecord
from ems_worker.service.base.ports import Manifest
from ems_worker.service.intake import check
from ems_worker.service.intake.check import PlanReader

# Recorded points that are compared at once: some ten milliseconds of a thread.
_POINTS = 500


async def misfit(
    record: Experiment,
    plan: Plan,
    count: SpaceSize,
    *,
    changes: Iterable[Change],
    manifest: Manifest,
    reader: PlanReader,
) -> str | None:
    """Why points that this worker adds would not fit those that are recorded; None if they fit, or none is missing.

    `changes` are the open changes of the experiment. An extension that has begun adds points of its plan.
    """
    spec = record.spec
    expands = record.expanded_points < spec.points
    extends = any(change.verb == "extend" and change.added is not None for change in changes)
    earlier = spec.language != version.VERSION and (expands or extends)
    if earlier:
        document = await asyncio.to_thread(reader.read_plan, spec.plan)
        if (reason := check.reads_differently(spec, document.data)) is not None:
            recorded = f"{record.expanded_points:,} of its {spec.points:,} points are recorded"
            return f"{reason}; {recorded if expands else 'its extension is half done'}"
    if expands and count.exact and count.points != spec.points:
        return f"it has {count.points:,} points now, and had {spec.points:,}"
    if not (earlier and expands):
        return None
    # What the versions of the language say is checked as far as it can be.
    for start in range(0, record.expanded_points, _POINTS):
        numbers = range(start, min(start + _POINTS, record.expanded_points))
        stored = await manifest.points_by_number(record.key, numbers)
        if (other := await asyncio.to_thread(_first_other, plan, stored, numbers)) is not None:
            return f"point {other:,} has other parameters now than those that are recorded"
    return None


def _first_other(plan: Plan, stored: Mapping[int, PointRecord], numbers: range) -> int | None:
    """The first of these points that is recorded with other parameters than the plan gives it."""
    for point in islice(space.points(plan, numbers.start), len(numbers)):
        recorded = stored[point.index]
        given = identity.digest(point.params, point.run_id_suffix, {})
        if given != identity.digest(recorded.params, recorded.run_id_suffix, {}):
            return point.index
    return None
