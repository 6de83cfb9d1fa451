"""Accepted -> recorded: points and their first runs are added to the manifest, in chunks, resumable after each."""

import asyncio
import math
from itertools import islice

import structlog

from ems_worker.core.lifecycle import job
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.points import space
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.space import Point
from ems_worker.core.records import PointRecord
from ems_worker.service.base import crash
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()

# How many rows a chunk adds: some milliseconds of work, after which other tasks run.
_RUNS_PER_CHUNK = 2000
# How much a chunk counts if a restart left points uncounted: about 100 ms.
_STEPS_PER_CHUNK = 200_000


class Expander:
    """Expands the experiments in turn, a chunk each, so that a large one doesn't delay a small one."""

    def __init__(self, *, ledger: Ledger, metrics: Metrics) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Makes the expander look for experiments to expand."""
        self._wake.set()

    async def run(self) -> None:
        """Expands all experiments, then sleeps until it is woken; without end."""
        while True:
            self._wake.clear()
            waiting = [live for live in self._ledger.experiments() if live.expands]
            for live in waiting:
                await self.expand(live)
                # A chunk never waits for anything: events get their turn here.
                await asyncio.sleep(0)
            if not waiting:
                await self._wake.wait()

    async def expand(self, live: Live) -> None:
        """Expands the next chunk of an experiment, which begins with the first one."""
        plan, done = live.plan, live.record.expanded_points
        replicates = live.record.spec.replicates
        limit = max(1, _RUNS_PER_CHUNK // replicates)
        if plan.grid.exact:
            points = _points(plan, done, limit)
        else:
            # They are counted again first: in a thread, with a limit on the work.
            points = await asyncio.to_thread(_points, plan, done, limit, _STEPS_PER_CHUNK)
            if not points and not live.expanded:
                return
        records = [
            PointRecord(point.index, point.params, point.run_id_suffix, {**plan.labels, **point.labels})
            for point in points
        ]
        runs: list[Run] = [
            job.first(point.index, replicate, plan.seeds.of(point.index, replicate))
            for point in points
            for replicate in range(replicates)
        ]
        await self._ledger.records.expand(live, records, runs)
        crash.point("expand.chunk")
        self._metrics.jobs_expanded.inc(len(runs))
        if live.expanded:
            log.info("experiment.expanded", experiment_id=live.experiment_id, jobs=live.record.spec.jobs)


def _points(plan: Plan, start: int, limit: int, max_steps: float = math.inf) -> list[Point]:
    return list(islice(space.points(plan, start, max_steps), limit))
