"""Recorded -> submitted: due runs are claimed within the run window and handed to the submitter.

A run is on disk as submitting before its command leaves.
"""

import asyncio
import contextlib

import structlog

from ems_worker.core.lifecycle import breaker, job, schedule
from ems_worker.core.lifecycle.breaker import Breaker, BreakerState
from ems_worker.core.lifecycle.run import Run
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Manifest, Orchestrator
from ems_worker.service.base.supervise import supervise
from ems_worker.service.base.versions import Versions
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import RunKey
from ems_worker.service.reach import Claimed
from ems_worker.service.submit import BATCH, Submitter

log = structlog.get_logger()

# Batches on their way at once: while one waits for answers the next is claimed.
BATCHES = 3
_DEFAULT_WINDOW = 256
# How long after it came up an orchestrator may take to tell its slots before it counts as one that doesn't.
_TELL_SECONDS = 8.0
_LOOK_SECONDS = 0.2
# The longest sleep: when the wall clock is set, what is due is found after this time.
_LONGEST_SLEEP_SECONDS = 5.0


class Dispatcher:
    """Keeps the run window full, while commands get through, events are up to date, and the breaker is closed."""

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
        """`window`: runs open at once; None: the orchestrator's slots, and 256 if it doesn't tell them.

        `versions` is kept up to date here.
        """
        self._ledger = ledger
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._submitter = submitter
        self._clock = clock
        self._metrics = metrics
        self._fixed = window is not None
        # 0 until the orchestrator told its slots, or turned out not to: else a start would flood a small one.
        self._window = window or 0
        self._versions = versions
        # How often the orchestrator told its capacity, or stopped telling it.
        self._words = 0
        self._wake = asyncio.Event()
        self._batches = asyncio.Semaphore(BATCHES)
        self._breaker = Breaker()
        self._hastened = float("-inf")
        # Whether it sleeps until something happens.
        self.idle = False
        # Set while more events wait than a batch: what they say comes before new submissions.
        self.behind = True
        metrics.run_window.set(self._window)

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def set_behind(self, behind: bool) -> None:
        """Whether more events wait than the tracker takes in one batch."""
        if self.behind and not behind:
            self.wake()
        self.behind = behind

    @property
    def window(self) -> int:
        """Runs that may be open at once; 0 until the orchestrator told, or turned out not to."""
        return self._window

    @property
    def breaker_reason(self) -> str | None:
        """Why nothing new is started although there is room, in words; None while it is."""
        if self._breaker.state is BreakerState.CLOSED:
            return None
        return "paused: most of the last runs failed for infrastructure reasons; probing until one goes well"

    def ended(self, key: RunKey, one: Run) -> None:
        """Hears of each run that ends."""
        before = self._breaker
        self._breaker = breaker.heard(before, key, one.state, one.error_kind, self._clock.monotonic())
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
        """For ever: fills the window, then sleeps until woken or until something falls due."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervise("following the capacity", lambda: self._follow_capacity(group)))
            while True:
                self._wake.clear()
                looked, looked_ms = self._clock.monotonic(), self._clock.now_ms()
                if await self.fill(group):
                    continue
                await self._hasten()
                wait = await self._wait_seconds(looked, looked_ms)
                # Not asyncio.wait_for: where the wake and a cancellation meet, it loses the cancellation.
                self.idle = not self._wake.is_set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                self.idle = False

    async def _hasten(self) -> None:
        """Has nothing wait longer than any retry does: what does was recorded before the wall clock was set back."""
        now = self._clock.monotonic()
        if now - self._hastened < _LONGEST_SLEEP_SECONDS:
            return
        self._hastened = now
        latest_ms = job.latest_due_ms(self._clock.now_ms())
        if (last_ms := await self._manifest.last_due_ms()) is not None and last_ms > latest_ms:
            runs = await self._manifest.hasten(latest_ms)
            log.warning("dispatch.clock_set_back", runs=runs, seconds=(last_ms - latest_ms) // 1000)

    async def _wait_seconds(self, looked: float, looked_ms: int) -> float:
        """Until the next retry falls due, or the breaker probes. What is due already waits for room: ends wake us."""
        due_ms = await self._manifest.next_due_ms(looked_ms)
        waits = [_LONGEST_SLEEP_SECONDS]
        if due_ms is not None:
            waits.append((due_ms - self._clock.now_ms()) / 1000)
        if self._breaker.until > looked:
            waits.append(self._breaker.until - self._clock.monotonic())
        return max(0.0, min(waits))

    async def fill(self, group: asyncio.TaskGroup) -> bool:
        """Claims what there is room for and sends it on its way; whether that was anything."""
        self._breaker = breaker.turned(self._breaker, self._clock.monotonic())
        if self.behind:
            return False
        room = breaker.room(self._breaker, min(self._window - self._ledger.open, BATCH), self._clock.monotonic())
        room = self._submitter.reach.room(room)
        if room <= 0:
            return False
        shares = schedule.allot(await self._demands(room), room)
        claimed: list[Claimed] = []
        for key, share in shares.items():
            if (live := self._ledger.get(key)) is not None:
                claimed += [(live, run, point) for run, point in await self._ledger.claim(key, share)]
        if not claimed:
            return False
        for live, one, _ in claimed:
            name = (live.key, one.point, one.replicate, one.attempt)
            # Not one that has ended while its claim was on its way to the disk: its end won't be heard again.
            open_run = self._ledger.run(name)
            if open_run is not None and not open_run.ended:
                self._breaker = breaker.claimed(self._breaker, name, self._clock.monotonic())
        self._submitter.reach.claimed()
        crash.point("dispatch.claimed")
        await self._batches.acquire()
        group.create_task(self._submitter.submit(claimed, self._batches.release))
        return True

    async def _demands(self, room: int) -> list[schedule.Demand]:
        going = [
            live
            for live in self._ledger.experiments()
            if live.starts_runs and self._versions.waiting(live.plan) is None
        ]
        # One query for all of them: this is asked whenever a run makes room.
        due = await self._manifest.due_counts([live.key for live in going], self._clock.now_ms(), room)
        return [
            schedule.Demand(
                live.key, live.open, due[live.key], live.plan.limits.max_concurrent, live.plan.limits.priority
            )
            for live in going
        ]

    async def _follow_capacity(self, group: asyncio.TaskGroup) -> None:
        """The run window is what the orchestrator says it has slots for, unless it was set; and its model's version.

        One that is away keeps the slots that it told: it will have them when it is back. Its version it may not have.
        """
        told = False
        async for capacity in self._orchestrator.capacity():
            self._words += 1
            if capacity is not None:
                told = True
                self._resize(capacity.slots if capacity.slots > 0 else _DEFAULT_WINDOW)
                self._hear_version(capacity.model_version)
            elif not told and self._orchestrator.ready():
                self._assume()
            else:
                self._hear_version(None)
                group.create_task(self._assume_later(self._words))

    async def _assume_later(self, words: int) -> None:
        """Gives an orchestrator that is away some time to tell its capacity, once it is there."""
        while not self._orchestrator.ready():  # noqa: ASYNC110 - a channel's state is asked for, it doesn't tell
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(_TELL_SECONDS)
        if words == self._words:
            self._assume()

    def _assume(self) -> None:
        """The orchestrator is there and doesn't tell."""
        if not self._window:
            self._resize(_DEFAULT_WINDOW)
        self._hear_version("")

    def _hear_version(self, told: str | None) -> None:
        if told == self._versions.told:
            return
        log.info("dispatch.model_version", version=told, before=self._versions.told)
        self._versions.told = told
        self.wake()

    def _resize(self, slots: int) -> None:
        if slots != self._window and not self._fixed:
            log.info("dispatch.window", runs=slots, before=self._window)
            self._window = slots
            self._metrics.run_window.set(slots)
            self.wake()
