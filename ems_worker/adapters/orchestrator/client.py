"""The orchestrator as the services know it (`service.ports.Orchestrator`), over grpc.aio."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import grpc

from ems_worker import ending, errors
from ems_worker.adapters.orchestrator import capacity, causes, commands, security, status
from ems_worker.adapters.orchestrator.commands import Command
from ems_worker.adapters.orchestrator.window import AdaptiveWindow, Place
from ems_worker.core.lifecycle import outcome
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.wire import Capacity, Start
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.settings import Channel

Reply = TypeVar("Reply")

# One retry policy, ours. Without fast keepalive: it kills healthy connections; every call has a deadline instead.
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Else a new channel to the same address shares the old one's connection.
    ("grpc.use_local_subchannel_pool", 1),
)
# What an orchestrator doesn't implement is asked for again after this time: it may have been updated.
_ASK_AGAIN_SECONDS = 60.0
# So many calls in a row without any answer, and the connection may be half open: the next gets a new one.
_SILENT_CALLS = 3
# The part of the deadline after which a call is set aside, where its kind usually takes no longer than that.
_PATIENCE = 0.25
_STATUS_BATCH = 1000


class Orchestrator:
    """One channel; a deadline on every call; no exception for what the orchestrator answers, nor for its absence."""

    def __init__(self, channel: Channel, *, deadline_seconds: float, window: int) -> None:
        self._way = channel
        self._deadline = deadline_seconds
        self._window = AdaptiveWindow(window)
        # What the orchestrator told, or is assumed; and what batches it was found to take since it was last away.
        self._told_limit = self._limit = commands.DEFAULT_LIMIT_BYTES
        self._channel = self._open()
        self._stub = pb_grpc.OrchestratorClientServiceStub(self._channel)
        self._closing: set[asyncio.Task[None]] = set()
        # Since when there is this channel: calls of one before say nothing about it.
        self._opened = float("-inf")
        self._silent = 0
        # Why it was away when it last was.
        self._cause: str | None = None
        self._missing_until: dict[str, float] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, address: str | Channel, *, deadline_seconds: float = 10.0, window: int = 64
    ) -> AsyncIterator["Orchestrator"]:
        """A client for the time of the `async with`; it connects by itself, now and whenever it has to.

        `window`: calls open at once, at most. `deadline_seconds`: for each call. Raises SettingsError for files that
        can't be used, and for plaintext that isn't allowed.
        """
        channel = address if isinstance(address, Channel) else Channel(address)
        client = cls(channel, deadline_seconds=deadline_seconds, window=window)
        client.ready()
        try:
            yield client
        finally:
            await client._close()

    def ready(self) -> bool:
        """Whether the orchestrator is connected now; starts connecting where it isn't."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    @property
    def away(self) -> str | None:
        """Why it can't be reached now, in words; None while it is connected. Starts connecting where it isn't."""
        if self.ready():
            self._cause = None
            return None
        state = self._channel.get_state().name.lower().replace("_", " ")
        return self._cause or f"{self._way.target}: {state}"

    @property
    def crowded(self) -> bool:
        """Whether so many calls have no answer that others wait for them."""
        return self._window.aside >= self._window.most_aside

    @property
    def message_limit(self) -> int:
        """The largest start command that it takes, in bytes: as it told, else 4 MiB."""
        return self._told_limit

    @property
    def rpc_window(self) -> int:
        """How many calls may be open at once now: fewer than was set while the orchestrator is overloaded."""
        return self._window.size

    async def start(self, starts: Sequence[Start], tell: Callable[[Call], None]) -> None:
        """Submits them, in batches where the orchestrator takes batches, until each has an answer.

        `tell` hears of each call as soon as it has ended, and with LATE for answers when it was set aside.
        """
        await self._submit([commands.encode(start) for start in starts], tell)

    async def stop(self, simulation_id: str) -> str:
        """Sends STOP; the name of the gRPC status code that came back."""
        command = pb.ControlSimulationCommand(simulation_id=simulation_id, action=pb.CONTROL_ACTION_STOP)
        async with self._place("ControlSimulation"):
            _, code, _ = await self._call(self._stub.ControlSimulation(command, timeout=self._deadline))
        return code

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """What the orchestrator knows of runs: a signal, or None for one that it doesn't know.

        Runs that it gave no answer for are left out. None as a whole: it doesn't implement the question.
        """
        found: dict[str, Signal | None] = {}
        for first in range(0, len(simulation_ids), _STATUS_BATCH):
            request = pb.GetSimulationStatusRequest(simulation_ids=simulation_ids[first : first + _STATUS_BATCH])
            async with self._place("GetSimulationStatus"):
                reply, code, _ = await self._call(self._stub.GetSimulationStatus(request, timeout=self._deadline))
            if code == "UNIMPLEMENTED":
                return None
            if reply is not None:
                found.update(status.read(reply))
        return found

    async def capacity(self) -> AsyncGenerator[Capacity | None, None]:
        """Changes of capacity, for ever; None where the orchestrator doesn't tell (UNIMPLEMENTED) or is away."""
        async for told in capacity.watch(lambda: self._stub, self._deadline, self._hear_error):
            if told is not None:
                self._told_limit = self._limit = told.max_message_bytes or commands.DEFAULT_LIMIT_BYTES
            yield told

    async def _submit(self, encoded: Sequence[Command], tell: Callable[[Call], None]) -> None:
        together: list[Command] = []
        apart: list[Command] = []
        batches = not self._missing("StartSimulations")
        for command in encoded:
            if command.size > self._told_limit:
                tell(Call(_now(), 0.0, (commands.oversize(command, self._told_limit),)))
            elif batches and not command.alone and commands.fits(command, self._limit):
                together.append(command)
            else:
                apart.append(command)
        if len(together) == 1:
            apart += together
            together.clear()
        await _all(
            [
                *(self._submit_batch(batch, tell) for batch in commands.batches(together, self._limit)),
                *(self._submit_one(command, tell) for command in apart),
            ]
        )

    async def _submit_batch(self, batch: Sequence[Command], tell: Callable[[Call], None]) -> None:
        request = pb.StartSimulationsRequest(commands=[command.message for command in batch])
        async with self._place("StartSimulations", batch, tell) as place:
            reply, code, words = await self._call(
                self._stub.StartSimulations(request, timeout=self._deadline, metadata=commands.metadata(batch[0]))
            )
        if reply is not None:
            self._answered("StartSimulations", place, commands.read_batch(batch, reply), tell)
        elif code == "UNIMPLEMENTED":
            self._missing_until["StartSimulations"] = _now() + _ASK_AGAIN_SECONDS
            await self._submit(batch, tell)
        elif (limit := outcome.message_limit(code, words, request.ByteSize())) is not None:
            self._limit = min(self._limit, limit)
            await self._submit(batch, tell)
        elif outcome.outcome(code) is Outcome.REFUSED:
            # That the batch as a whole was refused doesn't say which run is to blame.
            await _all([self._submit_one(command, tell) for command in batch])
        else:
            answers = [commands.answer(command.simulation_id, code, words) for command in batch]
            self._answered("StartSimulations", place, answers, tell)

    async def _submit_one(self, command: Command, tell: Callable[[Call], None]) -> None:
        async with self._place("StartSimulation", [command], tell) as place:
            reply, code, words = await self._call(
                self._stub.StartSimulation(command.message, timeout=self._deadline, metadata=commands.metadata(command))
            )
        name = command.simulation_id
        if reply is not None:
            answer = commands.read(name, reply)
        elif (limit := outcome.message_limit(code, words, command.size)) is not None:
            answer = commands.oversize(command, limit)
        else:
            answer = commands.answer(name, code, words)
        self._answered("StartSimulation", place, [answer], tell)

    def _place(self, kind: str, of: Sequence[Command] = (), tell: Callable[[Call], None] | None = None) -> Place:
        """A call's place in the window; `tell` hears when the answers for these commands are late."""

        def late() -> None:
            if tell is not None:
                answers = tuple(Answer(command.simulation_id, Outcome.LATE, "") for command in of)
                tell(Call(place.began, _now() - place.began, answers))

        place = self._window.place(lambda: self._window.patience_seconds(kind, self._deadline * _PATIENCE), late)
        return place

    def _answered(self, kind: str, place: Place, answers: Sequence[Answer], tell: Callable[[Call], None]) -> None:
        """Tells what became of a call, and has the window learn from it."""
        if any(one.outcome is Outcome.SLOW_DOWN for one in answers):
            self._window.overloaded(place.began)
        elif any(one.code == "DEADLINE_EXCEEDED" for one in answers):
            self._window.unanswered(kind, place.began)
        elif any(one.outcome is Outcome.SUBMITTED for one in answers):
            self._window.answered(kind, place.began)
        tell(Call(place.began, _now() - place.began, tuple(answers)))

    async def _call(self, call: Awaitable[Reply]) -> tuple[Reply | None, str, str]:
        """The reply, the status code's name, and the orchestrator's words."""
        began = _now()
        try:
            reply = await call
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            self._hear_error(error)
            if code is grpc.StatusCode.UNAVAILABLE:
                # Whoever comes back may be a newer one.
                self._missing_until.clear()
                self._limit = self._told_limit
                details = causes.cause(details, self._way.target)
            self._count_silence(began, code is grpc.StatusCode.DEADLINE_EXCEEDED)
            return None, code.name, details
        except asyncio.CancelledError:
            if ending.of_task():
                raise
            return None, "CANCELLED", "the connection was closed before the answer came"
        self._silent = 0
        return reply, "OK", ""

    def _hear_error(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._cause = causes.cause(error.details() or "", self._way.target)

    def _count_silence(self, began: float, silent: bool) -> None:
        if not silent:
            self._silent = 0
        elif began >= self._opened:
            self._silent += 1
        if self._silent < _SILENT_CALLS:
            return
        self._silent = 0
        try:
            old, self._channel = self._channel, self._open()
        except errors.SettingsError:
            return  # certificates that are being replaced: the old ones may still do
        self._opened = _now()
        self._stub = pb_grpc.OrchestratorClientServiceStub(self._channel)
        # With time for the calls that are open on it: closing at once would cancel those who wait for them.
        task = asyncio.create_task(old.close(grace=self._deadline))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _missing(self, call: str) -> bool:
        return self._missing_until.get(call, 0.0) > _now()

    def _open(self) -> grpc.aio.Channel:
        return security.channel(self._way, _OPTIONS)

    async def _close(self) -> None:
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace=None)


async def _all(work: Sequence[Awaitable[None]]) -> None:
    if len(work) == 1:
        await work[0]
    elif work:
        await asyncio.gather(*work)


def _now() -> float:
    return asyncio.get_running_loop().time()
