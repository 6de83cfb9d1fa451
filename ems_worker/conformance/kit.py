"""What the checks of an orchestrator share: its connections, the runs that they started, and waiting for them."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from ems_worker.conformance import bus, calls, check, configurations, messages
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

LARGE_BYTES = 3 * 1024 * 1024
CONNECT_SECONDS = 4.0
# How long a run may take to start before the kit goes on as if it ran; less where starts aren't told at all.
_STARTED_SECONDS = 5.0
_UNTOLD_SECONDS = 0.5
# Events of one thing come this close together.
_QUIET_SECONDS = 0.3
_STOP_SECONDS = 30.0
_SEED = 42
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Options:
    """What is checked, and with what.

    `short` and `long` are the configurations of runs that complete, at once and after some seconds. `timeout` is how
    many seconds a run, and every other thing that is waited for, may take. The two restarts end what they are about
    and start it again; they raise check.Failed where they can't. `only` names the checks that are run; all where it
    is empty.
    """

    orchestrator: str
    server: str
    short: bytes = configurations.SHORT
    long: bytes = configurations.LONG
    timeout: float = 60.0
    restart: Callable[[], Awaitable[None]] | None = None
    restart_broker: Callable[[], Awaitable[None]] | None = None
    only: frozenset[str] = frozenset()


@dataclass(slots=True)
class Kit:
    """One run of the kit. Its runs have ids of their own, so that it can be run again and again."""

    options: Options
    rpc: calls.Calls
    bus: bus.Bus
    experiment_id: str
    accepted: dict[str, pb.StartSimulationCommand] = field(default_factory=dict)
    busy_before: int = 0
    _points: int = 0
    _ended: str = ""

    def new_id(self) -> str:
        """An id that the orchestrator has never heard of."""
        self._points += 1
        return f"{self.experiment_id}-p{self._points:06d}-r000-a1"

    def command(self, config: bytes | None = None) -> pb.StartSimulationCommand:
        """A start of a new run; of the short configuration unless another is given."""
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
        """Starts a new run, which has to be accepted; its id."""
        reply = await self.rpc.start(command)
        check.require(reply.verdict == calls.ACCEPTED, f"a new run was answered {reply} instead of ACCEPTED")
        self.accepted[command.simulation_id] = command
        return command.simulation_id

    async def begin_long(self) -> pb.StartSimulationCommand:
        """Starts a run that takes a while; returns once its start was told, or should have been."""
        await self.ended()
        told = any(one.kind == messages.STARTED for one in self.bus.stored)
        command = self.command(self.options.long)
        name = await self.begin(command)
        await self.bus.until(lambda: bool(self.bus.of(name)), _STARTED_SECONDS if told else _UNTOLD_SECONDS)
        return command

    def require_open(self, simulation_id: str) -> None:
        """Raises Skipped where a long run has ended already."""
        if any(one.is_end for one in self.bus.of(simulation_id)):
            raise check.Skipped("the run had ended before it could be tried: give --long-config a run of some seconds")

    async def end_of(self, simulation_id: str) -> messages.Event:
        """The event that says that this run ended. Raises Failed where none comes in time."""
        await self.ends_of([simulation_id])
        return next(one for one in self.bus.of(simulation_id) if one.is_end)

    async def ends_of(self, simulation_ids: Collection[str]) -> None:
        """Returns once these runs have ended. Raises Failed where an end isn't told in time."""

        def open_runs() -> set[str]:
            return set(simulation_ids) - {one.simulation_id for one in self.bus.stored if one.is_end}

        if not await self.bus.until(lambda: not open_runs(), self.options.timeout):
            raise check.Failed(
                f"{', '.join(sorted(open_runs()))} was accepted, and neither {messages.COMPLETED} nor "
                f"{messages.FAILED} of it was stored within {self.options.timeout:g} s"
            )

    async def ended(self) -> pb.StartSimulationCommand:
        """The start of a run that has ended: always the same one."""
        if not self._ended:
            name = await self.begin(self.command())
            await self.end_of(name)
            self._ended = name
        return self.accepted[self._ended]

    async def settled(self) -> None:
        """Returns once there was a run, and its events have come, the repeated ones too."""
        await self.ended()
        await self.bus.quiet(_QUIET_SECONDS, self.options.timeout)

    async def dismiss(self, simulation_id: str) -> None:
        """Stops a long run that nobody needs any more, where STOP is implemented; else it runs to its end."""
        await self.rpc.stop(simulation_id, _STOP_SECONDS)

    async def stop(self, simulation_id: str) -> tuple[pb.ControlSimulationResponse | None, str, str]:
        """STOP. Raises Skipped where it isn't implemented."""
        response, code, words = await self.rpc.stop(simulation_id, _STOP_SECONDS)
        optional("ControlSimulation", code)
        return response, code, words

    async def reachable(self) -> calls.Reply:
        """The reply to the start of an ended run, once both connections work again. Raises Failed where they don't."""
        known = await self.ended()
        deadline = time.monotonic() + self.options.timeout
        while (reply := await self.rpc.start(known)).verdict in _AWAY:
            check.require(time.monotonic() < deadline, "the orchestrator is not back in time")
            await asyncio.sleep(0.1)
        back = await self.bus.until(lambda: self.bus.connected, self.options.timeout)
        check.require(back, "the broker is not back in time")
        return reply


def optional(call: str, code: str) -> None:
    """Raises Skipped where this call's answer says that it isn't implemented."""
    if code == calls.UNIMPLEMENTED:
        raise check.Skipped(f"{call} is not implemented; it is optional")
