"""An orchestrator that keeps the contract, or breaks it in one chosen way: what the conformance kit has to find.

`python -m tests.support.wrong_orchestrator --listen HOST:PORT --server nats://... [--wrong WAY]`; in a test `serving`.
A run's configuration begins with the seconds that it takes. What it remembers is a mapping that can outlive it.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import nats.errors
from google.protobuf import timestamp_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined] # its stubs are older
from nats.aio.client import Client

from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

METRICS = {"population": 7.0}
SLOTS = 100
# What a new run is answered, but for ACCEPTED; "unset" isn't wrong.
_NEW = {
    "knows-all": pb.START_OUTCOME_ALREADY_EXISTS,
    "unset": pb.START_OUTCOME_UNSPECIFIED,
    "no-outcome": pb.START_OUTCOME_UNSPECIFIED,
}
Context = grpc.aio.ServicerContext[Any, Any]
Payload = run_events_pb2.RunStarted | run_events_pb2.RunCompleted | run_events_pb2.RunFailed
_KINDS = {
    run_events_pb2.RunStarted: "sim.run_started",
    run_events_pb2.RunCompleted: "sim.run_completed",
    run_events_pb2.RunFailed: "sim.run_failed",
}


@dataclasses.dataclass
class Run:
    """A run; `end` is empty while it goes on."""

    sha: str
    end: run_events_pb2.RunCompleted | run_events_pb2.RunFailed | None = None


class Wrong(pb_grpc.OrchestratorClientServiceServicer):
    """`way` is how it is wrong: empty, or one of those that stand in the code below."""

    def __init__(self, client: Client, way: str, memory: dict[str, Run]) -> None:
        self._client = client
        self._stream = client.jetstream()
        self._way = way
        self._runs = memory
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._last = ("", b"")
        self._changed = asyncio.Condition()
        for name, run in memory.items():
            if run.end is None:
                self._do(self._end(name, _failed(name, run_events_pb2.ERROR_KIND_INFRASTRUCTURE)))

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
        if self._way == "batch-fails-whole" and any(one.outcome == pb.START_OUTCOME_REJECTED for one in responses):
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
        if run.end is None and self._way != "stop-does-nothing":
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

    async def reconnected(self) -> None:
        """The broker is back."""
        if self._way == "new-ids-after-outage":
            self._do(self._publish(*self._last, {"Nats-Msg-Id": secrets.token_hex(8)}))

    async def close(self) -> None:
        """Forgets what it was doing, as a crash does."""
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
            if self._way == "tells-again":
                self._do(self._tell(run_events_pb2.RunStarted(simulation_id=name, started_at=_now())))
            outcome = pb.START_OUTCOME_UNSPECIFIED if self._way == "no-outcome" else pb.START_OUTCOME_ALREADY_EXISTS
            return pb.StartSimulationResponse(simulation_id=name, outcome=outcome)
        self._runs[name] = Run(command.config_sha)
        await self._take(1)
        self._do(self._run(name, float(command.config.split()[0])))
        outcome = _NEW.get(self._way, pb.START_OUTCOME_ACCEPTED)
        return pb.StartSimulationResponse(simulation_id=name, outcome=outcome)

    async def _run(self, name: str, seconds: float) -> None:
        started_at = _now()
        await self._tell(run_events_pb2.RunStarted(simulation_id=name, started_at=started_at))
        await asyncio.sleep(3600 if self._way == "never-ends" else seconds)
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
        self._do(self._tell(end))
        if self._way == "ends-twice":
            self._do(self._tell(_failed(name, run_events_pb2.ERROR_KIND_SIMULATION)))

    async def _tell(self, payload: Payload) -> None:
        name, subject = payload.simulation_id, _KINDS[type(payload)]
        message_id = f"{name}:{subject}"
        envelope = envelope_pb2.GenericEventRequest(
            event_id="" if self._way == "no-event-id" else message_id,
            event_type_key=subject if self._way == "no-version" else f"{subject}.v1",
            event_payload=b"\xff" if self._way == "no-payload" else payload.SerializeToString(),
            timestamp_ns=int(time.time() * (1e3 if self._way == "milliseconds" else 1e9)),
            source_worker_id="wrong",
            simulation_id=name,
            payload_content_type="" if self._way == "no-content-type" else "application/x-protobuf",
        )
        self._last = (subject, envelope.SerializeToString())
        times = 2 if self._way == "random-ids" else 1
        for _ in range(times):
            headers = {"Nats-Msg-Id": secrets.token_hex(8) if self._way == "random-ids" else message_id}
            await self._publish(
                subject, envelope.SerializeToString(), None if self._way == "no-message-id" else headers
            )

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str] | None) -> None:
        if self._way == "loses-events" and not self._client.is_connected:
            return
        while True:
            try:
                await self._stream.publish(subject, data, timeout=0.2, headers=headers)
                return
            except (nats.errors.Error, OSError):
                await asyncio.sleep(0.05)

    def _status(self, name: str) -> pb.SimulationStatus:
        run = self._runs.get(name)
        one = pb.SimulationStatus(simulation_id=name)
        if run is None:
            one.state = pb.SIMULATION_STATE_FAILED if self._way == "status-knows-all" else pb.SIMULATION_STATE_NOT_FOUND
        elif run.end is None:
            one.state = (
                pb.SIMULATION_STATE_COMPLETED if self._way == "status-too-early" else pb.SIMULATION_STATE_RUNNING
            )
        elif isinstance(run.end, run_events_pb2.RunCompleted):
            one.state = pb.SIMULATION_STATE_RUNNING if self._way == "status-too-late" else pb.SIMULATION_STATE_COMPLETED
            one.metrics.update({"population": 8.0} if self._way == "status-metrics" else run.end.metrics)
        else:
            one.state = pb.SIMULATION_STATE_FAILED
            one.error_kind = run_events_pb2.ErrorKind.Name(run.end.error_kind).removeprefix("ERROR_KIND_").lower()
        return one

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


def _rejected(name: str, code: grpc.StatusCode, words: str) -> pb.StartSimulationResponse:
    return pb.StartSimulationResponse(
        simulation_id=name, outcome=pb.START_OUTCOME_REJECTED, status_code=code.value[0], message=words
    )


def _code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def _now() -> timestamp_pb2.Timestamp:
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return now


@contextlib.asynccontextmanager
async def serving(listen: str, server: str, way: str, memory: dict[str, Run] | None = None) -> AsyncIterator[str]:
    """A server in this process, on a port of its choice where `listen` has 0; its address."""
    client = Client()
    serves = Wrong(client, way, {} if memory is None else memory)
    await client.connect(
        server, max_reconnect_attempts=-1, reconnect_time_wait=0, error_cb=_no_news, reconnected_cb=serves.reconnected
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


async def _no_news(error: Exception) -> None:
    """nats-py prints a traceback otherwise."""


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
