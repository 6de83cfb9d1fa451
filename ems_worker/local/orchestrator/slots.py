"""Gives free slots to queued runs, in the order of arrival, and carries every run through to its end."""

import asyncio
import collections
import dataclasses
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from ems_worker.local.orchestrator import events, model, simulation
from ems_worker.local.orchestrator.store import Store

log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class _Live:
    """A run in a slot. `cause` is set before its processes are ended; it then replaces the meaning of the exit code."""

    processes: simulation.Simulation
    cause: model.RunEnd | None = None
    ended: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


STOPPED = model.RunEnd(model.ErrorKind.STOPPED, message="stopped by STOP", retryable=False)
SHUT_DOWN = model.RunEnd(
    model.ErrorKind.INFRASTRUCTURE, message="the orchestrator was shut down while this ran", retryable=True
)


class Slots:
    """Runs simulations, at most `count` at once."""

    def __init__(
        self,
        store: Store,
        *,
        count: int,
        directory: Path,
        command: simulation.Command,
        model_version: str,
        stop_grace_seconds: float,
        on_event: Callable[[], None],
    ) -> None:
        self._store = store
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
        """The capacity now."""
        return model.Capacity(self._count, len(self._live), len(self._queue))

    async def capacity_after(self, seen: model.Capacity) -> model.Capacity:
        """Waits until the capacity differs from `seen`; returns it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.capacity != seen)
            return self.capacity

    async def enqueue(self, simulation_ids: Iterable[str]) -> None:
        """Adds runs to the queue; they are stored as queued already."""
        self._queue.extend(simulation_ids)
        await self._notify()

    async def run(self) -> None:
        """Continues the runs of an earlier orchestrator, then fills slots as they become free, until `close`."""
        async with asyncio.TaskGroup() as group:
            for run in await self._store.open_runs():
                if run.state is model.State.QUEUED:
                    self._queue.append(run.simulation_id)
                else:
                    live = self._occupy(run.simulation_id)
                    group.create_task(self._carry_through(live, run))
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
        """Ends all running runs and starts no others. Queued runs stay queued for the next orchestrator."""
        self._open = False
        await self._notify()
        await asyncio.gather(*(self._end(live, SHUT_DOWN) for live in list(self._live.values())))

    async def stop(self, simulation_id: str) -> None:
        """Stops a run; returns when its processes are gone and its end is stored."""
        live = self._live.get(simulation_id)
        if live is not None and live.processes.exit_code() is not None:
            await live.ended.wait()  # the simulation has ended on its own: that result stands
            return
        if not await self._store.request_stop(simulation_id):
            return
        live = self._live.get(simulation_id)
        if live is not None:
            await self._end(live, STOPPED)
        elif simulation_id in self._queue:
            self._queue.remove(simulation_id)
            for run in (await self._store.get([simulation_id])).values():
                await self._finish(run, STOPPED, time.time_ns())
            await self._notify()

    async def pause(self, simulation_id: str) -> bool:
        """Suspends the processes of a run, which keeps its slot. False if the run isn't running."""
        live = self._live.get(simulation_id)
        if live is None or not await self._store.pause(simulation_id):
            return False
        live.processes.signal(signal.SIGSTOP)
        return True

    async def resume(self, simulation_id: str) -> bool:
        """Resumes the processes of a paused run. False if the run isn't paused."""
        live = self._live.get(simulation_id)
        if live is None or not await self._store.resume(simulation_id):
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
        run = await self._store.begin(simulation_id)
        if run is not None:
            await self._carry_through(live, run)

    async def _carry_through(self, live: _Live, run: model.LocalRun) -> None:
        """Takes the run from its present state to its stored end, and frees the slot."""
        not_started = None
        if run.state is model.State.STARTING:
            order = await self._store.order(run.simulation_id)
            if run.stop_requested and live.cause is None:
                live.cause = STOPPED
            not_started = self._launch(live, order)
            if not_started is None:
                run = await self._started(live, run)
        elif live.processes.forbid():
            log.warning("run.vanished", simulation_id=run.simulation_id)
        await live.processes.ended()
        await self._finish(run, live.cause or not_started or live.processes.end(), live.processes.finished_ns())
        del self._live[run.simulation_id]
        live.ended.set()
        await self._notify()

    def _launch(self, live: _Live, order: model.Order) -> model.RunEnd | None:
        """Starts the simulation. Returns how the run ends if it can't be started or is no longer to be."""
        if live.cause is None:
            try:
                live.processes.launch(self._command, order)
            except OSError as failed:
                message = f"the simulation can't be started: {failed}"
                return model.RunEnd(model.ErrorKind.INFRASTRUCTURE, message=message)
            return None
        # A wrapper of an earlier orchestrator may have claimed the directory: then the run has started, and is ended
        # like any other.
        return live.cause if live.processes.forbid() else None

    async def _started(self, live: _Live, run: model.LocalRun) -> model.LocalRun:
        claim = live.processes.claim()  # may be that of a wrapper of an earlier orchestrator
        started_ns = claim.made_ns if claim is not None else time.time_ns()
        run = dataclasses.replace(
            run, state=model.State.RUNNING, started_ns=started_ns, model_version=self._model_version
        )
        await self._store.started(run, events.started(run))
        self._on_event()
        return run

    async def _finish(self, run: model.LocalRun, end: model.RunEnd, finished_ns: int) -> None:
        # The clock of file times is coarser than ours; max() keeps a run from ending before it started.
        run = dataclasses.replace(run, state=end.state, end=end, finished_ns=max(finished_ns, run.started_ns))
        await self._store.end(run, events.ended(run))
        self._on_event()
        if end.error_kind is not None:
            log.info(
                "run.failed", simulation_id=run.simulation_id, error_kind=end.error_kind.value, message=end.message
            )

    async def _end(self, live: _Live, cause: model.RunEnd) -> None:
        """Ends the processes of a run by SIGTERM, then by SIGKILL; returns when the end of the run is stored."""
        live.cause = live.cause or cause
        live.processes.signal(signal.SIGTERM)
        live.processes.signal(signal.SIGCONT)  # a suspended process doesn't handle SIGTERM
        try:
            async with asyncio.timeout(self._grace):
                await live.ended.wait()
        except TimeoutError:
            live.processes.signal(signal.SIGKILL)
            await live.ended.wait()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
