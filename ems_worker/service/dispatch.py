"""Recorded -> submitted: due runs are claimed, sent to the orchestrator, and its answers recorded.

A run is on disk as submitting before its command leaves. An answer that leaves open whether the command arrived sends
it again under the same id, later; so does a restart.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from ems_worker.core import experiment, ids, schedule
from ems_worker.core.outcome import Answer, Outcome
from ems_worker.core.records import PointRecord
from ems_worker.core.run import ErrorKind, Run, RunEvent, Signal
from ems_worker.core.wire import Start
from ems_worker.service.clock import Clock
from ems_worker.service.ledger import Ledger
from ems_worker.service.live import Live, RunKey
from ems_worker.service.metrics import Metrics
from ems_worker.service.ports import Manifest, Orchestrator

log = structlog.get_logger()

# Runs claimed together: a commit each, and enough for a batch call.
BATCH = 256
# Batches on their way at once: while one waits for answers the next is claimed.
BATCHES = 3
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0


class Dispatcher:
    """Keeps the run window full. `halted` holds the orchestrator's words while it refuses all submissions."""

    def __init__(
        self,
        ledger: Ledger,
        manifest: Manifest,
        orchestrator: Orchestrator,
        clock: Clock,
        metrics: Metrics,
        window: int | None,
        default_window: int = 256,
    ) -> None:
        """`window`: runs open at once; None: the orchestrator's slots, and `default_window` until it tells them."""
        self._ledger = ledger
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._clock = clock
        self._metrics = metrics
        self._fixed = window is not None
        self._window = window if window is not None else default_window
        self._default = default_window
        self._wake = asyncio.Event()
        self._batches = asyncio.Semaphore(BATCHES)
        self._troubles = 0
        self.halted: str | None = None
        metrics.run_window.set(self._window)

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def run(self) -> None:
        """For ever: fills the window, then sleeps until woken or until the next retry falls due."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_capacity())
            while True:
                self._wake.clear()
                looked_ms = self._clock.now_ms()
                if await self._fill(group):
                    continue
                # What is due already waits for room in the window, and every end of a run wakes us.
                due_ms = await self._manifest.next_due_ms(looked_ms)
                wait = None if due_ms is None else max(0.0, (due_ms - self._clock.now_ms()) / 1000)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)

    async def resend(self, runs: Sequence[tuple[Live, Run]]) -> None:
        """Sends runs again that may or may not have arrived: what recovery found in submitting."""
        for start in range(0, len(runs), BATCH):
            part = runs[start : start + BATCH]
            points = {live.key: await self._points(live, [run for one, run in part if one is live]) for live, _ in part}
            await self._submit([(live, run, points[live.key][run.point]) for live, run in part])

    async def _points(self, live: Live, runs: Sequence[Run]) -> dict[int, PointRecord]:
        return dict(await self._manifest.points_by_number(live.key, sorted({run.point for run in runs})))

    async def _fill(self, group: asyncio.TaskGroup) -> bool:
        """Claims what the window has room for and sends it on its way; whether that was anything."""
        if self.halted is not None or self._troubles:
            return False
        room = min(self._window - self._ledger.open, BATCH)
        if room <= 0:
            return False
        shares = schedule.allot(await self._demands(room), room)
        claimed: list[tuple[Live, Run, PointRecord]] = []
        for key, share in shares.items():
            live = self._ledger.experiments[key]
            claimed += [(live, run, point) for run, point in await self._ledger.claim(key, share)]
        if not claimed:
            return False
        await self._batches.acquire()
        task = group.create_task(self._submit(claimed))
        task.add_done_callback(lambda _: self._batches.release())
        return True

    async def _demands(self, room: int) -> list[schedule.Demand]:
        now_ms = self._clock.now_ms()
        demands = []
        for live in list(self._ledger.experiments.values()):
            if live.record.state is experiment.ExperimentState.RUNNING and not live.doomed:
                due = await self._manifest.due_count(live.key, now_ms, room)
                demands.append(schedule.Demand(live.key, live.open, due, live.plan.limits.max_concurrent))
        return demands

    async def _submit(self, runs: Sequence[tuple[Live, Run, PointRecord]]) -> None:
        """Sends commands until each has an answer that settles it."""
        waiting = {_name(live, run): (live, run, point) for live, run, point in runs}
        pause = _FIRST_PAUSE_SECONDS
        in_trouble = False
        try:
            while waiting:
                answers = await self._start([_command(*one) for one in waiting.values()])
                settled = {answer.simulation_id: answer for answer in answers if _settles(answer)}
                await self._settle([(waiting.pop(name)[:2], answer) for name, answer in settled.items()])
                if not waiting:
                    break
                if not in_trouble:
                    # Nothing new is claimed while commands can't be delivered.
                    in_trouble = True
                    self._troubles += 1
                self._tell(next(answer for answer in answers if not _settles(answer)))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                waiting = self._still_open(waiting)
        finally:
            if in_trouble:
                self._troubles -= 1
        if in_trouble:
            self.halted = None
            log.info("dispatch.recovered")
        self.wake()

    def _still_open(
        self, waiting: dict[str, tuple[Live, Run, PointRecord]]
    ) -> dict[str, tuple[Live, Run, PointRecord]]:
        """Without those that events have moved on meanwhile."""
        kept = {}
        for name, (live, run, point) in waiting.items():
            job = self._ledger.jobs.get((live.key, run.point, run.replicate))
            if job is not None and job.attempt(run.attempt).state is run.state:
                kept[name] = (live, run, point)
        return kept

    async def _start(self, commands: Sequence[Start]) -> Sequence[Answer]:
        before = self._clock.monotonic()
        answers = await self._orchestrator.start(commands)
        self._metrics.start_seconds.observe(self._clock.monotonic() - before)
        for answer in answers:
            self._metrics.starts.labels(answer.outcome.value).inc()
        return answers

    async def _settle(self, answers: Sequence[tuple[tuple[Live, Run], Answer]]) -> None:
        signals: list[tuple[RunKey, Signal]] = []
        for (live, run), answer in answers:
            if answer.outcome is Outcome.REFUSED:
                words = f"{answer.code}: {answer.message}"
                log.warning("run.refused", simulation_id=answer.simulation_id, code=answer.code, words=answer.message)
                signal = Signal(RunEvent.REFUSE, ErrorKind.REFUSED, words, retryable=False)
            else:
                signal = Signal(RunEvent.ACCEPT)
            signals.append(((live.key, run.point, run.replicate, run.attempt), signal))
        if signals:
            await self._ledger.hear(signals)

    def _tell(self, answer: Answer) -> None:
        """Logs trouble once when it begins or changes, not once a run."""
        words = f"{answer.code}: {answer.message}"
        if answer.outcome is Outcome.HALT and self.halted != words:
            self.halted = words
            log.error("dispatch.halted", code=answer.code, words=answer.message)
        elif answer.outcome is not Outcome.HALT:
            log.warning("dispatch.delayed", code=answer.code, words=answer.message)

    async def _follow_capacity(self) -> None:
        """The run window is what the orchestrator says it has slots for, unless it was set."""
        async for capacity in self._orchestrator.capacity():
            if self._fixed:
                continue
            slots = capacity.slots if capacity is not None and capacity.slots > 0 else self._default
            if slots != self._window:
                log.info("dispatch.window", runs=slots, before=self._window)
                self._window = slots
                self._metrics.run_window.set(slots)
                self.wake()


def _settles(answer: Answer) -> bool:
    return answer.outcome in (Outcome.SUBMITTED, Outcome.REFUSED)


def _name(live: Live, run: Run) -> str:
    return ids.simulation_id(live.experiment_id, run.point, run.replicate, run.attempt)


def _command(live: Live, run: Run, point: PointRecord) -> Start:
    name = _name(live, run)
    return Start(
        simulation_id=name,
        config=live.template.render(point.params, run.seed, name),
        config_sha=run.config_sha or live.template.config_sha(point.params, run.seed),
        seed=run.seed,
        experiment_id=live.experiment_id,
        labels={**live.plan.labels, **(point.labels or {})},
    )
