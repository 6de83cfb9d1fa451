"""The gRPC service of the orchestrator: every reply is sent after its effect is on disk."""

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc

from ems_worker.local.orchestrator import events, model, output
from ems_worker.local.orchestrator.simulators import LABEL, Simulators
from ems_worker.local.orchestrator.slots import Slots
from ems_worker.local.orchestrator.store import Store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

_SIMULATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
# How many calls of GetSimulationOutput are answered at once: each may follow a run for days.
_MAX_OUTPUTS = 256
_STATUS_CODE_NUMBERS = {code: code.value[0] for code in grpc.StatusCode}
_STATES = {
    model.State.QUEUED: pb.SIMULATION_STATE_QUEUED,
    model.State.HELD: pb.SIMULATION_STATE_PAUSED,
    model.State.STARTING: pb.SIMULATION_STATE_RUNNING,
    model.State.RUNNING: pb.SIMULATION_STATE_RUNNING,
    model.State.PAUSED: pb.SIMULATION_STATE_PAUSED,
    model.State.COMPLETED: pb.SIMULATION_STATE_COMPLETED,
    model.State.FAILED: pb.SIMULATION_STATE_FAILED,
}
_IMPOSSIBLE_ACTIONS = {
    pb.CONTROL_ACTION_STEP: "an operating system process can't be stepped",
    pb.CONTROL_ACTION_RESET: "an operating system process can't be reset; start it under a new simulation_id",
}

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class OrchestratorService(pb_grpc.OrchestratorClientServiceServicer):
    """Implements all calls of OrchestratorClientService."""

    def __init__(
        self,
        store: Store,
        slots: Slots,
        simulators: Simulators,
        *,
        runs: Path,
        max_message_bytes: int,
        model_version: str,
    ) -> None:
        """`runs` has the directories of the runs."""
        self._store = store
        self._simulators = simulators
        self._slots = slots
        self._runs = runs
        self._outputs = 0
        self._max_message_bytes = max_message_bytes
        self._model_version = model_version
        self._tasks: set[asyncio.Task[Any]] = set()

    async def StartSimulation(  # noqa: N802 - the protocol's name
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        """Accepts one run, durably before the reply. A rejection is the status of the call."""
        await self._unless_closing(context)
        [response] = await self._uncancelled(self._start([request]))
        if response.outcome == pb.START_OUTCOME_REJECTED:
            await context.abort(_code(response.status_code), response.message)
        return response

    async def StartSimulations(  # noqa: N802
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        """Accepts many runs, durably before the reply. A rejection is the response to that command alone."""
        await self._unless_closing(context)
        return pb.StartSimulationsResponse(responses=await self._uncancelled(self._start(request.commands)))

    async def ControlSimulation(  # noqa: N802
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        """Pauses, resumes or stops a run. The reply to STOP comes when its processes are gone."""
        if request.action in _IMPOSSIBLE_ACTIONS:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _IMPOSSIBLE_ACTIONS[request.action])
        state = await self._state(request.simulation_id)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no simulation {request.simulation_id!r}")
        done = True
        match request.action:
            case pb.CONTROL_ACTION_STOP:
                await self._uncancelled(self._slots.stop(request.simulation_id))
            case pb.CONTROL_ACTION_PAUSE:
                paused = state in (model.State.PAUSED, model.State.HELD)
                done = paused or await self._uncancelled(self._slots.pause(request.simulation_id))
            case pb.CONTROL_ACTION_RESUME:
                goes_on = state in (model.State.QUEUED, model.State.STARTING, model.State.RUNNING)
                done = goes_on or await self._uncancelled(self._slots.resume(request.simulation_id))
            case unknown:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no action {unknown}")
        if not done:
            action = pb.ControlAction.Name(request.action).removeprefix("CONTROL_ACTION_")
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{action} is not possible: the run is {state}")
        state = await self._state(request.simulation_id)
        known = _STATES[state] if state is not None else pb.SIMULATION_STATE_NOT_FOUND
        return pb.ControlSimulationResponse(simulation_id=request.simulation_id, state=known)

    async def GetSimulationStatus(  # noqa: N802
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        """The statuses of these runs, in the order of the request."""
        known = await self._store.get(request.simulation_ids)
        return pb.GetSimulationStatusResponse(
            statuses=[
                status(known[simulation_id])
                if simulation_id in known
                else pb.SimulationStatus(simulation_id=simulation_id, state=pb.SIMULATION_STATE_NOT_FOUND)
                for simulation_id in request.simulation_ids
            ]
        )

    async def WatchCapacity(  # noqa: N802
        self, request: pb.WatchCapacityRequest, context: Context
    ) -> AsyncIterator[pb.Capacity]:
        """The capacity now and after every change. A slow reader misses intermediate values."""
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

    async def GetSimulationOutput(  # noqa: N802
        self, request: pb.GetSimulationOutputRequest, context: Context
    ) -> AsyncIterator[pb.OutputChunk]:
        """What the run has written, in chunks of bounded size."""
        if self._outputs >= _MAX_OUTPUTS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_OUTPUTS} outputs are being sent already")

        async def look() -> model.LocalRun | None:
            return (await self._store.get([request.simulation_id])).get(request.simulation_id)

        self._outputs += 1
        try:
            async for chunk in output.chunks(request, self._runs, look):
                yield chunk
        except output.OutputRefusedError as refused:
            await context.abort(refused.code, str(refused))
        finally:
            self._outputs -= 1

    async def _unless_closing(self, context: Context) -> None:
        if self._slots.closing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the orchestrator is shutting down")

    async def _start(self, commands: Sequence[pb.StartSimulationCommand]) -> list[pb.StartSimulationResponse]:
        problems = {number: problem for number, command in enumerate(commands) if (problem := _problem(command))}
        problems |= await self._unknown_simulators(commands)
        orders = [_order(command) for number, command in enumerate(commands) if number not in problems]
        admissions = iter(await self._store.admit(orders) if orders else [])
        responses = []
        accepted = []
        for number, command in enumerate(commands):
            if number in problems:
                responses.append(_rejected(command, grpc.StatusCode.INVALID_ARGUMENT, problems[number]))
                continue
            match next(admissions):
                case model.Admission.ACCEPTED:
                    accepted.append(command.simulation_id)
                    responses.append(_response(command, pb.START_OUTCOME_ACCEPTED))
                case model.Admission.ALREADY_EXISTS:
                    responses.append(_response(command, pb.START_OUTCOME_ALREADY_EXISTS))
                case model.Admission.OTHER_CONFIG:
                    message = f"{command.simulation_id} is known with another config_sha"
                    responses.append(_rejected(command, grpc.StatusCode.FAILED_PRECONDITION, message))
        if accepted:
            await self._slots.enqueue(accepted)
        return responses

    async def _unknown_simulators(self, commands: Sequence[pb.StartSimulationCommand]) -> dict[int, str]:
        """Why new runs can't use the simulators that they name, by the number of the command."""
        problems = {
            number: problem
            for number, command in enumerate(commands)
            if (problem := self._simulators.problem(command.labels.get(LABEL, "")))
        }
        if not problems:
            return {}
        # A known run has been answered before, whatever has become of its simulator.
        known = await self._store.get([commands[number].simulation_id for number in problems])
        return {number: text for number, text in problems.items() if commands[number].simulation_id not in known}

    async def _uncancelled(self, work: Coroutine[Any, Any, T]) -> T:
        """Finishes the work even if the caller disconnects: a run that is stored but not queued would never start."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _state(self, simulation_id: str) -> model.State | None:
        run = (await self._store.get([simulation_id])).get(simulation_id)
        return run.state if run is not None else None


def _problem(command: pb.StartSimulationCommand) -> str:
    if not _SIMULATION_ID.fullmatch(command.simulation_id):
        return f"simulation_id {command.simulation_id!r} must match {_SIMULATION_ID.pattern}: it names a directory"
    if not command.config_sha:
        return "config_sha is empty: it distinguishes a repeated call from a different run"
    return ""


def _order(command: pb.StartSimulationCommand) -> model.Order:
    return model.Order(
        simulation_id=command.simulation_id,
        config=command.config,
        config_sha=command.config_sha,
        seed=command.rng_seed,
        experiment_id=command.experiment_id,
        simulator=command.labels.get(LABEL, ""),
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


def status(run: model.LocalRun) -> pb.SimulationStatus:
    """A run as GetSimulationStatus reports it."""
    end = run.end
    return pb.SimulationStatus(
        simulation_id=run.simulation_id,
        state=_STATES[run.state],
        metrics=end.metrics,
        artifacts=end.artifacts,
        error_kind=end.error_kind or "",
        message=end.message,
        retryable=end.retryable,
        started_at=events.timestamp(run.started_ns) if run.started_ns else None,
        finished_at=events.timestamp(run.finished_ns) if run.finished_ns else None,
        model_version=run.model_version,
        config_sha=run.config_sha,
        host=run.host,
        slot=run.slot,
    )
