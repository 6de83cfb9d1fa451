"""The only place where runs and experiments change state: it looks up a job, asks the core, and records the answer.

Decisions are made one after another under a lock and are in memory at once. Their commits are queued in the same order,
and the manifest's writer combines them into transactions. A method returns after its commit, and only then may a caller
act on the decision: make a call, acknowledge, or publish.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import structlog
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.lifecycle import run, transitions
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run, Signal, StopReason
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState
from ems_worker.core.records import Change, Experiment
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.active import ActiveExperiments
from ems_worker.service.ledger.claims import Claims
from ems_worker.service.ledger.commits import CommitQueue
from ems_worker.service.ledger.growth import Growth
from ems_worker.service.ledger.judging import Judging
from ems_worker.service.ledger.live import JobKey, Live, RunKey
from ems_worker.service.ledger.records import Records
from ems_worker.service.ledger.residency import Residency
from ems_worker.service.ledger.timers import Timers
from ems_worker.service.ledger.turn import Turn

log = structlog.get_logger()

_ACCEPTED = Signal(RunEvent.ACCEPT)


class Ledger:
    """The experiments in memory with their open jobs, kept consistent with the manifest.

    Methods raise errors.ManifestConflict or errors.ManifestUnusable if a change can't be recorded.
    """

    def __init__(
        self,
        *,
        manifest: Manifest,
        clock: Clock,
        read: Callable[[Experiment], Awaitable[Live]],
        on_change: Callable[[int], None],
        on_end: Callable[[RunKey, Run], None],
    ) -> None:
        """`read` builds an experiment from its record; `on_change` hears of news by its key, `on_end` of ended runs."""
        self._manifest = manifest
        self._clock = clock
        self._on_change = on_change
        self._on_end = on_end
        self._active = ActiveExperiments(manifest)
        self._timers = Timers(clock)
        self._commits = CommitQueue()
        self._lock = asyncio.Lock()  # held during each decision about runs
        # Runs whose acceptance is to be recorded, as they are on disk.
        self._unrecorded: dict[RunKey, Run | None] = {}
        self.records = Records(manifest=manifest, clock=clock, commits=self._commits, on_change=on_change)
        self.judging = Judging(
            manifest=manifest,
            active=self._active,
            commits=self._commits,
            records=self.records,
            clock=clock,
            turn=self._turn,
        )
        self.claims = Claims(manifest=manifest, active=self._active, clock=clock, turn=self._turn)
        self.growth = Growth(manifest, self.records, self._commits, self._lock)
        self._residency = Residency(
            manifest=manifest,
            active=self._active,
            timers=self._timers,
            commits=self._commits,
            lock=self._lock,
            read=read,
            on_change=on_change,
        )

    # What is in memory.

    def experiments(self) -> list[Live]:
        """A copy, so that experiments may come and go while it is iterated."""
        return self._active.all()

    def get(self, key: int) -> Live | None:
        return self._active.get(key)

    def live(self, experiment_id: str) -> Live | None:
        return self._active.by_id(experiment_id)

    async def find(self, simulation_ids: Iterable[str]) -> Mapping[str, RunKey]:
        """The keys of the runs with these simulation ids; ids of unknown or unreadable experiments are left out."""
        return await self._active.find(simulation_ids)

    @property
    def open(self) -> int:
        """Runs in the run window, of all experiments."""
        return self._active.open

    def open_runs(self) -> list[tuple[RunKey, Live, Run]]:
        """Every run in the run window."""
        return self._active.open_runs()

    def jobs(self) -> Set[JobKey]:
        """The jobs in memory."""
        return self._active.jobs()

    @property
    def uncommitted(self) -> int:
        """How many commits are under way, by which memory is ahead of the disk."""
        return len(self._commits)

    def run(self, key: RunKey) -> Run | None:
        """A run whose job is in memory, as all jobs with an open run are."""
        known = self._active.job(key[:3])
        return None if known is None or key[3] > len(known.runs) else known.attempt(key[3])

    def last_heard(self, key: RunKey) -> float | None:
        """When this process last had news of an open run, in monotonic seconds; None if it never had."""
        return self._timers.last_heard(key)

    def elapsed_ms(self, key: RunKey, counted: Run) -> int:
        """The milliseconds that count against the run's limit."""
        return self._timers.elapsed_ms(key, counted)

    def awaiting_metrics(self) -> list[RunKey]:
        """The completed runs whose jobs wait for metrics."""
        return self._timers.awaiting_metrics()

    def metrics_overdue(self) -> list[RunKey]:
        """The completed runs whose metrics did not arrive in time."""
        return self._timers.metrics_overdue()

    @property
    def unreadable(self) -> Mapping[str, str]:
        """The experiments, by id, that this worker leaves alone because it can't read their plans, with the reasons."""
        return self._active.unreadable

    def mark_unreadable(self, experiment_id: str, error: errors.PlanNotReadAsAccepted) -> None:
        """Leaves an experiment alone from now on: events of its runs are parked like those of unknown runs."""
        self._active.unreadable[experiment_id] = str(error)
        log.error("experiment.left_out", experiment_id=experiment_id, reason=str(error))

    def admit(self, live: Live, open_jobs: Iterable[Job] = (), awaiting: Iterable[Run] = ()) -> None:
        """Adds an experiment, unless it is in memory, with its open jobs and the runs that wait for metrics."""
        self._residency.admit(live, open_jobs, awaiting)

    def pinned(self, experiment_id: str) -> AbstractAsyncContextManager[Live | None]:
        """The experiment, which stays in memory for the block even if it has ended; None if the manifest has none."""
        return self._residency.pinned(experiment_id)

    async def unload(self, key: int) -> None:
        """Unloads an experiment that has ended and has nothing left to publish; a late event loads it again."""
        await self._residency.unload(key)

    async def remove(
        self, experiment_id: str, record: Callable[[], Awaitable[Change]], *, by_force: bool = False
    ) -> Change | None:
        """Calls `record`, which removes an experiment from the manifest, while it isn't in memory; None if it is.

        It is not loaded again. `by_force`: it is dropped from memory, whatever is left to do. Its runs must have ended.
        """
        return await self._residency.remove(experiment_id, record, by_force=by_force)

    async def until_broken(self) -> None:
        """Waits until a change can't be recorded, and raises the error: only a restart helps then."""
        await self._commits.until_broken()

    # Decisions about runs.

    async def hear(self, signals: Sequence[tuple[RunKey, Signal]]) -> list[Effect | None]:
        """Applies signals to runs; returns their effects once all changes are in the manifest.

        The effect is None for a run that the manifest doesn't have. Signals of an experiment are applied in order.
        Signals that change an experiment that isn't in memory are applied last: others don't wait until it is loaded.
        """
        effects: dict[int, Effect | None] = {}
        left = list(enumerate(signals))
        async with AsyncExitStack() as pins:
            while left:
                async with self._turn() as turn:
                    await self._active.load_jobs({key[:3] for _, (key, _) in left})
                    now_ms = self._clock.now_ms()
                    unloaded = {
                        key[0]
                        for _, (key, signal) in left
                        if self._active.get(key[0]) is None and turn.would_change(key, signal, now_ms)
                    }
                    for index, (key, signal) in left:
                        if key[0] not in unloaded:
                            applied = turn.apply(key, signal, now_ms)
                            effects[index] = None if applied is None else applied.effect
                for experiment_key in unloaded:
                    experiment_id = self._active.unloaded_id(experiment_key)
                    try:
                        live = await pins.enter_async_context(self.pinned(experiment_id))
                    except errors.PlanNotReadAsAccepted as error:
                        self.mark_unreadable(experiment_id, error)
                        effects |= {index: None for index, (key, _) in left if key[0] == experiment_key}
                    else:
                        if live is None:  # it was removed meanwhile
                            effects |= {index: None for index, (key, _) in left if key[0] == experiment_key}
                left = [(index, signal) for index, signal in left if index not in effects]
        return [effects[index] for index in range(len(signals))]

    async def accept(self, runs: Iterable[RunKey]) -> None:
        """Notes that the orchestrator accepted runs, which is recorded with the next change of each, or by `flush`.

        A crash that forgets it does no harm: the runs are sent again under their ids, as they were before the answer.
        """
        async with self._lock:
            turn = Turn(self._active, self._timers, self._on_end, self._unrecorded)
            await self._active.load_jobs({key[:3] for key in runs})
            now_ms = self._clock.now_ms()
            for key in runs:
                turn.apply(key, _ACCEPTED, now_ms)
            turn.put_off()
        for experiment_key in turn.touched:
            self._on_change(experiment_key)

    async def flush(self) -> None:
        """Records acceptances that no commit has recorded yet."""
        if self._unrecorded:
            async with self._turn() as turn:
                turn.take_over()

    async def ask_to_stop(self, runs: Sequence[tuple[RunKey, StopReason]]) -> None:
        """Records on open runs why they are to be stopped, before STOP is sent. They may not end by themselves then."""
        async with self._turn() as turn:
            for key, reason in runs:
                if (before := self.run(key)) is not None and before.state in transitions.OPEN:
                    # At its time limit a run of a cancelled job still counts as called off.
                    drains = before.drains and reason is StopReason.TIMEOUT
                    turn.update(key, replace(before, stop_reason=reason, drains=drains))

    async def forget_time(self, runs: Iterable[RunKey]) -> None:
        """Resets the elapsed time of runs that are sent again to an orchestrator that forgot them.

        Their time counts again after the next news of each run. Until then they wait to be submitted.
        """
        async with self._turn() as turn:
            for key in runs:
                if (before := self.run(key)) is not None and before.state in (RunState.SUBMITTED, RunState.RUNNING):
                    turn.update(key, run.forgotten(before))
                    self._timers.forget(key)

    async def suspend(self, runs: Iterable[RunKey], suspended: bool) -> None:
        """Records that the orchestrator confirmed a PAUSE or RESUME of open runs: meanwhile their time stands still."""
        async with self._turn() as turn:
            for key in runs:
                if (before := self.run(key)) is not None and before.state in transitions.OPEN:
                    turn.update(key, replace(before, suspended=suspended, elapsed_ms=self.elapsed_ms(key, before)))
                    self._timers.suspended(key, replace(before, suspended=suspended))

    async def count_time(self) -> None:
        """Records the elapsed time of open runs: a crash lengthens their limits only by the time since."""
        async with self._turn() as turn:
            for key in self._timers.counting():
                if (before := self.run(key)) is not None:
                    turn.update(key, replace(before, elapsed_ms=self._timers.elapsed_ms(key, before)))
                    self._timers.counted(key)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Turn]:
        """A turn under the lock. After it, its changes are committed, and experiments that have ended are concluded."""
        async with self._lock:
            self._active.drop_idle(self._commits.others)
            turn = Turn(self._active, self._timers, self._on_end, self._unrecorded)
            yield turn
            turn.count()
            touched = [live for key in turn.touched if (live := self._active.get(key)) is not None]
            for live in touched:
                self.records.ends_numbered(live, turn.ended_seq.get(live.key))
            tallies = [(live, live.tally, live.record.ended_seq) for live in touched]
            commit = self._commits.put(self._record(turn, tallies), turn.jobs, self._active.may_be_idle)
        await commit
        for live in touched:
            await self.records.conclude(live)

    async def _record(self, turn: Turn, tallies: Sequence[tuple[Live, Tally, int]]) -> None:
        if turn.changes or turn.change:
            await self._manifest.save(turn.changes, turn.ended_seq, turn.change, turn.reopened)
        changes = turn.by_experiment()
        for live, tally, ended_seq in tallies:
            live.count_recorded(tally, ended_seq, turn.retaken, changes[live.key])
            self._on_change(live.key)
        if turn.change and turn.change.experiment not in changes:
            # It may no longer keep runs from being started.
            self._on_change(turn.change.experiment)
