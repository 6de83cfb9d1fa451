"""The orchestrator's gRPC face: every reply comes after the store has it on disk."""

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import grpc

from ems_worker.local.orchestrator import events, model, slots, store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

_SIMULATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_STATUS_CODE_NUMBERS = {code: code.value[0] for code in grpc.StatusCode}
_STATES = {
    model.State.QUEUED: pb.SIMULATION_STATE_QUEUED,
    model.State.STARTING: pb.SIMULATION_STATE_RUNNING,
    model.State.RUNNING: pb.SIMULATION_STATE_RUNNING,
    model.State.PAUSED: pb.SIMULATION_STATE_PAUSED,
    model.State.COMPLETED: pb.SIMULATION_STATE_COMPLETED,
    model.State.FAILED: pb.SIMULATION_STATE_FAILED,
}
_NO_SUCH = {
    pb.CONTROL_ACTION_STEP: "an operating system process can't be stepped",
    pb.CONTROL_ACTION_RESET: "an operating system process can't be reset; start it under a new simulation_id",
}

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class OrchestratorService(pb_grpc.OrchestratorClientServiceServicer):
    """All five calls of OrchestratorClientService."""

    def __init__(self, memory: store.Store, places: slots.Slots, *, max_message_bytes: int, model_version: str) -> None:
        self._memory = memory
        self._slots = places
        self._max_message_bytes = max_message_bytes
        self._model_version = model_version
        self._under_way: set[asyncio.Task[Any]] = set()

    async def StartSimulation(  # noqa: N802 - the protocol's name
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        """Takes one run on; durable before the reply. A refusal is the call's status."""
        [response] = await self._unbroken(self._start([request]))
        if response.outcome == pb.START_OUTCOME_REJECTED:
            await context.abort(_code(response.status_code), response.message)
        return response

    async def StartSimulations(  # noqa: N802
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        """Takes many runs on; durable before the reply. A refusal is the response of that one."""
        return pb.StartSimulationsResponse(responses=await self._unbroken(self._start(request.commands)))

    async def ControlSimulation(  # noqa: N802
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        """Pauses, resumes or stops a run; STOP replies once its processes are gone."""
        if request.action in _NO_SUCH:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_SUCH[request.action])
        state = await self._state(request.simulation_id)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no simulation {request.simulation_id!r}")
        done = True
        match request.action:
            case pb.CONTROL_ACTION_STOP:
                await self._unbroken(self._slots.stop(request.simulation_id))
            case pb.CONTROL_ACTION_PAUSE:
                done = state is model.State.PAUSED or await self._unbroken(self._slots.pause(request.simulation_id))
            case pb.CONTROL_ACTION_RESUME:
                done = state is model.State.RUNNING or await self._unbroken(self._slots.resume(request.simulation_id))
            case unknown:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no action {unknown}")
        if not done:
            action = pb.ControlAction.Name(request.action).removeprefix("CONTROL_ACTION_")
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"it is {state}: {action} has no meaning")
        state = await self._state(request.simulation_id)
        known = _STATES[state] if state is not None else pb.SIMULATION_STATE_NOT_FOUND
        return pb.ControlSimulationResponse(simulation_id=request.simulation_id, state=known)

    async def GetSimulationStatus(  # noqa: N802
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        """What the store knows of these runs."""
        known = await self._memory.get(request.simulation_ids)
        return pb.GetSimulationStatusResponse(
            statuses=[
                status(known[one])
                if one in known
                else pb.SimulationStatus(simulation_id=one, state=pb.SIMULATION_STATE_NOT_FOUND)
                for one in request.simulation_ids
            ]
        )

    async def WatchCapacity(  # noqa: N802
        self, request: pb.WatchCapacityRequest, context: Context
    ) -> AsyncIterator[pb.Capacity]:
        """The capacity at once and at every change; a slow reader gets the latest only."""
        capacity = self._slots.capacity
        while True:
            yield pb.Capacity(
                slots=capacity.slots,
                in_use=capacity.in_use,
                queued=capacity.queued,
                max_message_bytes=self._max_message_bytes,
                model_version=self._model_version,
            )
            capacity = await self._slots.capacity_after(capacity)

    async def _start(self, commands: Sequence[pb.StartSimulationCommand]) -> list[pb.StartSimulationResponse]:
        wrong = {number: problem for number, command in enumerate(commands) if (problem := _problem(command))}
        orders = [_order(command) for number, command in enumerate(commands) if number not in wrong]
        admissions = iter(await self._memory.admit(orders) if orders else [])
        responses = []
        accepted = []
        for number, command in enumerate(commands):
            if number in wrong:
                responses.append(_rejected(command, grpc.StatusCode.INVALID_ARGUMENT, wrong[number]))
                continue
            match next(admissions):
                case model.Admission.ACCEPTED:
                    accepted.append(command.simulation_id)
                    responses.append(_response(command, pb.START_OUTCOME_ACCEPTED))
                case model.Admission.ALREADY_EXISTS:
                    responses.append(_response(command, pb.START_OUTCOME_ALREADY_EXISTS))
                case model.Admission.OTHER_CONFIG:
                    words = f"{command.simulation_id} is known with another config_sha"
                    responses.append(_rejected(command, grpc.StatusCode.FAILED_PRECONDITION, words))
        if accepted:
            await self._slots.enqueue(accepted)
        return responses

    async def _unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work to its end though the caller may go away: stored but not queued, it would be lost."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _state(self, simulation_id: str) -> model.State | None:
        run = (await self._memory.get([simulation_id])).get(simulation_id)
        return run.state if run is not None else None


def _problem(command: pb.StartSimulationCommand) -> str:
    if not _SIMULATION_ID.fullmatch(command.simulation_id):
        return f"simulation_id {command.simulation_id!r} must match {_SIMULATION_ID.pattern}: it names a directory"
    if not command.config_sha:
        return "config_sha is empty: without it a repeated call can't be told from another run"
    return ""


def _order(command: pb.StartSimulationCommand) -> model.Order:
    return model.Order(
        simulation_id=command.simulation_id,
        config=command.config,
        config_sha=command.config_sha,
        seed=command.rng_seed,
        experiment_id=command.experiment_id,
    )


def _response(command: pb.StartSimulationCommand, outcome: pb.StartOutcome.ValueType) -> pb.StartSimulationResponse:
    return pb.StartSimulationResponse(simulation_id=command.simulation_id, outcome=outcome)


def _rejected(command: pb.StartSimulationCommand, code: grpc.StatusCode, message: str) -> pb.StartSimulationResponse:
    return pb.StartSimulationResponse(
        simulation_id=command.simulation_id,
        outcome=pb.START_OUTCOME_REJECTED,
        status_code=_STATUS_CODE_NUMBERS[code],
        message=message,
    )


def _code(number: int) -> grpc.StatusCode:
    return next(code for code, known in _STATUS_CODE_NUMBERS.items() if known == number)


def status(run: model.Run) -> pb.SimulationStatus:
    """A run as GetSimulationStatus tells it."""
    outcome = run.outcome
    return pb.SimulationStatus(
        simulation_id=run.simulation_id,
        state=_STATES[run.state],
        metrics=outcome.metrics,
        artifacts=outcome.artifacts,
        error_kind=outcome.error_kind or "",
        message=outcome.message,
        retryable=outcome.retryable,
        started_at=events.timestamp(run.started_ns) if run.started_ns else None,
        finished_at=events.timestamp(run.finished_ns) if run.finished_ns else None,
        model_version=run.model_version,
        config_sha=run.config_sha,
    )
