"""The plan that a request wants in the place of an experiment's: examined off the event loop, compared, and loaded."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.access import quotas as publisher_quotas
from ems_worker.core.access.quotas import Quotas
from ems_worker.core.documents import headings
from ems_worker.core.language import version
from ems_worker.core.points.edits import Edits
from ems_worker.core.records import NewExperiment
from ems_worker.service.intake import check
from ems_worker.service.intake.check import PlanReader, Platform
from ems_worker.service.intake.examination import Examiner, Extension
from ems_worker.service.ledger.growth import NextVersion
from ems_worker.service.ledger.live import Live


@dataclass(frozen=True, slots=True)
class NextPlan:
    """A plan that may take the place of an experiment's. `jobs`: how many it has itself, some of which may be there."""

    spec: NewExperiment
    jobs: int


@dataclass(frozen=True, slots=True)
class Plans:
    """Reads the plans of requests. `platform` returns what plans are checked against."""

    examiner: Examiner
    reader: PlanReader
    platform: Callable[[], Platform]
    quotas: Quotas

    async def examined(self, live: Live, request: dict[str, Any]) -> NextPlan:
        """The plan that a request wants. Raises errors.RequestRefused with everything that is wrong with it."""
        spec = live.record.spec
        try:
            data = b"" if request.get("plan") is None else await asyncio.to_thread(_text, request["plan"])
            async with self.examiner.examine(data) as examined:
                outline = await examined.extension(spec, _extension(request))
                if outline.priority > live.plan.limits.priority:
                    refusal = publisher_quotas.priority_refusal(self.quotas, outline.priority)
                    if refusal is not None:
                        raise errors.PlanRejected([refusal])
                async for step in examined.steps(spec.experiment_id, self.platform()):
                    outline = step
                plan = await examined.plan()
        except errors.PlanRejected as error:
            raise errors.RequestRefused("; ".join(map(str, error.problems))) from error
        except errors.Unreadable as error:
            raise errors.RequestRefused(str(error)) from error
        after = replace(
            spec,
            plan=plan,
            plan_sha=outline.plan_sha,
            replicates=outline.replicates,
            language=version.VERSION,
            # Points of earlier versions keep their parameters.
            parameters={**(spec.parameters or {}), **outline.parameters},
            headings=headings.extended(spec.headings, outline.headings),
        )
        return NextPlan(after, outline.count.jobs)

    async def loaded(self, spec: NewExperiment) -> NextVersion:
        """The plan, to be kept in memory."""
        plan, _, template = await asyncio.to_thread(check.loaded, spec, self.reader)
        return NextVersion(spec, plan, template)


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
