"""Gives free slots to queued runs, in the order of arrival, and frees the slots of those that have ended."""

import asyncio
import collections
import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from ems_worker.local.orchestrator import carrier, model, simulation
from ems_worker.local.orchestrator.carrier import Live
from ems_worker.local.orchestrator.simulators import Simulators
from ems_worker.local.orchestrator.store import Store

log = structlog.get_logger()


class Slots:
    """Runs simulations, at most `count` at once. `recover` comes first, then `run`."""

    def __init__(
        self,
        store: Store,
        *,
        count: int,
        host: str,
        directory: Path,
        simulators: Simulators,
        stop_grace_seconds: float,
        on_event: Callable[[], None],
    ) -> None:
        self._store = store
        self._count = count
        self._host = host
        self._directory = directory
        self._carrier = carrier.Carrier(
            store,
            simulators=simulators,
            stop_grace_seconds=stop_grace_seconds,
            on_event=on_event,
        )
        self._queue: collections.deque[str] = collections.deque()
        self._live: dict[str, Live] = {}
        self._adopted: list[tuple[Live, model.LocalRun]] = []
        self._open = True
        self._changed = asyncio.Condition()

    @property
    def closing(self) -> bool:
        """Whether `close` has been called: no run is accepted any more."""
        return not self._open

    @property
    def capacity(self) -> model.Capacity:
        """The capacity now."""
        return model.Capacity(self._count, len(self._live), len(self._queue))

    async def capacity_after(self, seen: model.Capacity) -> model.Capacity:
        """Waits until the capacity differs from `seen`; returns it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.capacity != seen)
            return self.capacity

    def running(self) -> list[tuple[model.LocalRun, Path]]:
        """The runs whose processes have started, each with its output directory."""
        return [(live.run, live.processes.output) for live in self._live.values() if live.run is not None]

    async def enqueue(self, simulation_ids: Iterable[str]) -> None:
        """Adds runs to the queue; they are stored as queued already."""
        self._queue.extend(simulation_ids)
        await self._notify()

    async def recover(self) -> None:
        """Takes over the runs of an earlier orchestrator. Those that its shutdown interrupted go back to the queue."""
        restarted = 0
        for run in await self._store.open_runs():
            if run.interrupted and not run.stop_requested:
                await self._restart(run)
                restarted += 1
                if run.state is not model.State.PAUSED:
                    self._queue.append(run.simulation_id)
            elif run.state is model.State.QUEUED:
                self._queue.append(run.simulation_id)
            elif run.state is not model.State.HELD:
                live = self._occupy(run.simulation_id, run.slot)
                self._adopted.append((live, run))
                # A crash may have come between the record and the signal.
                if run.state is model.State.PAUSED:
                    live.processes.signal(signal.SIGSTOP)
                elif run.state is model.State.RUNNING:
                    live.processes.signal(signal.SIGCONT)
            elif run.stop_requested:
                await self._carrier.finish(run, carrier.STOPPED, time.time_ns())
        if restarted:
            log.info("runs.restarted", runs=restarted)

    async def run(self) -> None:
        """Continues the adopted runs, then fills slots as they become free, until `close`."""
        async with asyncio.TaskGroup() as group:
            for live, run in self._adopted:
                group.create_task(self._carry_through(live, run))
                if run.stop_requested:
                    live.cause = carrier.STOPPED
                    group.create_task(self._carrier.end(live))
            await self._notify()
            while self._open:
                while self._startable:
                    simulation_id = self._queue.popleft()
                    group.create_task(self._begin(self._occupy(simulation_id), simulation_id))
                await self._notify()
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._open or self._startable)

    async def close(self) -> None:
        """Ends all running runs and starts no others.

        The next orchestrator starts the interrupted ones again, after those that wait in the queue before them. A run
        that has ended by itself, or is being stopped, ends as usual.
        """
        self._open = False
        interrupted = {
            simulation_id: live
            for simulation_id, live in self._live.items()
            if live.cause is None and live.processes.exit_code() is None
        }
        for live in interrupted.values():
            live.interrupted = True
        await self._store.interrupt(interrupted)
        await self._notify()
        ending = [self._carrier.end(live) for live in interrupted.values()]
        await asyncio.gather(*ending, *(live.ended.wait() for live in list(self._live.values())))

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
            live.cause = live.cause or carrier.STOPPED
            await self._carrier.end(live)
            return
        with contextlib.suppress(ValueError):
            self._queue.remove(simulation_id)
        for run in (await self._store.get([simulation_id])).values():
            if run.state in (model.State.QUEUED, model.State.HELD):
                await self._carrier.finish(run, carrier.STOPPED, time.time_ns())
        await self._notify()

    async def pause(self, simulation_id: str) -> bool:
        """Suspends the processes of a run, which keeps its slot, or takes a run out of the queue.

        False if the run is neither running nor queued.
        """
        live = self._live.get(simulation_id)
        if live is not None:
            await live.settled.wait()
            if not await self._store.pause(simulation_id):
                return False
            live.processes.signal(signal.SIGSTOP)
            return True
        if simulation_id not in self._queue:
            return False
        self._queue.remove(simulation_id)
        held = await self._store.hold(simulation_id)
        await self._notify()
        return held

    async def resume(self, simulation_id: str) -> bool:
        """Resumes the processes of a paused run, or puts it back at the end of the queue. False if it isn't paused."""
        live = self._live.get(simulation_id)
        if live is not None:
            if not await self._store.resume(simulation_id):
                return False
            live.processes.signal(signal.SIGCONT)
            return True
        if not await self._store.release(simulation_id):
            return False
        await self.enqueue([simulation_id])
        return True

    @property
    def _startable(self) -> bool:
        return bool(self._queue) and len(self._live) < self._count

    def _occupy(self, simulation_id: str, slot: str = "") -> Live:
        """Gives the run a slot: this one, or else the free one with the lowest number."""
        taken = {live.slot for live in self._live.values()}
        number = int(slot) if slot else next(number for number in itertools.count(1) if number not in taken)
        live = self._live[simulation_id] = Live(number, simulation.Simulation(self._directory / simulation_id))
        return live

    async def _restart(self, run: model.LocalRun) -> None:
        """Puts an interrupted run back, as if it had never started."""
        processes = simulation.Simulation(self._directory / run.simulation_id)
        # The earlier orchestrator may have been killed during its shutdown.
        if not processes.forbid():
            processes.signal(signal.SIGKILL)
            await processes.ended()
        processes.discard()
        await self._store.restart(run.simulation_id)

    async def _begin(self, live: Live, simulation_id: str) -> None:
        live.processes.discard()  # the output of a run that had the same id more than 30 days ago
        run = await self._store.begin(simulation_id, host=self._host, slot=str(live.slot))
        if run is not None:
            await self._carry_through(live, run)
        else:
            await self._free(live, simulation_id)  # it was stopped meanwhile

    async def _carry_through(self, live: Live, run: model.LocalRun) -> None:
        await self._carrier.carry_through(live, run)
        await self._free(live, run.simulation_id)

    async def _free(self, live: Live, simulation_id: str) -> None:
        del self._live[simulation_id]
        live.settled.set()
        live.ended.set()
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
