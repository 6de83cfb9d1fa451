"""A turn of the ledger: decisions that take effect in memory at once and are recorded together."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from ems_worker.core.lifecycle import job, run
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run, Signal, Waiting
from ems_worker.core.lifecycle.transitions import CHANGING, OPEN, TERMINAL, RunEvent, RunState
from ems_worker.core.records import Change, Experiment
from ems_worker.service.base.ports import RunChange
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.active import ActiveExperiments
from ems_worker.service.ledger.live import JobKey, Live, RunKey
from ems_worker.service.ledger.timers import Timers

# Members as constants: up to Python 3.11 their look-up in the class takes longer than most functions here.
_CANCELLED, _PENDING, _AWAITING = RunState.CANCELLED, RunState.PENDING, Waiting.AWAITING
_CLAIMED = Signal(RunEvent.CLAIM)


class Turn:
    """Changes jobs in memory, and collects each changed attempt as it was before the turn and is after it."""

    def __init__(
        self,
        active: ActiveExperiments,
        timers: Timers,
        on_end: Callable[[RunKey, Run], None],
        unrecorded: dict[RunKey, Run | None],
    ) -> None:
        """`on_end` receives each run that ends.

        `unrecorded`: runs that are to be recorded, as they are on disk. The turn takes over those that it changes.
        """
        self._active = active
        self._timers = timers
        self._on_end = on_end
        self._unrecorded = unrecorded
        self._before: dict[RunKey, Run | None] = {}
        self._after: dict[RunKey, Run] = {}
        # By experiment, changes of jobs' current runs that its tally doesn't count yet.
        self._uncounted: dict[int, list[tuple[Run | None, Run]]] = {}
        # The last position given to an end, by experiment.
        self.ended_seq: dict[int, int] = {}
        # Experiment and point of each job that had ended and is open again.
        self.retaken: set[tuple[int, int]] = set()
        # Jobs that the turn used or changed.
        self.jobs: set[JobKey] = set()
        # How far a change is carried out by this turn; and an experiment that it replaces: the record before and after.
        self.change: Change | None = None
        self.reopened: tuple[Experiment, Experiment] | None = None

    @property
    def touched(self) -> list[int]:
        """Keys of the experiments with changed runs."""
        return list(dict.fromkeys(key[0] for key in self._after))

    @property
    def changes(self) -> list[RunChange]:
        return [(key[0], self._before[key], after) for key, after in self._after.items()]

    def by_experiment(self) -> Mapping[int, list[tuple[Run | None, Run]]]:
        """The changed runs of each experiment, as (before, after)."""
        changes: dict[int, list[tuple[Run | None, Run]]] = {}
        for key, after in self._after.items():
            changes.setdefault(key[0], []).append((self._before[key], after))
        return changes

    def would_change(self, key: RunKey, signal: Signal, now_ms: int) -> bool:
        """Whether the signal would change the run, decided without its experiment.

        Which metrics the job waits for isn't known then. It doesn't matter, because it doesn't change the effect.
        """
        known = self._active.job(key[:3])
        if known is None or key[3] > len(known.runs):
            return False
        return run.advance(known.attempt(key[3]), signal, now_ms)[0] in CHANGING

    def apply(self, key: RunKey, signal: Signal, now_ms: int) -> job.Applied | None:
        """Applies a signal to a run; None if there is no such run.

        If the experiment isn't in memory, the effect is returned and nothing changes.
        """
        job_key = key[:3]
        before = self._active.job(job_key)
        if before is None or key[3] > len(before.runs):
            return None
        live = self._active.get(key[0])
        if live is None:
            applied = job.Applied(run.advance(before.attempt(key[3]), signal, now_ms)[0], before)
        else:
            applied = job.apply(before, key[3], signal, live.policy, now_ms=now_ms, retries=lambda: self._retries(live))
        if live is None or applied.effect not in CHANGING:
            self.jobs.add(job_key)
            self._timers.heard(key, before.attempt(key[3]))
            return applied
        after = applied.job
        if applied.ended:
            after = self.numbered(live, after)
        self._put(live, job_key, before, after)
        return applied

    def claim(self, live: Live, before: Job, config_sha: str, at_ms: int) -> Run | None:
        """Claims the job's pending run, whose configuration has this identity; returns it. None if none is pending."""
        pending = before.current
        if pending.state is not _PENDING:
            return None
        _, submitting = run.advance(pending, _CLAIMED, at_ms)
        submitting = replace(submitting, config_sha=config_sha)
        self._put(live, (live.record.key, *before.key), before, before.with_run(submitting))
        return submitting

    def update(self, key: RunKey, after: Run) -> None:
        """Replaces an attempt whose state stays the same."""
        job_key = key[:3]
        before = self._active.job(job_key)
        assert before is not None
        self._active.put(job_key, before.with_run(after))
        self.jobs.add(job_key)
        self._note(self._active.get(key[0]), key, before.attempt(key[3]), after)

    def carry(self, live: Live, change: Change) -> None:
        """Records in the same commit how far a change is carried out."""
        self.change = live.changes[change.number] = change

    def numbered(self, live: Live, ended: Job) -> Job:
        """The job with the next position among the ends of its experiment."""
        return job.number_end(ended, self._next_seq(live))

    def replace(self, live: Live, before: Job, after: Job) -> None:
        """Replaces a job in memory, and updates its experiment's counts and the timers of its runs."""
        self._put(live, (live.key, *after.key), before, after)

    def _put(self, live: Live, job_key: JobKey, before: Job, after: Job) -> None:
        self._active.put(job_key, after)
        self.jobs.add(job_key)
        for old, new in job.changed(before, after):
            key = (*job_key, new.attempt)
            self._note(live, key, old, new)
            self._follow(live, key, old, new)
        was, now = before.current, after.current
        if was is not now:
            self._uncounted.setdefault(job_key[0], []).append((was, now))
            if was.settled and not now.settled:
                self.retaken.add(job_key[:2])

    def put_off(self) -> None:
        """Leaves the changes of this turn to a later one."""
        self.count()
        self._unrecorded.update(self._before)

    def take_over(self) -> None:
        """Records what earlier turns have put off."""
        for key in list(self._unrecorded):
            known = self._active.job(key[:3])
            assert known is not None  # its run is open
            self.jobs.add(key[:3])
            self._note(None, key, None, known.attempt(key[3]))

    def count(self) -> None:
        """Brings the tallies of the experiments up to date."""
        for key, changes in self._uncounted.items():
            live = self._active.get(key)
            assert live is not None
            live.tally = live.tally.after(changes)
        self._uncounted.clear()

    def _retries(self, live: Live) -> bool:
        self.count()
        return live.retries_failures

    def _note(self, live: Live | None, key: RunKey, old: Run | None, new: Run) -> None:
        """Notes a changed attempt for the commit."""
        if key not in self._before:
            self._before[key] = self._unrecorded.pop(key, old)
        self._after[key] = new
        if live is not None and (new.step is not None or (old is not None and old.step is not None)):
            live.underway += lives.share(new) - lives.share(old)

    def _next_seq(self, live: Live) -> int:
        key = live.record.key
        seq = self.ended_seq.get(key, live.record.ended_seq) + 1
        self.ended_seq[key] = seq
        return seq

    def _follow(self, live: Live, key: RunKey, old: Run | None, new: Run) -> None:
        """Follows a run from one state to another, or a new one."""
        state, was = new.state, None if old is None else old.state
        live.attempts += old is None
        if was is not state:
            opened = (state in OPEN) - (was in OPEN)
            live.open += opened
            self._active.open += opened
        if state is _CANCELLED and new.current and new.ended_seq is None:
            live.unreported += 1
        self._timers.changed(key, old, new)
        if state in TERMINAL and was not in TERMINAL:
            self._on_end(key, new)
        if new.waiting is _AWAITING:
            self._timers.wait_for_metrics(key, live.metrics_timeout(new))
        elif old is not None and old.waiting is not None:
            self._timers.stop_waiting(key)
