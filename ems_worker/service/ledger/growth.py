"""Experiments that get a new version of their plan, and the points and jobs that it adds."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ems_worker.core.lifecycle.experiment import Tally
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.render import Template
from ems_worker.core.records import Additions, Change, Experiment, NewExperiment
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.live import Live
from ems_worker.service.ledger.records import Records


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A version of a plan that takes the place of an experiment's. `spec` has its text, and the size that was so far."""

    spec: NewExperiment
    plan: Plan
    template: Template


class Growth:
    """Adds to experiments, in memory and in the manifest together. Each method returns the change as it is recorded."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        commits: CommitQueue,
        records: Records,
        clock: Clock,
        lock: asyncio.Lock,
        on_change: Callable[[int], None],
    ) -> None:
        """`lock` is held during each decision about runs."""
        self._manifest = manifest
        self._commits = commits
        self._records = records
        self._clock = clock
        self._lock = lock
        self._on_change = on_change

    async def replace_plan(self, live: Live, change: Change, version: NextVersion) -> Change:
        """Gives the experiment the next version of its plan. Its points and jobs stay; its limits are the plan's."""
        async with self._lock:
            before, after = self._records.version(live, version.spec)
            live.plan, live.template = version.plan, version.template
            live.policy = lives.policy(version.plan)
            live.changes[change.number] = change
            commit = self._commits.put(self._record(live, change, (before, after), Additions(), live.tally))
        await commit
        return change

    async def add(self, live: Live, change: Change, additions: Additions, excluded: Sequence[Run] = ()) -> Change:
        """Adds points and first runs of jobs; the first jobs of an experiment that had ended begin a new round.

        `excluded` are first runs of jobs that don't count from the start.
        """
        async with self._lock:
            jobs = len(additions.runs) + len(excluded)
            before, after = self._records.grow(live, len(additions.points), jobs, self._clock.now_ms())
            live.tally = live.tally.extended(jobs).after((None, run) for run in excluded)
            change = replace(change, state=after.state, round=after.round)
            live.changes[change.number] = change
            commit = self._commits.put(
                self._record(live, change, (before, after), additions, live.tally, excluded=excluded)
            )
        await commit
        return change

    async def _record(
        self,
        live: Live,
        change: Change,
        records: tuple[Experiment, Experiment],
        additions: Additions,
        tally: Tally,
        *,
        excluded: Sequence[Run] = (),
    ) -> None:
        rows = [(live.key, None, run) for run in excluded]
        await self._manifest.extend(change, *records, additions, changes=rows)
        live.recorded = tally
        self._on_change(live.key)
