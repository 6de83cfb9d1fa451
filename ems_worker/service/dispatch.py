"""Recorded -> submitted: due runs are claimed within the run window and passed to the submitter.

A run is submitting on disk before its command is sent.
"""

import asyncio
import contextlib
from collections import Counter

import structlog

from ems_worker.core.lifecycle import breaker, job
from ems_worker.core.lifecycle.breaker import Breaker, BreakerState
from ems_worker.core.lifecycle.run import Run
from ems_worker.service.base import crash, supervise
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Manifest, Orchestrator
from ems_worker.service.base.versions import Versions
from ems_worker.service.demands import Demands
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import RunKey
from ems_worker.service.reach import Claimed
from ems_worker.service.submit import BATCH, Submitter

log = structlog.get_logger()

# How many batches are under way at once: while one waits for answers the next is claimed.
BATCHES = 3
_DEFAULT_WINDOW = 256
# How long an orchestrator may take to report its slots after it is reachable. After that it counts as one that doesn't.
_REPORT_SECONDS = 8.0
_READY_POLL_SECONDS = 0.2
# If the wall clock is set, runs that have become due by that are noticed after this time.
_MAX_SLEEP_SECONDS = 5.0
_HOLD_REASON = "this worker holds all runs back since its start: `ems resume --all` starts them"


