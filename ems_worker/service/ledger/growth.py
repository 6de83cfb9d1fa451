"""Experiments that get a new version of their plan, and the points and jobs that it adds."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.render import Template
from ems_worker.core.records import Additions, Change, Experiment, NewExperiment
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.live import Live
from ems_worker.service.ledger.records import Records


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A version of a plan that takes the place of an experiment's. `spec` has its text, and the size until then."""

    spec: NewExperiment
    plan: Plan
    template: Template


class Growth:
    """Adds to experiments, in memory and in the manifest together. Each method returns the change as it is recorded."""

    def __init__(self, manifest: Manifest, records: Records, commits: CommitQueue, lock: asyncio.Lock) -> None:
        """`lock` is held during each decision about runs."""
        self._manifest = manifest
        self._records = records
        self._commits = commits
        self._lock = lock

    async def replace_plan(self, live: Live, change: Change, version: NextVersion) -> Change:
        """Gives the experiment the next version of its plan. Its points and jobs stay; its limits are the plan's."""
        async with self._lock:
            records = self._records.version(live, version.spec)
            live.plan, live.template, live.policy = version.plan, version.template, lives.policy(version.plan)
            live.changes[change.number] = change
            commit = self._commits.put(self._record(live, change, records, live.tally))
        await commit
        return change

    async def add(self, live: Live, change: Change, additions: Additions, excluded: Sequence[Run] = ()) -> Change:
        """Adds points and first runs of jobs; the first jobs of an experiment that had ended begin a new round.

        `excluded` are first runs of jobs that don't count from the start.
        """
        async with self._lock:
            jobs = len(additions.runs) + len(excluded)
            records = self._records.grow(live, len(additions.points), jobs)
            live.tally = live.tally.extended(jobs).after((None, run) for run in excluded)
            change = replace(change, state=live.record.state, round=live.record.round)
            live.changes[change.number] = change
            rows = self._record(live, change, records, live.tally, additions=additions, excluded=excluded)
            commit = self._commits.put(rows)
        await commit
        return change

    async def _record(
        self,
        live: Live,
        change: Change,
        records: tuple[Experiment, Experiment],
        tally: Tally,
        *,
        additions: Additions | None = None,
        excluded: Sequence[Run] = (),
    ) -> None:
        runs = [(live.key, None, run) for run in excluded]
        await self._manifest.extend(change, *records, additions or Additions(), changes=runs)
        live.recorded = tally
        self._records.changed(live)
