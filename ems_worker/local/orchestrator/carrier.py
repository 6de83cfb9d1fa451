"""Carries a run that has a slot through to its end."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable

import structlog

from ems_worker.local.orchestrator import events, model, simulation
from ems_worker.local.orchestrator.command import CannotFill
from ems_worker.local.orchestrator.simulators import Prepared, Simulators
from ems_worker.local.orchestrator.store import Store

log = structlog.get_logger()

STOPPED = model.RunEnd(model.ErrorKind.STOPPED, message="stopped by STOP", retryable=False)


@dataclasses.dataclass(slots=True)
class Live:
    """A run in a slot. `run` is set once its processes have started.

    `cause` is set before its processes are ended; it then replaces the meaning of the exit code. `interrupted`: a
    shutdown ends its processes, and it starts again later. `settled`: it has started, or has ended without a start.
    """

    slot: int
    processes: simulation.Simulation
    run: model.LocalRun | None = None
    cause: model.RunEnd | None = None
    interrupted: bool = False
    settled: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    ended: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Carrier:
    """Starts, ends and judges the processes of runs, and stores what becomes of them."""

    def __init__(
        self,
        store: Store,
        *,
        simulators: Simulators,
        stop_grace_seconds: float,
        on_event: Callable[[], None],
    ) -> None:
        self._store = store
        self._simulators = simulators
        self._grace = stop_grace_seconds
        self._on_event = on_event

    async def carry_through(self, live: Live, run: model.LocalRun) -> None:
        """Takes the run from its present state to its stored end, unless a shutdown interrupts it."""
        not_started = None
        if run.state is model.State.STARTING:
            order = await self._store.order(run.simulation_id)
            if run.stop_requested and live.cause is None:
                live.cause = STOPPED
            prepared = await self._prepare(order)
            started, not_started = self._launch(live, order, prepared)
            if started:
                version = prepared.model_version if isinstance(prepared, Prepared) else ""
                run = await self._started(live, run, version)
        elif live.processes.forbid():
            log.warning("run.vanished", simulation_id=run.simulation_id)
        else:
            live.run = run
        live.settled.set()
        await live.processes.ended()
        if live.cause is not None or not live.interrupted:
            end = live.cause or not_started
            if end is None:
                end = await asyncio.to_thread(live.processes.end)
            await self.finish(run, end, live.processes.finished_ns())

    async def _prepare(self, order: model.Order) -> Prepared | model.RunEnd:
        """What to start the simulation with, or how the run ends because it can't be started."""
        try:
            return await self._simulators.prepare(order)
        except CannotFill as problem:
            return _unfillable(problem)

    def _launch(
        self, live: Live, order: model.Order, prepared: Prepared | model.RunEnd
    ) -> tuple[bool, model.RunEnd | None]:
        """Starts the simulation, unless it is no longer to be started.

        Returns whether there is a simulation, and how the run ends if it couldn't be started.
        """
        if live.cause is None and not live.interrupted:
            if isinstance(prepared, model.RunEnd):
                # An earlier orchestrator may have started it.
                return (False, prepared) if live.processes.forbid() else (True, None)
            try:
                live.processes.launch(prepared.command, order, prepared.configuration)
            except CannotFill as problem:
                return False, _unfillable(problem)
            except OSError as failed:
                message = f"the simulation can't be started: {failed}"
                return False, model.RunEnd(model.ErrorKind.INFRASTRUCTURE, message=message)
            return True, None
        # A wrapper of an earlier orchestrator may have claimed the directory: then the run has started, and is ended
        # like any other. The claim of an interrupted run stays free for its next start.
        interrupted = live.cause is None
        return live.processes.claim() is not None if interrupted else not live.processes.forbid(), None

    async def _started(self, live: Live, run: model.LocalRun, model_version: str) -> model.LocalRun:
        claim = live.processes.claim()  # may be that of a wrapper of an earlier orchestrator
        started_ns = claim.made_ns if claim is not None else time.time_ns()
        run = dataclasses.replace(run, state=model.State.RUNNING, started_ns=started_ns, model_version=model_version)
        await self._store.started(run, events.started(run))
        live.run = run
        self._on_event()
        return run

    async def finish(self, run: model.LocalRun, end: model.RunEnd, finished_ns: int) -> None:
        """Stores the end of a run whose processes are gone."""
        # The clock of file times is coarser than ours; max() keeps a run from ending before it started.
        run = dataclasses.replace(run, state=end.state, end=end, finished_ns=max(finished_ns, run.started_ns))
        await self._store.end(run, events.ended(run))
        self._on_event()
        if end.error_kind is not None:
            log.info(
                "run.failed", simulation_id=run.simulation_id, error_kind=end.error_kind.value, message=end.message
            )

    async def end(self, live: Live) -> None:
        """Ends the processes of a run by SIGTERM, then by SIGKILL; returns when the run has left its slot."""
        live.processes.signal(signal.SIGTERM)
        live.processes.signal(signal.SIGCONT)  # a suspended process doesn't handle SIGTERM
        try:
            async with asyncio.timeout(self._grace):
                await live.ended.wait()
        except TimeoutError:
            live.processes.signal(signal.SIGKILL)
            await live.ended.wait()


def _unfillable(problem: CannotFill) -> model.RunEnd:
    """The end of a run whose command line can't be filled: another attempt couldn't be either."""
    return model.RunEnd(model.ErrorKind.SIMULATION, message=str(problem), retryable=False)
