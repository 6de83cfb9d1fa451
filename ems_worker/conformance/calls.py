"""The calls to the orchestrator under test. Its answers are values, never exceptions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from ems_worker import errors
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

ACCEPTED = "ACCEPTED"
ALREADY_EXISTS = "ALREADY_EXISTS"
UNIMPLEMENTED = "UNIMPLEMENTED"
_CALL_SECONDS = 10.0
_OPTIONS = (
    # Check the orchestrator itself, not a proxy in front of it.
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Otherwise channels to the same address share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_OUTCOMES = {value.number: value.name.removeprefix("START_OUTCOME_") for value in pb.StartOutcome.DESCRIPTOR.values}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a start: ACCEPTED, ALREADY_EXISTS or the name of a status code, and the orchestrator's message."""

    code: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.code} ({self.message})" if self.message else self.code


class Calls:
    """A channel to the orchestrator."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = pb_grpc.OrchestratorClientServiceStub(channel)

    async def ready(self, timeout: float) -> None:
        """Returns once connected. Raises OrchestratorUnavailable without a connection within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._channel.channel_ready()
        except TimeoutError as late:
            raise errors.OrchestratorUnavailable(f"no connection within {timeout:g} s") from late

    async def start(self, command: pb.StartSimulationCommand) -> Reply:
        """StartSimulation"""
        response, code, message = await _answer(self._stub.StartSimulation(command, timeout=_CALL_SECONDS))
        return read(response) if response is not None else Reply(code, message)

    async def start_all(
        self, commands: Sequence[pb.StartSimulationCommand]
    ) -> tuple[Sequence[pb.StartSimulationResponse], str, str]:
        """StartSimulations: the responses, the name of the status code, and the message."""
        request = pb.StartSimulationsRequest(commands=commands)
        response, code, message = await _answer(self._stub.StartSimulations(request, timeout=_CALL_SECONDS))
        return (response.responses if response is not None else ()), code, message

    async def control(
        self, simulation_id: str, action: pb.ControlAction.ValueType, timeout: float
    ) -> tuple[pb.ControlSimulationResponse | None, str, str]:
        """ControlSimulation: the response, the name of the status code, and the message."""
        command = pb.ControlSimulationCommand(simulation_id=simulation_id, action=action)
        return await _answer(self._stub.ControlSimulation(command, timeout=timeout))

    async def status(self, simulation_ids: Sequence[str]) -> tuple[Sequence[pb.SimulationStatus], str, str]:
        """GetSimulationStatus: the statuses, the name of the status code, and the message."""
        request = pb.GetSimulationStatusRequest(simulation_ids=simulation_ids)
        response, code, message = await _answer(self._stub.GetSimulationStatus(request, timeout=_CALL_SECONDS))
        return (response.statuses if response is not None else ()), code, message

    async def output(
        self, request: pb.GetSimulationOutputRequest, timeout: float | None = None
    ) -> tuple[Sequence[pb.OutputChunk], str, str]:
        """GetSimulationOutput: the chunks, the name of the status code, and the message."""
        chunks: list[pb.OutputChunk] = []
        call = self._stub.GetSimulationOutput(request, timeout=timeout or _CALL_SECONDS)
        try:
            async for chunk in call:
                chunks.append(chunk)  # noqa: PERF401 - those before an error count
        except grpc.aio.AioRpcError as error:
            return chunks, error.code().name, error.details() or ""
        return chunks, "OK", ""

    @contextlib.asynccontextmanager
    async def capacity(self) -> AsyncIterator["Watch"]:
        """WatchCapacity, for the duration of the `async with`."""
        call = self._stub.WatchCapacity(pb.WatchCapacityRequest())
        try:
            yield Watch(call)
        finally:
            call.cancel()


class Watch:
    """A stream of capacities."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[pb.WatchCapacityRequest, pb.Capacity]") -> None:
        self._call = call

    async def next(self, timeout: float) -> tuple[pb.Capacity | None, str, str]:
        """The next capacity, "OK" and an empty message.

        Without a capacity within `timeout` seconds it returns None and DEADLINE_EXCEEDED, and at the end of the stream
        None and the status code of the stream.
        """
        try:
            async with asyncio.timeout(timeout):
                message = await self._call.read()
                if isinstance(message, pb.Capacity):
                    return message, "OK", ""
                return None, (await self._call.code()).name, (await self._call.details()) or "the stream ended"
        except TimeoutError:
            return None, "DEADLINE_EXCEEDED", f"no capacity within {timeout:g} s"
        except grpc.aio.AioRpcError as error:
            return None, error.code().name, error.details() or ""


def read(response: pb.StartSimulationResponse) -> Reply:
    """The reply in a response. As in the worker, an outcome that isn't set is ACCEPTED: the call's status was OK."""
    named = f"the StartSimulationResponse.outcome {_OUTCOMES.get(response.outcome, response.outcome)}"
    if response.outcome == pb.START_OUTCOME_ALREADY_EXISTS:
        return Reply(ALREADY_EXISTS, response.message)
    if response.status_code:
        code = _CODES.get(response.status_code, f"status code {response.status_code}")
        return Reply(code, ": ".join(filter(None, (named, response.message))))
    if response.outcome == pb.START_OUTCOME_ACCEPTED:
        return Reply(ACCEPTED, response.message)
    if response.outcome == pb.START_OUTCOME_UNSPECIFIED:
        return Reply(ACCEPTED, "StartSimulationResponse.outcome isn't set, which counts as ACCEPTED")
    return Reply(f"{named} without a status_code", response.message)


@contextlib.asynccontextmanager
async def connect(address: str, timeout: float) -> AsyncIterator[Calls]:
    """A channel of its own. Raises OrchestratorUnavailable where there is no connection within `timeout` seconds."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        calls = Calls(channel)
        try:
            await calls.ready(timeout)
        except errors.OrchestratorUnavailable as failed:
            raise errors.OrchestratorUnavailable(
                f"the orchestrator at {address} can't be reached: {failed}"
            ) from failed
        yield calls


async def _answer(call: Awaitable[T]) -> tuple[T | None, str, str]:
    try:
        return await call, "OK", ""
    except grpc.aio.AioRpcError as error:
        return None, error.code().name, error.details() or ""