class Dispatcher:
    """Keeps the run window full as long as commands get through, events are up to date, and the breaker is closed."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        orchestrator: Orchestrator,
        submitter: Submitter,
        clock: Clock,
        metrics: Metrics,
        window: int | None,
        versions: Versions,
    ) -> None:
        """`window`: how many runs may be open at once; None: the orchestrator's slots, or 256 if it reports none.

        The dispatcher sets the reported version of `versions`. While the submitter is held it claims nothing.
        """
        self._ledger = ledger
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._submitter = submitter
        self._clock = clock
        self._metrics = metrics
        self._fixed = window is not None
        # 0 until the slots are known, or known not to be reported: a default would flood a small orchestrator.
        self._window = window or 0
        self._versions = versions
        self.demands = Demands(ledger=ledger, manifest=manifest, clock=clock, versions=versions)
        # How many times the orchestrator reported its capacity, or stopped reporting it.
        self._reports = 0
        self._wake = asyncio.Event()
        self._batches = asyncio.Semaphore(BATCHES)
        self._breaker = Breaker()
        self._due_times_checked = float("-inf")
        self._sleeping = False
        # Whether more than a batch of events waits: they are applied before new runs are submitted.
        self.behind = True
        metrics.run_window.set(self._window)

    def wake(self) -> None:
        """Makes the dispatcher look for due runs."""
        self._wake.set()

    def changed(self, key: int) -> None:
        """Makes the dispatcher look for due runs, also of an experiment that has changed."""
        self.demands.changed(key)
        self._wake.set()

    def set_behind(self, behind: bool) -> None:
        """Sets whether more events wait than fit in a batch of the tracker."""
        if self.behind and not behind:
            self.wake()
        self.behind = behind

    @property
    def idle(self) -> bool:
        """Whether the dispatcher sleeps, and nothing has woken it yet."""
        return self._sleeping and not self._wake.is_set()

    @property
    def window(self) -> int:
        """How many runs may be open at once; 0 until that is known."""
        return self._window

    @property
    def breaker_reason(self) -> str | None:
        """Why the breaker keeps new runs from starting, for people; None if it doesn't."""
        if self._breaker.state is BreakerState.CLOSED:
            return None
        return "paused: most of the last runs failed for infrastructure reasons; probing until one succeeds"

    @property
    def hold_reason(self) -> str | None:
        """Why no run has been started since the start of this worker, for people; None if runs may be started."""
        return _HOLD_REASON if self._submitter.held else None

    def release(self) -> bool:
        """Starts runs from now on, if the worker was started on hold; whether it was."""
        released = self._submitter.release()
        self.wake()
        return released

    def ended(self, key: RunKey, run: Run) -> None:
        """Reports the end of a run to the breaker."""
        before = self._breaker
        self._breaker = breaker.run_ended(before, key, run.state, run.error_kind, now=self._clock.monotonic())
        if before.state is self._breaker.state:
            return
        self._metrics.breaker_open.set(self._breaker.state is not BreakerState.CLOSED)
        if self._breaker.state is BreakerState.OPEN:
            pause = self._breaker.until - self._clock.monotonic()
            log.error("dispatch.breaker_open", pause_seconds=round(pause, 1), openings=self._breaker.openings)
        else:
            log.info("dispatch.breaker_closed")
        self.wake()

    async def run(self) -> None:
        """Fills the window, then sleeps until it is woken or a run becomes due; without end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervise.supervise("following the capacity", lambda: self._follow_capacity(group)))
            while True:
                self._wake.clear()
                filled, filled_ms = self._clock.monotonic(), self._clock.now_ms()
                if await self.fill(group):
                    continue
                await self._limit_due_times()
                wait = self._wait_seconds(filled, filled_ms)
                # Not asyncio.wait_for: it loses a cancellation that arrives together with the wake-up.
                self._sleeping = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                self._sleeping = False

    async def _limit_due_times(self) -> None:
        """Moves due times later than any retry pause: they were recorded before the wall clock was set back."""
        now = self._clock.monotonic()
        if now - self._due_times_checked < _MAX_SLEEP_SECONDS:
            return
        self._due_times_checked = now
        latest_ms = job.latest_due_ms(self._clock.now_ms())
        if (last_ms := await self._manifest.last_due_ms()) is not None and last_ms > latest_ms:
            runs = await self._manifest.hasten(latest_ms)
            self.demands.all_changed()
            log.warning("dispatch.clock_set_back", runs=runs, seconds=(last_ms - latest_ms) // 1000)

    def _wait_seconds(self, filled: float, filled_ms: int) -> float:
        """How long until the next retry becomes due, or the breaker probes.

        Runs that are due already wait for room, and the end of a run wakes the dispatcher.
        """
        due_ms = self.demands.next_due_ms(filled_ms)
        waits = [_MAX_SLEEP_SECONDS]
        if due_ms is not None:
            waits.append((due_ms - self._clock.now_ms()) / 1000)
        if self._breaker.until > filled:
            waits.append(self._breaker.until - self._clock.monotonic())
        return max(0.0, min(waits))

    async def fill(self, group: asyncio.TaskGroup) -> bool:
        """Claims due runs as far as there is room, and starts sending them; returns whether there were any."""
        self._breaker = breaker.at(self._breaker, self._clock.monotonic())
        if self.behind or self._submitter.held:
            return False
        room = breaker.room(self._breaker, min(self._window - self._ledger.open, BATCH), self._clock.monotonic())
        room = self._submitter.reach.room(room)
        if room <= 0:
            return False
        claimed = await self._claim(room)
        if not claimed:
            return False
        if self._breaker.state is not BreakerState.CLOSED:
            for one in claimed:
                # A run that ended while its claim was being committed is no probe: its end was reported already.
                now = self._ledger.run(one.key)
                if now is not None and not now.ended:
                    self._breaker = breaker.run_claimed(self._breaker, one.key, self._clock.monotonic())
        self._submitter.reach.runs_claimed()
        crash.point("dispatch.claimed")
        await self._batches.acquire()
        group.create_task(self._submitter.submit(claimed, self._batches.release))
        return True

    async def _claim(self, room: int) -> list[Claimed]:
        """Claims up to `room` runs, shared between the experiments."""
        claimed: list[Claimed] = []
        while room > 0 and (shares := await self.demands.shares(room)):
            found = [Claimed.of(*claim) for claim in await self._ledger.claims.claim(shares)]
            claimed += found
            if self.demands.claimed(shares, Counter(one.live.key for one in found)):
                break
            room -= len(found)
        return claimed

    async def _follow_capacity(self, group: asyncio.TaskGroup) -> None:
        """Sets the run window, unless it is configured, and the model version to what the orchestrator reports.

        While the orchestrator is away its slots stay as reported. Its version is unknown, because it may come back with
        another one.
        """
        reported = False
        async for capacity in self._orchestrator.capacity():
            self._reports += 1
            if capacity is not None:
                reported = True
                self._resize(capacity.slots if capacity.slots > 0 else _DEFAULT_WINDOW)
                self._set_version(capacity.model_version)
            elif not reported and self._orchestrator.ready():
                self._assume_defaults()
            else:
                self._set_version(None)
                group.create_task(self._assume_defaults_later(self._reports))

    async def _assume_defaults_later(self, reports: int) -> None:
        """Waits until the orchestrator is reachable and has had time for a report; assumes defaults if none came."""
        while not self._orchestrator.ready():  # noqa: ASYNC110 - the state of a channel can only be polled
            await asyncio.sleep(_READY_POLL_SECONDS)
        await asyncio.sleep(_REPORT_SECONDS)
        if reports == self._reports:
            self._assume_defaults()

    def _assume_defaults(self) -> None:
        """Uses the default window, unless one is known, and no version: the orchestrator reports neither."""
        if not self._window:
            self._resize(_DEFAULT_WINDOW)
        self._set_version("")

    def _set_version(self, reported: str | None) -> None:
        if reported == self._versions.reported:
            return
        log.info("dispatch.model_version", version=reported, before=self._versions.reported)
        self._versions.reported = reported
        self.demands.all_changed()
        self.wake()

    def _resize(self, slots: int) -> None:
        if slots != self._window and not self._fixed:
            log.info("dispatch.window", runs=slots, before=self._window)
            self._window = slots
            self._metrics.run_window.set(slots)
            self.wake()
