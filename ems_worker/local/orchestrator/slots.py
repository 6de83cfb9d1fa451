"""What runs now: gives free slots to queued runs, in the order of arrival, and sees every run through to its end."""

import asyncio
import collections
import dataclasses
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from ems_worker.local.orchestrator import events, model, simulation, store

log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class _Live:
    """A run in a slot. `cause` is set before we end its processes ourselves: their exit code says nothing then."""

    processes: simulation.Simulation
    cause: model.Outcome | None = None
    ended: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


STOPPED = model.Outcome(model.ErrorKind.STOPPED, message="stopped by STOP", retryable=False)
SHUT_DOWN = model.Outcome(
    model.ErrorKind.INFRASTRUCTURE, message="the orchestrator was shut down while this ran", retryable=True
)


class Slots:
    """Runs simulations, at most `count` at once."""

    def __init__(
        self,
        memory: store.Store,
        *,
        count: int,
        directory: Path,
        command: simulation.Command,
        model_version: str,
        stop_grace_seconds: float,
        on_event: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._count = count
        self._directory = directory
        self._command = command
        self._model_version = model_version
        self._grace = stop_grace_seconds
        self._on_event = on_event
        self._queue: collections.deque[str] = collections.deque()
        self._live: dict[str, _Live] = {}
        self._open = True
        self._changed = asyncio.Condition()

    @property
    def capacity(self) -> model.Capacity:
        """How full the slots are now."""
        return model.Capacity(self._count, len(self._live), len(self._queue))

    async def capacity_after(self, seen: model.Capacity) -> model.Capacity:
        """The capacity once it isn't `seen` any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.capacity != seen)
            return self.capacity

    async def enqueue(self, simulation_ids: Iterable[str]) -> None:
        """These runs are queued in the store and wait for a slot."""
        self._queue.extend(simulation_ids)
        await self._notify()

    async def run(self) -> None:
        """Goes on with what an earlier orchestrator left, then fills slots as they become free, until `close`."""
        async with asyncio.TaskGroup() as group:
            for run in await self._memory.open_runs():
                if run.state is model.State.QUEUED:
                    self._queue.append(run.simulation_id)
                else:
                    live = self._occupy(run.simulation_id)
                    group.create_task(self._see_through(live, run))
                    if run.stop_requested:
                        group.create_task(self._end(live, STOPPED))
            await self._notify()
            while self._open:
                while self._startable:
                    simulation_id = self._queue.popleft()
                    group.create_task(self._begin(self._occupy(simulation_id), simulation_id))
                await self._notify()
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._open or self._startable)

    async def close(self) -> None:
        """Starts nothing more and ends what runs; queued runs stay queued for the next orchestrator."""
        self._open = False
        await self._notify()
        await asyncio.gather(*(self._end(live, SHUT_DOWN) for live in list(self._live.values())))

    async def stop(self, simulation_id: str) -> None:
        """Ends a run as stopped; returns once its processes are gone and its end is stored."""
        live = self._live.get(simulation_id)
        if live is not None and live.processes.exit_code() is not None:
            await live.ended.wait()  # it ended by itself: that stands
            return
        if not await self._memory.request_stop(simulation_id):
            return
        live = self._live.get(simulation_id)
        if live is not None:
            await self._end(live, STOPPED)
        elif simulation_id in self._queue:
            self._queue.remove(simulation_id)
            for run in (await self._memory.get([simulation_id])).values():
                await self._finish(run, STOPPED, time.time_ns())
            await self._notify()

    async def pause(self, simulation_id: str) -> bool:
        """Holds a running run's processes; it keeps its slot. False where it isn't running."""
        live = self._live.get(simulation_id)
        if live is None or not await self._memory.pause(simulation_id):
            return False
        live.processes.signal(signal.SIGSTOP)
        return True

    async def resume(self, simulation_id: str) -> bool:
        """Lets a held run go on. False where it isn't held."""
        live = self._live.get(simulation_id)
        if live is None or not await self._memory.resume(simulation_id):
            return False
        live.processes.signal(signal.SIGCONT)
        return True

    @property
    def _startable(self) -> bool:
        return bool(self._queue) and len(self._live) < self._count

    def _occupy(self, simulation_id: str) -> _Live:
        live = _Live(simulation.Simulation(self._directory / simulation_id))
        self._live[simulation_id] = live
        return live

    async def _begin(self, live: _Live, simulation_id: str) -> None:
        run = await self._memory.begin(simulation_id)
        if run is not None:
            await self._see_through(live, run)

    async def _see_through(self, live: _Live, run: model.Run) -> None:
        """From wherever the run is to its stored end, and out of the slot."""
        failed = None
        if run.state is model.State.STARTING:
            order = await self._memory.order(run.simulation_id)
            if run.stop_requested and live.cause is None:
                live.cause = STOPPED
            failed = self._launch(live, order)
            if failed is None:
                run = await self._started(live, run)
        elif live.processes.forbid():
            log.warning("run.vanished", simulation_id=run.simulation_id)
        await live.processes.ended()
        await self._finish(run, live.cause or failed or live.processes.outcome(), live.processes.finished_ns())
        del self._live[run.simulation_id]
        live.ended.set()
        await self._notify()

    def _launch(self, live: _Live, order: model.Order) -> model.Outcome | None:
        """Starts the simulation. What it failed with where that isn't possible, or isn't wanted any more."""
        if live.cause is None:
            try:
                live.processes.launch(self._command, order)
            except OSError as failed:
                message = f"the simulation can't be started: {failed}"
                return model.Outcome(model.ErrorKind.INFRASTRUCTURE, message=message)
            return None
        # A wrapper of the orchestrator before us may be about to start it: then it has started, and is being ended.
        return live.cause if live.processes.forbid() else None

    async def _started(self, live: _Live, run: model.Run) -> model.Run:
        claim = live.processes.claim()  # an older one where an earlier orchestrator's wrapper was quicker
        started_ns = claim.made_ns if claim is not None else time.time_ns()
        run = dataclasses.replace(
            run, state=model.State.RUNNING, started_ns=started_ns, model_version=self._model_version
        )
        await self._memory.started(run, events.started(run))
        self._on_event()
        return run

    async def _finish(self, run: model.Run, outcome: model.Outcome, finished_ns: int) -> None:
        # File times come from a coarser clock than ours: no run ends before it started.
        run = dataclasses.replace(
            run, state=outcome.state, outcome=outcome, finished_ns=max(finished_ns, run.started_ns)
        )
        await self._memory.end(run, events.ended(run))
        self._on_event()
        if outcome.error_kind is not None:
            said = {"error_kind": outcome.error_kind.value, "message": outcome.message}
            log.info("run.failed", simulation_id=run.simulation_id, **said)

    async def _end(self, live: _Live, cause: model.Outcome) -> None:
        """Ends a run's processes, first asking; returns once its end is stored."""
        live.cause = live.cause or cause
        live.processes.signal(signal.SIGTERM)
        live.processes.signal(signal.SIGCONT)  # a held process gets no TERM
        try:
            async with asyncio.timeout(self._grace):
                await live.ended.wait()
        except TimeoutError:
            live.processes.signal(signal.SIGKILL)
            await live.ended.wait()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
