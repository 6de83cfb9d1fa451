"""What the checks of an orchestrator share: the connections, the runs that they started, and waiting for them."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from ems_worker.conformance import bus, calls, check, configurations, messages
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

LARGE_BYTES = 3 * 1024 * 1024
CONNECT_SECONDS = 4.0
# How long the kit waits for a run's start event before it assumes that the run has started. It waits less if the
# orchestrator doesn't publish start events.
_STARTED_SECONDS = 5.0
_UNREPORTED_SECONDS = 0.5
# After this time without an event, no repeated one is expected.
_QUIET_SECONDS = 0.3
_CONTROL_SECONDS = 30.0
_SEED = 42
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Options:
    """The orchestrator to check, and how.

    `short` and `long` are the configurations of runs that complete at once and after some seconds. `timeout` is how
    many seconds a run, and everything else that a check waits for, may take. `restart` and `restart_broker` stop the
    orchestrator or the broker and start it again, and `restart_in_order` does so with an orderly shutdown; they raise
    check.Failed if they can't. `only` names the checks to run; if it is empty, all checks run.
    """

    orchestrator: str
    server: str
    short: bytes = configurations.SHORT
    long: bytes = configurations.LONG
    timeout: float = check.TIMEOUT_SECONDS
    restart: Callable[[], Awaitable[None]] | None = None
    restart_in_order: Callable[[], Awaitable[None]] | None = None
    restart_broker: Callable[[], Awaitable[None]] | None = None
    only: frozenset[str] = frozenset()


@dataclass(slots=True)
class Session:
    """A session with an orchestrator. Its runs have new ids, so that the kit can check an orchestrator repeatedly."""

    options: Options
    rpc: calls.Calls
    bus: bus.Bus
    experiment_id: str
    accepted: dict[str, pb.StartSimulationCommand] = field(default_factory=dict)
    busy_before: int = 0
    open_at_restart: set[str] = field(default_factory=set)
    _points: int = 0
    _ended: str = ""

    def new_id(self) -> str:
        """An id that the orchestrator doesn't know yet."""
        self._points += 1
        return f"{self.experiment_id}-p{self._points:06d}-r000-a1"

    def command(self, config: bytes | None = None) -> pb.StartSimulationCommand:
        """The command that starts a new run, by default with the short configuration."""
        config = self.options.short if config is None else config
        return pb.StartSimulationCommand(
            simulation_id=self.new_id(),
            config=config,
            config_content_type=configurations.CONTENT_TYPE,
            config_sha=hashlib.sha256(config + str(_SEED).encode()).hexdigest(),
            rng_seed=_SEED,
            experiment_id=self.experiment_id,
            labels={"by": "ems-conformance"},
        )

    async def begin(self, command: pb.StartSimulationCommand) -> str:
        """Starts a new run, which must be accepted, and returns its id."""
        reply = await self.rpc.start(command)
        check.require(reply.code == calls.ACCEPTED, f"a new run was answered {reply} instead of ACCEPTED")
        self.accepted[command.simulation_id] = command
        return command.simulation_id

    async def begin_long(self) -> pb.StartSimulationCommand:
        """Starts a run that takes some seconds, and returns once its start event came, or should have come."""
        await self.ended()
        starts_reported = any(event.kind == messages.STARTED for event in self.bus.stored)
        command = self.command(self.options.long)
        name = await self.begin(command)
        seconds = _STARTED_SECONDS if starts_reported else _UNREPORTED_SECONDS
        await self.bus.until(lambda: bool(self.bus.events_of(name)), seconds)
        return command

    def require_open(self, simulation_id: str) -> None:
        """Raises Skipped if a long run has ended already."""
        if any(event.is_end for event in self.bus.events_of(simulation_id)):
            raise check.Skipped("the run ended too early for this check: give --long-config a run of some seconds")

    async def end_of(self, simulation_id: str) -> messages.Event:
        """The event that reports the end of this run. Raises Failed if it doesn't come in time."""
        await self.ends_of([simulation_id])
        return next(event for event in self.bus.events_of(simulation_id) if event.is_end)

    async def ends_of(self, simulation_ids: Collection[str]) -> None:
        """Returns once these runs have ended. Raises Failed if the event of an end doesn't come in time."""

        def open_runs() -> set[str]:
            return set(simulation_ids) - {event.simulation_id for event in self.bus.stored if event.is_end}

        if not await self.bus.until(lambda: not open_runs(), self.options.timeout):
            raise check.Failed(
                f"{', '.join(sorted(open_runs()))} was accepted, but neither {messages.COMPLETED} nor "
                f"{messages.FAILED} of it was stored within {self.options.timeout:g} s"
            )

    async def ended(self) -> pb.StartSimulationCommand:
        """The command of a run that has ended; always the same run."""
        if not self._ended:
            name = await self.begin(self.command())
            await self.end_of(name)
            self._ended = name
        return self.accepted[self._ended]

    async def settled(self) -> None:
        """Returns once a run has ended and no more events come, repeated ones included."""
        await self.ended()
        await self.bus.quiet(_QUIET_SECONDS, self.options.timeout)

    async def dismiss(self, simulation_id: str) -> None:
        """Stops a long run that is no longer needed. If STOP isn't implemented, the run continues to its end."""
        await self.rpc.control(simulation_id, pb.CONTROL_ACTION_STOP, _CONTROL_SECONDS)

    async def stop(self, simulation_id: str) -> tuple[pb.ControlSimulationResponse | None, str, str]:
        """STOP. Raises Skipped if it isn't implemented."""
        return await self.control(simulation_id, pb.CONTROL_ACTION_STOP)

    async def control(
        self, simulation_id: str, action: pb.ControlAction.ValueType
    ) -> tuple[pb.ControlSimulationResponse | None, str, str]:
        """STOP, PAUSE or RESUME. Raises Skipped if it isn't implemented."""
        response, code, message = await self.rpc.control(simulation_id, action, _CONTROL_SECONDS)
        named = pb.ControlAction.Name(action).removeprefix("CONTROL_ACTION_")
        optional("ControlSimulation" if action == pb.CONTROL_ACTION_STOP else named, code)
        return response, code, message

    async def reachable(self) -> calls.Reply:
        """The reply to the start of an ended run, once both connections work again. Raises Failed if they don't."""
        known = await self.ended()
        deadline = time.monotonic() + self.options.timeout
        while (reply := await self.rpc.start(known)).code in _AWAY:
            check.require(time.monotonic() < deadline, "the orchestrator is not back in time")
            await asyncio.sleep(0.1)
        back = await self.bus.until(lambda: self.bus.connected, self.options.timeout)
        check.require(back, "the broker is not back in time")
        return reply


def optional(call: str, code: str) -> None:
    """Raises Skipped if the status code says that the call isn't implemented."""
    if code == calls.UNIMPLEMENTED:
        raise check.Skipped(f"{call} is not implemented; it is optional")
