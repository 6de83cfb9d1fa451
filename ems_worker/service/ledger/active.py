"""The experiments in memory, and their jobs with an open run. Everything else is only in the manifest."""

from collections.abc import Callable, Iterable, Mapping, Set

from ems_worker.core import ids
from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.live import JobKey, Live, RunKey


class ActiveExperiments:
    """The experiments and jobs in memory: experiments by key and by id, jobs by key."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._by_key: dict[int, Live] = {}
        self._keys: dict[str, int] = {}
        self._jobs: dict[JobKey, Job] = {}
        # Jobs that may no longer be needed in memory.
        self._idle: set[JobKey] = set()
        # Ids of experiments that were unloaded, or were looked up without being loaded.
        self._unloaded: dict[int, str] = {}
        self._claimed_ms = 0
        # Runs in the run window, of all experiments.
        self.open = 0
        # By experiment id, why the plan can't be read as it was accepted.
        self.unreadable: dict[str, str] = {}

    def get(self, key: int) -> Live | None:
        return self._by_key.get(key)

    def by_id(self, experiment_id: str) -> Live | None:
        key = self._keys.get(experiment_id)
        return None if key is None else self._by_key[key]

    def all(self) -> list[Live]:
        """A copy, so that experiments may come and go while it is iterated."""
        return list(self._by_key.values())

    def add(self, live: Live) -> None:
        self._by_key[live.key] = live
        self._keys[live.experiment_id] = live.key

    def remove(self, live: Live) -> None:
        del self._by_key[live.key], self._keys[live.experiment_id]
        self._unloaded[live.key] = live.experiment_id

    def discard(self, live: Live) -> None:
        """Removes an experiment with its jobs, which have no open runs."""
        self.remove(live)
        for key in [key for key in self._jobs if key[0] == live.key]:
            del self._jobs[key]

    def unloaded_id(self, key: int) -> str:
        """The id of an experiment that isn't in memory, after `find` returned one of its runs or it was unloaded."""
        return self._unloaded[key]

    def jobs(self) -> Set[JobKey]:
        return self._jobs.keys()

    def job(self, key: JobKey) -> Job | None:
        return self._jobs.get(key)

    def put(self, key: JobKey, job: Job) -> None:
        """Adds a job, or replaces it."""
        self._jobs[key] = job

    def keep(self, experiment_key: int, stored: Job) -> Job:
        """The job in memory. If it isn't there, adds it as `stored`."""
        return self._jobs.setdefault((experiment_key, *stored.key), stored)

    def claim_time(self, now_ms: int) -> int:
        """The time of a claim: now, but never before an earlier claim, even if the clock was set back.

        Reconciliation compares these times, to tell a run that the orchestrator lost from one that it had before it was
        wiped.
        """
        self._claimed_ms = max(self._claimed_ms, now_ms)
        return self._claimed_ms

    async def load_jobs(self, keys: Iterable[JobKey]) -> None:
        """Loads those of these jobs that aren't in memory. They are dropped again when they are idle."""
        missing = [key for key in keys if key not in self._jobs]
        if missing:
            self.may_be_idle(missing)
            self._jobs.update(await self._manifest.jobs(missing))

    def may_be_idle(self, keys: Iterable[JobKey]) -> None:
        """Makes `drop_idle` check these jobs."""
        self._idle.update(keys)

    def drop_idle(self, without: Callable[[set[JobKey]], Iterable[JobKey]]) -> None:
        """Drops jobs that have no open run and aren't needed: `without` returns the jobs that aren't.

        This may happen only at the beginning of a turn: a job that a turn has looked up must stay until it is used, and
        must not be loaded in an older state than it had.
        """
        for key in without(self._idle):
            job = self._jobs.get(key)
            if job is not None and not job.open:
                del self._jobs[key]
        self._idle.clear()

    def open_runs(self) -> list[tuple[RunKey, Live, Run]]:
        """Every run in the run window."""
        return [
            ((*key, attempt.attempt), self._by_key[key[0]], attempt)
            for key, job in self._jobs.items()
            for attempt in job.runs
            if attempt.state in transitions.OPEN and key[0] in self._by_key
        ]

    async def find(self, simulation_ids: Iterable[str]) -> Mapping[str, RunKey]:
        """The keys of the runs with these simulation ids; ids of unknown or unreadable experiments are left out."""
        runs: dict[str, RunKey] = {}
        keys: dict[str, int | None] = {}
        for simulation_id in simulation_ids:
            parsed = ids.parse_simulation_id(simulation_id)
            if parsed is None or parsed.experiment_id in self.unreadable:
                continue
            if parsed.experiment_id not in keys:
                keys[parsed.experiment_id] = await self._key(parsed.experiment_id)
            if (key := keys[parsed.experiment_id]) is not None:
                runs[simulation_id] = (key, parsed.point, parsed.replicate, parsed.attempt)
        return runs

    async def _key(self, experiment_id: str) -> int | None:
        if (key := self._keys.get(experiment_id)) is not None:
            return key
        record = await self._manifest.experiment(experiment_id)
        if record is None:
            return None
        self._unloaded[record.key] = experiment_id
        return record.key
