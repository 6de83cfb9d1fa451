"""An orchestrator that keeps the contract, or breaks it in a chosen way, for tests of the conformance kit.

`python -m tests.support.wrong_orchestrator --listen HOST:PORT --server nats://... [--wrong WAY]`; in a test `serving`.
The configuration of a run begins with its duration in seconds. The memory is a mapping that can outlive the server.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import timestamp_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined] # its stubs are older
from nats.aio.client import Client

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import wrong_events, wrong_output

METRICS = {"population": 7.0}
SLOTS = 100
# The answers to a new run in place of ACCEPTED; "unset" isn't wrong.
_NEW = {
    "knows-all": pb.START_OUTCOME_ALREADY_EXISTS,
    "unset": pb.START_OUTCOME_UNSPECIFIED,
    "no-outcome": pb.START_OUTCOME_UNSPECIFIED,
}
Context = grpc.aio.ServicerContext[Any, Any]


@dataclasses.dataclass
class ScriptedRun:
    """A run of so many seconds; `end` is None until it has ended."""

    sha: str
    seconds: float
    paused: bool = False
    end: run_events_pb2.RunCompleted | run_events_pb2.RunFailed | None = None


class Wrong(pb_grpc.OrchestratorClientServiceServicer):
    """`way` is the way of being wrong: empty, or one of the strings in the code below."""

    def __init__(self, client: Client, way: str, memory: dict[str, ScriptedRun]) -> None:
        self._events = wrong_events.Events(client, way)
        self._way = way
        self._runs = memory
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._changed = asyncio.Condition()
        for name, run in memory.items():
            if run.end is None and way == "fails-open-runs":
                self._do(self._end(name, _failed(name, run_events_pb2.ERROR_KIND_INFRASTRUCTURE)))
            elif run.end is None:
                self._do(self._run(name))

    async def StartSimulation(  # noqa: N802 - the protocol's names
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        response = await self._start(request)
        if response.outcome == pb.START_OUTCOME_REJECTED:
            await context.abort(_code(response.status_code), response.message)
        return response

    async def StartSimulations(  # noqa: N802
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        responses = [await self._start(command) for command in request.commands]
        rejected = any(response.outcome == pb.START_OUTCOME_REJECTED for response in responses)
        if self._way == "batch-fails-whole" and rejected:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a command is bad")
        if self._way == "batch-forgets-one":
            responses.pop()
        return pb.StartSimulationsResponse(responses=reversed(responses))

    async def ControlSimulation(  # noqa: N802
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        name = request.simulation_id
        run = self._runs.get(name)
        if run is None:
            if self._way != "stop-knows-all":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such run")
            return pb.ControlSimulationResponse(simulation_id=name, state=pb.SIMULATION_STATE_COMPLETED)
        if request.action != pb.CONTROL_ACTION_STOP:
            run.paused = request.action == pb.CONTROL_ACTION_PAUSE and self._way != "pause-does-nothing"
            return pb.ControlSimulationResponse(simulation_id=name, state=self._status(name).state)
        wrong = self._way == "stop-does-nothing" or (self._way == "stop-forgets-paused" and run.paused)
        if run.end is None and not wrong:
            kind = (
                run_events_pb2.ERROR_KIND_SIMULATION if self._way == "stop-kind" else run_events_pb2.ERROR_KIND_STOPPED
            )
            await self._end(name, _failed(name, kind))
        return pb.ControlSimulationResponse(simulation_id=name, state=self._status(name).state)

    async def GetSimulationStatus(  # noqa: N802
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        names = request.simulation_ids[:-1] if self._way == "status-forgets-one" else request.simulation_ids
        return pb.GetSimulationStatusResponse(statuses=[self._status(name) for name in names])

    async def WatchCapacity(self, request: pb.WatchCapacityRequest, context: Context) -> AsyncIterator[pb.Capacity]:  # noqa: N802
        while True:
            busy = self._busy
            slots = 0 if self._way == "no-slots" else SLOTS
            yield pb.Capacity(slots=slots, in_use=busy, max_message_bytes=4 * 1024 * 1024)
            async with self._changed:
                while self._busy == busy or self._way == "capacity-once":
                    await self._changed.wait()

    async def GetSimulationOutput(  # noqa: N802
        self, request: pb.GetSimulationOutputRequest, context: Context
    ) -> AsyncIterator[pb.OutputChunk]:
        run = self._runs.get(request.simulation_id)
        while request.follow and run is not None and run.end is None:  # noqa: ASYNC110 - a script
            await asyncio.sleep(0.01)
        refused, chunk = wrong_output.answer(request, self._way, known=run is not None)
        if refused is not None:
            await context.abort(refused, "refused")
        yield chunk

    async def reconnected(self) -> None:
        """The client's callback after a reconnection to the broker."""
        if self._way == "new-ids-after-outage":
            self._do(self._events.repeat_under_a_new_id())

    async def close(self) -> None:
        """Abandons the runs in progress, as a crash does."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, command: pb.StartSimulationCommand) -> pb.StartSimulationResponse:
        name, known = command.simulation_id, self._runs.get(command.simulation_id)
        if not name:
            return _rejected(name, grpc.StatusCode.INVALID_ARGUMENT, "simulation_id is empty")
        if self._way == "check-then-act":
            await asyncio.sleep(0.05)
        if known is not None and known.sha != command.config_sha and self._way != "any-sha":
            return _rejected(name, grpc.StatusCode.FAILED_PRECONDITION, "another config_sha")
        again = known is not None and (known.end is None, self._way) in (
            (True, "restarts-running"),
            (False, "restarts-ended"),
        )
        if known is not None and not again:
            if self._way == "reports-again":
                self._do(self._events.report(run_events_pb2.RunStarted(simulation_id=name, started_at=_now())))
            outcome = pb.START_OUTCOME_UNSPECIFIED if self._way == "no-outcome" else pb.START_OUTCOME_ALREADY_EXISTS
            return pb.StartSimulationResponse(simulation_id=name, outcome=outcome)
        self._runs[name] = ScriptedRun(command.config_sha, float(command.config.split()[0]))
        await self._take(1)
        self._do(self._run(name))
        outcome = _NEW.get(self._way, pb.START_OUTCOME_ACCEPTED)
        return pb.StartSimulationResponse(simulation_id=name, outcome=outcome)

    async def _run(self, name: str) -> None:
        started_at = _now()
        await self._events.report(run_events_pb2.RunStarted(simulation_id=name, started_at=started_at))
        await asyncio.sleep(3600 if self._way == "never-ends" else self._runs[name].seconds)
        while self._runs[name].paused:  # noqa: ASYNC110 - a script
            await asyncio.sleep(0.01)
        end = run_events_pb2.RunCompleted(
            simulation_id=name, metrics=METRICS, artifacts={"log": "s3://runs/log"}, started_at=started_at
        )
        match self._way:
            case "no-time":
                end.ClearField("started_at")
            case "no-metrics":
                end.ClearField("metrics")
            case "no-uri":
                end.artifacts["log"] = "runs/log"
        if self._way != "no-time":
            end.finished_at.CopyFrom(_now())
        await self._end(name, end)

    async def _end(self, name: str, end: run_events_pb2.RunCompleted | run_events_pb2.RunFailed) -> None:
        if self._runs[name].end is not None:
            return
        self._runs[name].end = end
        if self._way != "keeps-slots":
            await self._take(-1)
        self._do(self._events.report(end))
        if self._way == "ends-twice":
            self._do(self._events.report(_failed(name, run_events_pb2.ERROR_KIND_SIMULATION)))

    def _status(self, name: str) -> pb.SimulationStatus:
        run = self._runs.get(name)
        status = pb.SimulationStatus(simulation_id=name)
        if run is None:
            status.state = (
                pb.SIMULATION_STATE_FAILED if self._way == "status-knows-all" else pb.SIMULATION_STATE_NOT_FOUND
            )
        elif run.end is None:
            status.state = (
                pb.SIMULATION_STATE_COMPLETED if self._way == "status-too-early" else pb.SIMULATION_STATE_RUNNING
            )
            if run.paused:
                status.state = pb.SIMULATION_STATE_PAUSED
        elif isinstance(run.end, run_events_pb2.RunCompleted):
            status.state = (
                pb.SIMULATION_STATE_RUNNING if self._way == "status-too-late" else pb.SIMULATION_STATE_COMPLETED
            )
            status.metrics.update({"population": 8.0} if self._way == "status-metrics" else run.end.metrics)
        else:
            status.state = pb.SIMULATION_STATE_FAILED
            status.error_kind = run_events_pb2.ErrorKind.Name(run.end.error_kind).removeprefix("ERROR_KIND_").lower()
        return status

    async def _take(self, slots: int) -> None:
        self._busy = max(0, self._busy + slots)
        async with self._changed:
            self._changed.notify_all()

    def _do(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _failed(name: str, kind: run_events_pb2.ErrorKind.ValueType) -> run_events_pb2.RunFailed:
    return run_events_pb2.RunFailed(simulation_id=name, error_kind=kind, message="it ended", finished_at=_now())


def _rejected(name: str, code: grpc.StatusCode, message: str) -> pb.StartSimulationResponse:
    return pb.StartSimulationResponse(
        simulation_id=name, outcome=pb.START_OUTCOME_REJECTED, status_code=code.value[0], message=message
    )


def _code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def _now() -> timestamp_pb2.Timestamp:
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return now


@contextlib.asynccontextmanager
async def serving(
    listen: str, server: str, way: str, memory: dict[str, ScriptedRun] | None = None
) -> AsyncIterator[str]:
    """Serves in this process, and yields the address; if the port in `listen` is 0, any free port is taken."""
    client = Client()
    serves = Wrong(client, way, {} if memory is None else memory)
    await client.connect(
        server,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0,
        error_cb=_ignore_error,
        reconnected_cb=serves.reconnected,
    )
    limit = 1024 * 1024 if way == "small-messages" else 4 * 1024 * 1024
    grpc_server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", limit)])
    pb_grpc.add_OrchestratorClientServiceServicer_to_server(serves, grpc_server)
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), grpc_server)
    port = grpc_server.add_insecure_port(listen)
    await grpc_server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await grpc_server.stop(None)
        await serves.close()
        await client.close()


async def _ignore_error(error: Exception) -> None:
    """Without this callback, nats-py prints a traceback."""


async def _main(arguments: Iterable[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--wrong", default="", metavar="WAY")
    options = parser.parse_args(list(arguments))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(options.listen, options.server, options.wrong):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
