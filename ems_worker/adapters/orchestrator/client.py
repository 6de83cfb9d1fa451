"""The implementation of `service.ports.Orchestrator` on grpc.aio."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence

from ems_worker.adapters.orchestrator import capacity, commands, status
from ems_worker.adapters.orchestrator.commands import Command
from ems_worker.adapters.orchestrator.connection import Connection
from ems_worker.adapters.orchestrator.window import AdaptiveWindow, Slot
from ems_worker.core.lifecycle import outcome
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.wire import Capacity, Control, Controlled, Start
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.settings import Channel

_Report = Callable[[Call], None]
_Wanted = Callable[[str], bool]

# An unimplemented call is tried again after this time, because the orchestrator may have been updated.
_UNIMPLEMENTED_SECONDS = 60.0
# The upper limit of patience with a call before it is set aside, as a part of its deadline.
_PATIENCE = 0.25
_STATUS_BATCH = 1000


class Orchestrator:
    """A channel to the orchestrator, with a deadline on every call.

    No method raises for what the orchestrator answers, or because it is away.
    """

    def __init__(self, channel: Channel, *, deadline_seconds: float, window: int) -> None:
        self._connection = Connection(channel, deadline_seconds=deadline_seconds, on_away=self._expect_another)
        self._deadline = deadline_seconds
        self._window = AdaptiveWindow(window)
        # The message limit that the orchestrator reported (or the default), and the one that batches must keep to,
        # which refusals since its last absence may have lowered.
        self._reported_limit = self._limit = commands.DEFAULT_LIMIT_BYTES
        self._unimplemented_until: dict[str, float] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, address: str | Channel, *, deadline_seconds: float = 10.0, window: int = 64
    ) -> AsyncIterator["Orchestrator"]:
        """A client for the duration of the `async with`. It connects, and reconnects, by itself.

        `window` limits the calls that are open at once, `deadline_seconds` the duration of each call. Raises
        SettingsError for files that can't be used, and for plaintext that isn't allowed.
        """
        channel = address if isinstance(address, Channel) else Channel(address)
        client = cls(channel, deadline_seconds=deadline_seconds, window=window)
        client.ready()
        try:
            yield client
        finally:
            await client._connection.close()

    def ready(self) -> bool:
        """Whether the orchestrator is connected now; if it isn't, starts connecting."""
        return self._connection.ready()

    @property
    def away(self) -> str | None:
        """Why the orchestrator can't be reached; None while it is connected. If it isn't, starts connecting."""
        return self._connection.away

    @property
    def crowded(self) -> bool:
        """Whether so many calls are set aside that slow calls keep their slots in the window."""
        return self._window.aside >= self._window.max_aside

    @property
    def message_limit(self) -> int:
        """The largest start command that the orchestrator takes, in bytes: as it reports, else 4 MiB."""
        return self._reported_limit

    @property
    def rpc_window(self) -> int:
        """How many calls may be open at once now; an overloaded orchestrator gets fewer than configured."""
        return self._window.size

    async def start(self, starts: Sequence[Start], report: _Report, wanted: _Wanted) -> None:
        """Submits the runs, in batches if the orchestrator takes batches, until each has an answer.

        `report` gets each call as soon as it has ended, and before that, with LATE as answers, if it is set aside.
        `wanted` is asked about each run once its call has a slot in the window.
        """
        await self._submit([commands.encode(start) for start in starts], report, wanted)

    async def control(self, simulation_id: str, action: Control) -> Controlled:
        """Sends PAUSE, RESUME or STOP for a run, and returns the answer."""
        wanted = pb.ControlAction.Value(f"CONTROL_ACTION_{action}")
        command = pb.ControlSimulationCommand(simulation_id=simulation_id, action=wanted)
        async with self._slot("ControlSimulation"):
            reply, code, _ = await self._connection.call(
                self._connection.stub.ControlSimulation(command, timeout=self._deadline)
            )
        return Controlled(code, paused=reply is not None and reply.state == pb.SIMULATION_STATE_PAUSED)

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """What the orchestrator knows of runs: a signal, or None for a run that it doesn't know.

        Runs without an answer are left out. Returns None if the orchestrator doesn't implement the call.
        """
        signals: dict[str, Signal | None] = {}
        for first in range(0, len(simulation_ids), _STATUS_BATCH):
            request = pb.GetSimulationStatusRequest(simulation_ids=simulation_ids[first : first + _STATUS_BATCH])
            async with self._slot("GetSimulationStatus"):
                reply, code, _ = await self._connection.call(
                    self._connection.stub.GetSimulationStatus(request, timeout=self._deadline)
                )
            if code == "UNIMPLEMENTED":
                return None
            if reply is not None:
                signals.update(status.read(reply))
        return signals

    async def capacity(self) -> AsyncGenerator[Capacity | None, None]:
        """Yields changes of capacity, without end; None if the orchestrator is away or doesn't implement the call."""
        async for reported in capacity.watch(
            lambda: self._connection.stub, self._deadline, self._connection.note_error
        ):
            if reported is not None:
                self._reported_limit = self._limit = reported.max_message_bytes or commands.DEFAULT_LIMIT_BYTES
            yield reported

    async def _submit(self, encoded: Sequence[Command], report: _Report, wanted: _Wanted) -> None:
        batched: list[Command] = []
        single: list[Command] = []
        batches = self._implements("StartSimulations")
        for command in encoded:
            if command.size > self._reported_limit:
                report(Call(_now(), 0.0, (commands.oversize(command, self._reported_limit),)))
            elif batches and not command.alone and commands.fits(command, self._limit):
                batched.append(command)
            else:
                single.append(command)
        if len(batched) == 1:
            single += batched
            batched.clear()
        await _all(
            [
                *(self._submit_batch(batch, report, wanted) for batch in commands.batches(batched, self._limit)),
                self._submit_singles(single, report, wanted),
            ]
        )

    async def _submit_singles(self, singles: Sequence[Command], report: _Report, wanted: _Wanted) -> None:
        """Makes a call for each command: as many lanes as the window has slots, each with one call after another."""
        left = deque(singles)

        async def lane() -> None:
            while left:
                await self._submit_single(left.popleft(), report, wanted, begin_lane)

        def begin_lane() -> None:
            """Another lane takes the place of one whose call is set aside."""
            if left:
                group.create_task(lane())

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(left), self._window.size)):
                begin_lane()

    async def _submit_batch(self, batch: list[Command], report: _Report, wanted: _Wanted) -> None:
        async with self._slot("StartSimulations", batch, report) as slot:
            _drop_unwanted(batch, slot, report, wanted)
            if not batch:
                return
            request = pb.StartSimulationsRequest(commands=[command.message for command in batch])
            reply, code, message = await self._connection.call(
                self._connection.stub.StartSimulations(
                    request, timeout=self._deadline, metadata=commands.metadata(batch[0])
                )
            )
        if reply is not None:
            self._answered("StartSimulations", slot, commands.read_batch(batch, reply), report)
        elif code == "UNIMPLEMENTED":
            self._unimplemented_until["StartSimulations"] = _now() + _UNIMPLEMENTED_SECONDS
            await self._submit(batch, report, wanted)
        elif (limit := outcome.message_limit(code, message, request.ByteSize())) is not None:
            self._limit = min(self._limit, limit)
            await self._submit(batch, report, wanted)
        elif outcome.outcome(code) is Outcome.REFUSED:
            # The refusal of the whole batch doesn't say which run caused it.
            await _all([self._submit_single(command, report, wanted) for command in batch])
        else:
            answered = [commands.answer(command.simulation_id, code, message) for command in batch]
            self._answered("StartSimulations", slot, answered, report)

    async def _submit_single(
        self, command: Command, report: _Report, wanted: _Wanted, on_aside: Callable[[], None] = lambda: None
    ) -> None:
        to_send = [command]
        async with self._slot("StartSimulation", to_send, report, on_aside) as slot:
            _drop_unwanted(to_send, slot, report, wanted)
            if not to_send:
                return
            reply, code, message = await self._connection.call(
                self._connection.stub.StartSimulation(
                    command.message, timeout=self._deadline, metadata=commands.metadata(command)
                )
            )
        name = command.simulation_id
        if reply is not None:
            answer = commands.read(name, reply)
        elif (limit := outcome.message_limit(code, message, command.size)) is not None:
            answer = commands.oversize(command, limit)
        else:
            answer = commands.answer(name, code, message)
        self._answered("StartSimulation", slot, [answer], report)

    def _slot(
        self,
        kind: str,
        sent: Sequence[Command] = (),
        report: _Report | None = None,
        on_aside: Callable[[], None] = lambda: None,
    ) -> Slot:
        """A slot in the window for a call. If the call is set aside, `report` gets LATE for each of its commands."""

        def late() -> None:
            if report is not None:
                answers = tuple(Answer(command.simulation_id, Outcome.LATE, "") for command in sent)
                report(Call(slot.began, _now() - slot.began, answers))
            on_aside()

        slot = self._window.slot(lambda: self._window.patience_seconds(kind, self._deadline * _PATIENCE), late)
        return slot

    def _answered(self, kind: str, slot: Slot, answers: Sequence[Answer], report: _Report) -> None:
        """Reports the result of a call, and adapts the window to it."""
        outcomes = {answer.outcome for answer in answers}
        if Outcome.SLOW_DOWN in outcomes:
            self._window.overloaded(slot.began)
        elif Outcome.UNKNOWN in outcomes and any(answer.code == "DEADLINE_EXCEEDED" for answer in answers):
            self._window.unanswered(kind, slot.began)
        elif Outcome.SUBMITTED in outcomes:
            self._window.answered(kind, slot.began)
        report(Call(slot.began, _now() - slot.began, tuple(answers)))

    def _implements(self, call: str) -> bool:
        return self._unimplemented_until.get(call, 0.0) <= _now()

    def _expect_another(self) -> None:
        """Forgets what an orchestrator that is away refused: the one that comes back may be a newer one."""
        self._unimplemented_until.clear()
        self._limit = self._reported_limit


def _drop_unwanted(batch: list[Command], slot: Slot, report: _Report, wanted: _Wanted) -> None:
    """Takes commands that aren't wanted any more out of a batch whose call is about to be made."""
    asked = [(command, wanted(command.simulation_id)) for command in batch]
    batch[:] = [command for command, is_wanted in asked if is_wanted]
    if unsent := tuple(commands.unsent(command) for command, is_wanted in asked if not is_wanted):
        report(Call(slot.began, 0.0, unsent))


async def _all(work: Sequence[Awaitable[None]]) -> None:
    if len(work) == 1:
        await work[0]
    elif work:
        await asyncio.gather(*work)


def _now() -> float:
    return asyncio.get_running_loop().time()
