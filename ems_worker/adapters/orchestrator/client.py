"""The orchestrator as the services know it (`service.ports.Orchestrator`), over grpc.aio."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from typing import TypeVar

import grpc

from ems_worker import ending, errors
from ems_worker.adapters.orchestrator import capacity, commands, security, status
from ems_worker.adapters.orchestrator.commands import Command
from ems_worker.adapters.orchestrator.window import AdaptiveWindow
from ems_worker.core.outcome import Answer, Outcome
from ems_worker.core.run import Signal
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
_STATUS_BATCH = 1000


class Orchestrator:
    """One channel; a deadline on every call; no exception for what the orchestrator answers, nor for its absence."""

    def __init__(self, channel: Channel, *, deadline_seconds: float, window: int) -> None:
        self._way = channel
        self._deadline = deadline_seconds
        self._window = AdaptiveWindow(window)
        # What the orchestrator told, or is assumed; and what it was found to take since it was last away.
        self._told_limit = self._limit = commands.DEFAULT_LIMIT_BYTES
        self._channel = self._open()
        self._stub = pb_grpc.OrchestratorClientServiceStub(self._channel)
        self._closing: set[asyncio.Task[None]] = set()
        self._silent = 0
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
    def message_limit(self) -> int:
        """The largest start command that it takes, in bytes: as it told, else 4 MiB."""
        return self._told_limit

    @property
    def rpc_window(self) -> int:
        """How many calls may be open at once now: fewer than was set while the orchestrator is overloaded."""
        return self._window.size

    async def start(self, starts: Sequence[Start]) -> Sequence[Answer]:
        """Submits them, in batches where the orchestrator takes batches; an answer each, in order."""
        answers: dict[str, Answer] = {}
        encoded = [commands.encode(start) for start in starts]
        await self._submit(encoded, answers)
        return [answers[start.simulation_id] for start in starts]

    async def stop(self, simulation_id: str) -> str:
        """Sends STOP; the name of the gRPC status code that came back."""
        command = pb.ControlSimulationCommand(simulation_id=simulation_id, action=pb.CONTROL_ACTION_STOP)
        async with self._window:
            _, code, _ = await self._call(self._stub.ControlSimulation(command, timeout=self._deadline))
        return code

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """What the orchestrator knows of runs: a signal, or None for one that it doesn't know.

        Runs that it gave no answer for are left out. None as a whole: it doesn't implement the question.
        """
        found: dict[str, Signal | None] = {}
        for first in range(0, len(simulation_ids), _STATUS_BATCH):
            request = pb.GetSimulationStatusRequest(simulation_ids=simulation_ids[first : first + _STATUS_BATCH])
            async with self._window:
                reply, code, _ = await self._call(self._stub.GetSimulationStatus(request, timeout=self._deadline))
            if code == "UNIMPLEMENTED":
                return None
            if reply is not None:
                found.update(status.read(reply))
        return found

    async def capacity(self) -> AsyncGenerator[Capacity | None, None]:
        """Changes of capacity, for ever; None where the orchestrator doesn't tell (UNIMPLEMENTED) or is away."""
        async for told in capacity.watch(lambda: self._stub, self._deadline):
            if told is not None:
                self._told_limit = self._limit = told.max_message_bytes or commands.DEFAULT_LIMIT_BYTES
            yield told

    async def _submit(self, encoded: Sequence[Command], answers: dict[str, Answer]) -> None:
        limit = self._limit
        fitting = []
        for command in encoded:
            if commands.fits(command, limit):
                fitting.append(command)
            else:
                answers[command.simulation_id] = commands.oversize(command, limit)
        if len(fitting) > 1 and not self._missing("StartSimulations"):
            work = [self._submit_batch(batch, answers) for batch in commands.batches(fitting, limit)]
        else:
            work = [self._submit_one(command, answers) for command in fitting]
        await _all(work)

    async def _submit_batch(self, batch: Sequence[Command], answers: dict[str, Answer]) -> None:
        request = pb.StartSimulationsRequest(commands=[command.message for command in batch])
        async with self._window as began:
            reply, code, words = await self._call(
                self._stub.StartSimulations(request, timeout=self._deadline, metadata=commands.metadata(batch[0]))
            )
        if reply is not None:
            responses = {response.simulation_id: response for response in reply.responses}
            for command in batch:
                name = command.simulation_id
                answers[name] = (
                    commands.read(name, responses[name])
                    if name in responses
                    else commands.answer(
                        name, "UNKNOWN", "the orchestrator's reply to the batch doesn't mention this run"
                    )
                )
            self._pace("StartSimulations", began, [answers[command.simulation_id] for command in batch])
            return
        if code == "UNIMPLEMENTED":
            self._missing_until["StartSimulations"] = _now() + _ASK_AGAIN_SECONDS
            await _all([self._submit_one(command, answers) for command in batch])
        elif (told := commands.limit_from(code, words)) is not None:
            await self._submit_smaller(batch, told, answers)
        elif commands.answer("", code, words).outcome is Outcome.REFUSED:
            # That the batch as a whole was refused doesn't say which run is to blame.
            await _all([self._submit_one(command, answers) for command in batch])
        else:
            for command in batch:
                answers[command.simulation_id] = commands.answer(command.simulation_id, code, words)
            self._pace("StartSimulations", began, [answers[command.simulation_id] for command in batch])

    async def _submit_smaller(self, batch: Sequence[Command], told: int, answers: dict[str, Answer]) -> None:
        """The orchestrator takes less than was known: as much as it told, else the batch is halved."""
        if 0 < told < self._limit:
            self._limit = told
            await self._submit(batch, answers)
        elif len(batch) == 1:
            await self._submit_one(batch[0], answers)
        else:
            middle = len(batch) // 2
            await _all([self._submit_batch(half, answers) for half in (batch[:middle], batch[middle:])])

    async def _submit_one(self, command: Command, answers: dict[str, Answer]) -> None:
        name = command.simulation_id
        async with self._window as began:
            reply, code, words = await self._call(
                self._stub.StartSimulation(command.message, timeout=self._deadline, metadata=commands.metadata(command))
            )
        if reply is not None:
            answers[name] = commands.read(name, reply)
        elif (told := commands.limit_from(code, words)) is not None:
            answers[name] = commands.oversize(command, told or command.size - 1)
        else:
            answers[name] = commands.answer(name, code, words)
        self._pace("StartSimulation", began, [answers[name]])

    def _pace(self, kind: str, began: float, answers: Sequence[Answer]) -> None:
        """Has the window learn from what became of a call."""
        if any(one.outcome is Outcome.SLOW_DOWN or one.code == "DEADLINE_EXCEEDED" for one in answers):
            self._window.overloaded(began)
        elif any(one.outcome is Outcome.SUBMITTED for one in answers):
            self._window.answered(kind, began)

    async def _call(self, call: Awaitable[Reply]) -> tuple[Reply | None, str, str]:
        """The reply, the status code's name, and the orchestrator's words."""
        try:
            reply = await call
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAVAILABLE:
                # Whoever comes back may be a newer one.
                self._missing_until.clear()
                self._limit = self._told_limit
            await self._count_silence(code is grpc.StatusCode.DEADLINE_EXCEEDED)
            return None, code.name, error.details() or ""
        except asyncio.CancelledError:
            if ending.of_task():
                raise
            return None, "CANCELLED", "the connection was closed before the answer came"
        self._silent = 0
        return reply, "OK", ""

    async def _count_silence(self, silent: bool) -> None:
        self._silent = self._silent + 1 if silent else 0
        if self._silent < _SILENT_CALLS:
            return
        self._silent = 0
        try:
            old, self._channel = self._channel, self._open()
        except errors.SettingsError:
            return  # certificates that are being replaced: the old ones may still do
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
    else:
        await asyncio.gather(*work)


def _now() -> float:
    return asyncio.get_running_loop().time()
