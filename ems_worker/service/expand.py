"""Accepted -> recorded: points and their first runs go into the manifest, chunk by chunk, from wherever that stands."""

import asyncio
from collections.abc import Callable
from itertools import islice

import structlog

from ems_worker.core.lifecycle import job
from ems_worker.core.lifecycle.experiment import ExperimentState
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

# Rows a chunk: some milliseconds of work between two turns of everything else.
_RUNS_A_CHUNK = 2000
# Combinations a chunk that are tried, at some 10 us each.
_TRIES_A_CHUNK = 10_000


class Expander:
    """Expands live experiments in turn, a chunk each, so that a large one doesn't hold up a small one."""

    def __init__(self, *, ledger: Ledger, metrics: Metrics, on_jobs: Callable[[], None]) -> None:
        """`on_jobs` is called when there are new jobs to dispatch."""
        self._ledger = ledger
        self._metrics = metrics
        self._on_jobs = on_jobs
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is an experiment to expand."""
        self._wake.set()

    async def run(self) -> None:
        """For ever: expands what is not expanded, then sleeps until woken."""
        while True:
            self._wake.clear()
            waiting = [live for live in self._ledger.experiments() if live.expands]
            for live in waiting:
                await self.expand(live)
                # The chunks are work without waiting: give events their turn.
                await asyncio.sleep(0)
            if not waiting:
                await self._wake.wait()

    async def expand(self, live: Live) -> None:
        """The next chunk of one experiment; after a crash there may be none left, and it still has to begin."""
        plan, done = live.plan, live.record.expanded_points
        replicates = live.record.spec.replicates
        most = max(1, _RUNS_A_CHUNK // replicates)
        if plan.grid.exact:
            points = _points(plan, done, most)
        else:
            # Tried one by one, most of them in vain: in a thread, and not for long, so that others have their turn.
            points = await asyncio.to_thread(_points, plan, done, most, _TRIES_A_CHUNK)
            if not points and not live.expanded:
                return
        records = [
            PointRecord(one.index, one.params, one.run_id_suffix, {**plan.labels, **one.labels}) for one in points
        ]
        runs: list[Run] = [
            job.first(point.index, replicate, plan.seeds.of(point.index, replicate))
            for point in points
            for replicate in range(replicates)
        ]
        await self._ledger.records.expand(live, records, runs)
        crash.point("expand.chunk")
        self._metrics.jobs_expanded.inc(len(runs))
        if live.record.state is ExperimentState.ACCEPTED:
            await self._ledger.records.move(live, ExperimentState.RUNNING)
            crash.point("expand.begun")
        if live.expanded:
            log.info("experiment.expanded", experiment_id=live.experiment_id, jobs=live.record.spec.jobs)
        self._on_jobs()


def _points(plan: Plan, start: int, most: int, tries: int | None = None) -> list[Point]:
    return list(islice(space.points(plan, start, tries), most))
