"""Experiments in work, in memory: what the services share, and what of it changes together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ems_worker.core import ids
from ems_worker.core.lifecycle import experiment, job, run
from ems_worker.core.lifecycle.experiment import Tally
from ems_worker.core.lifecycle.job import Job, RetryPolicy
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.render import Template
from ems_worker.core.records import Experiment, PointRow
from ems_worker.service.base.ports import Change, Manifest

# A job's place in the manifest: experiment key, point, replicate.
JobKey = tuple[int, int, int]
# An attempt's: the same and its number.
RunKey = tuple[int, int, int, int]


@dataclass(slots=True)
class Live:
    """An experiment that the worker is busy with. `open` counts its runs in the run window.

    `tally` is what was decided, `recorded` what of it is on disk: only that is published or ends the experiment.
    """

    record: Experiment
    plan: Plan
    template: Template
    tally: Tally
    recorded: Tally
    policy: RetryPolicy
    # How many of its jobs may fail.
    allowed: int
    open: int = 0
    # Seconds that each metric is waited for that comes by events of its own.
    metric_timeouts: Mapping[str, float] = field(default_factory=dict)
    # Attempts that came to be since it was taken up.
    attempts: int = 0
    # While a retry adds attempts the experiment neither ends nor gives up.
    reopening: bool = False
    # How many are busy changing it: it is not let go meanwhile.
    held: int = 0
    best: PointRow | None = None
    # The manifest file was written with the ends of jobs up to this position.
    left_seq: int | None = None
    # The reason that its last status gave.
    reason: str | None = None
    # (monotonic seconds, jobs ended) of the recent past, for the throughput.
    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def key(self) -> int:
        return self.record.key

    @property
    def experiment_id(self) -> str:
        return self.record.spec.experiment_id

    @property
    def expanded(self) -> bool:
        return self.record.expanded_points >= self.record.spec.points

    @property
    def doomed(self) -> bool:
        """More jobs failed than may, and the plan says not to go on then."""
        return not self.reopening and self.plan.limits.fail_fast and self.tally.failures > self.allowed

    @property
    def over(self) -> bool:
        return self.record.state in experiment.ENDED


class Batch:
    """Changes that are recorded together: each attempt once, from what it was before the batch to what it is after."""

    def __init__(self) -> None:
        self._before: dict[RunKey, Run | None] = {}
        self._after: dict[RunKey, Run] = {}
        self.ended_seq: dict[int, int] = {}
        self.places: set[JobKey] = set()

    def note(self, place: JobKey, before: Job, after: Job) -> None:
        self.places.add(place)
        for old, new in job.changed(before, after):
            key = (*place, new.attempt)
            self._before.setdefault(key, old)
            self._after[key] = new

    def next_seq(self, live: Live) -> int:
        live.record = replace(live.record, ended_seq=live.record.ended_seq + 1)
        self.ended_seq[live.key] = live.record.ended_seq
        return live.record.ended_seq

    @property
    def touched(self) -> Mapping[int, None]:
        return dict.fromkeys(key[0] for key in self._after)

    @property
    def changes(self) -> list[Change]:
        return [(key[0], self._before[key], after) for key, after in self._after.items()]


class Registry:
    """The experiments in work and their jobs with an open run, by key, by id and by simulation id."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.experiments: dict[int, Live] = {}
        self.jobs: dict[JobKey, Job] = {}
        # When, on the monotonic clock, the counting of a run's time began in this process.
        self.since: dict[RunKey, float] = {}
        # When something was last heard of an open run in this process.
        self.heard: dict[RunKey, float] = {}
        # Until when, on the monotonic clock, a completed run's job waits for metrics.
        self.awaiting: dict[RunKey, float] = {}
        self._by_id: dict[str, int] = {}
        # Experiments that can't be taken up as long as this worker runs, by id, and why: what is heard of their runs
        # waits with what is heard of unknown ones.
        self.left_out: dict[str, str] = {}
        # Names of experiments that were let go, or heard of only in events.
        self._over: dict[int, str] = {}

    def live(self, experiment_id: str) -> Live | None:
        key = self._by_id.get(experiment_id)
        return None if key is None else self.experiments[key]

    @property
    def open(self) -> int:
        """Runs in the run window, of all experiments."""
        return sum(live.open for live in self.experiments.values())

    def open_runs(self) -> list[tuple[RunKey, Live, Run]]:
        """Every run in the run window."""
        return [
            ((*place, one.attempt), self.experiments[place[0]], one)
            for place, held in self.jobs.items()
            for one in held.runs
            if one.state in run.OPEN and place[0] in self.experiments
        ]

    async def key(self, experiment_id: str) -> int | None:
        """The row id of an experiment, live or ended; None if the manifest hasn't got it."""
        if (key := self._by_id.get(experiment_id)) is not None:
            return key
        record = await self.manifest.experiment(experiment_id)
        if record is None:
            return None
        self._over[record.key] = experiment_id
        return record.key

    async def find(self, names: Iterable[str]) -> dict[str, RunKey]:
        """The runs of these simulation ids, as far as they name an experiment of the manifest."""
        found: dict[str, RunKey] = {}
        keys: dict[str, int | None] = {}
        for name in names:
            parsed = ids.parse_simulation_id(name)
            if parsed is None or parsed.experiment_id in self.left_out:
                continue
            if parsed.experiment_id not in keys:
                keys[parsed.experiment_id] = await self.key(parsed.experiment_id)
            if (key := keys[parsed.experiment_id]) is not None:
                found[name] = (key, parsed.point, parsed.replicate, parsed.attempt)
        return found
