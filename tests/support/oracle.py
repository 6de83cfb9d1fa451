"""A no-op orchestrator in a process of its own: it accepts runs, ends them at once, and records every start call.

`python -m tests.support.oracle --listen 127.0.0.1:PORT --server nats://...`. It has no processes and no database, so
that benchmarks measure its client. With `--log FILE` it is the oracle of tests that kill processes: the log has a line
per start call, on disk before the reply (`accepted ID SHA`, `duplicate ...` or `conflict ...`), and `ended ID`, or
`ended ID stopped`, before the event of the end. After a restart it reads the log and stays idempotent.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import fnmatch
import hashlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import nats
import nats.errors
import nats.js.errors
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined] # its stubs are older

from ems_worker.local.orchestrator import carrier, events, model, outbox, service
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from tests.support import synced_log

PUBLISHERS = 256
MODEL_VERSION = "oracle-1"
Context = grpc.aio.ServicerContext[Any, Any]


def metrics(simulation_id: str) -> dict[str, float]:
    """The metrics of a run: `population` 0..999 and `score` 0..1, from a hash of its id."""
    digest = int.from_bytes(hashlib.sha256(simulation_id.encode()).digest()[:8], "big")
    return {"population": float(digest % 1000), "score": digest / 2**64}


@dataclasses.dataclass(frozen=True, slots=True)
class Failures:
    """The runs that fail, and the kind of error: PATTERN (shell wildcards over the id) or PATTERN:KIND."""

    rules: tuple[tuple[str, model.ErrorKind], ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Failures":
        split = (text.partition(":") for text in texts)
        return cls(tuple((pattern, model.ErrorKind(kind or "simulation")) for pattern, _, kind in split))

    def outcome(self, simulation_id: str) -> model.RunEnd:
        """The end of a run."""
        for pattern, kind in self.rules:
            if fnmatch.fnmatchcase(simulation_id, pattern):
                return model.RunEnd(kind, message=f"fails by --fail {pattern}")
        return model.RunEnd(metrics=metrics(simulation_id))


class Oracle(pb_grpc.OrchestratorClientServiceServicer):
    """Accepts every run and ends it after `delay` seconds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._no_batch: bool = options.no_batch
        self._slots: int = options.slots
        self._delay: float = options.delay
        self._failures = Failures.parse(options.fail)
        self._never_ending: list[str] = options.hold
        self._busy: int = options.busy
        self._hung: list[str] = options.hang
        self._pausing: bool = options.pausing
        self._publishes_starts: bool = options.started
        self._paused: dict[str, bool] = {}  # paused runs, and whether the time of each is over
        self._answer_after: float = options.answer_after
        self._start_calls = 0
        self._runs: dict[str, model.LocalRun] = {}
        self.log: synced_log.Log | None = None
        self.ends: asyncio.Queue[model.Event] = asyncio.Queue()
        self._unlogged_ends: list[str] = []
        if options.log is not None:
            if options.log.exists():
                self._remember(options.log.read_text().split("\n"))
            self.log = synced_log.Log(options.log)

    def _remember(self, lines: Iterable[str]) -> None:
        """Runs of the previous process end again, because their events may not be published; others are duplicates."""
        known = list(lines)
        stopped = {line.split(" ")[1] for line in known if line.endswith(" stopped")}
        for _, simulation_id, sha in (line.split(" ") for line in known if line.startswith("accepted ")):
            self._know(simulation_id, sha)
            if simulation_id in stopped:
                self._end(simulation_id, carrier.STOPPED)
            else:
                self._begin(simulation_id)

    def _know(self, name: str, sha: str) -> None:
        running, now, unknown = model.State.RUNNING, time.time_ns(), model.RunEnd()
        self._runs[name] = model.LocalRun(name, running, sha, "", False, now, 0, unknown, MODEL_VERSION)

    def _begin(self, simulation_id: str) -> None:
        if self._publishes_starts:
            self.ends.put_nowait(events.started(self._runs[simulation_id]))
        if self._never_ends(simulation_id):
            return
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._end_unless_paused, simulation_id)
        else:
            self._end(simulation_id)

    def _never_ends(self, simulation_id: str) -> bool:
        return any(fnmatch.fnmatchcase(simulation_id, pattern) for pattern in self._never_ending)

    def _end_unless_paused(self, simulation_id: str) -> None:
        if simulation_id in self._paused:
            self._paused[simulation_id] = True
        else:
            self._end(simulation_id)

    def _end(self, simulation_id: str, outcome: model.RunEnd | None = None) -> None:
        run = self._runs[simulation_id]
        if not run.finished_ns:
            outcome = outcome or self._failures.outcome(simulation_id)
            run = dataclasses.replace(run, state=outcome.state, end=outcome, finished_ns=time.time_ns())
            self._runs[simulation_id] = run
            self._unlogged_ends.append(f"ended {simulation_id}{' stopped' if outcome is carrier.STOPPED else ''}")
            self.ends.put_nowait(events.ended(run))

    async def log_ends(self) -> None:
        """Returns once all ends are in the log: before anything outside can know of them."""
        if self.log is not None:
            ended, self._unlogged_ends = self._unlogged_ends, []
            await self.log.write(ended)

    async def _start(self, commands: Iterable[pb.StartSimulationCommand]) -> list[pb.StartSimulationResponse]:
        lines, responses, accepted = [], [], []
        for command in commands:
            known = self._runs.get(command.simulation_id)
            response = pb.StartSimulationResponse(simulation_id=command.simulation_id)
            if known is None:
                event, response.outcome = "accepted", pb.START_OUTCOME_ACCEPTED
                self._know(command.simulation_id, command.config_sha)
                accepted.append(command.simulation_id)
            elif known.config_sha == command.config_sha:
                event, response.outcome = "duplicate", pb.START_OUTCOME_ALREADY_EXISTS
            else:
                event, response.outcome = "conflict", pb.START_OUTCOME_REJECTED
                response.status_code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
                response.message = "known with another config_sha"
            lines.append(f"{event} {command.simulation_id} {command.config_sha}")
            responses.append(response)
        # Shielded, because a call that is cancelled here would leave runs that never end.
        await asyncio.shield(self._settle(lines, accepted))
        return responses

    async def _settle(self, lines: Iterable[str], accepted: Iterable[str]) -> None:
        if self.log is not None:
            await self.log.write(lines)
        for simulation_id in accepted:
            self._begin(simulation_id)

    async def _unless_busy(self, context: Context) -> None:
        self._start_calls += 1
        if self._start_calls % self._busy:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")

    async def _unless_hung(self, commands: Iterable[pb.StartSimulationCommand]) -> None:
        if any(fnmatch.fnmatchcase(command.simulation_id, pattern) for command in commands for pattern in self._hung):
            await asyncio.Event().wait()

    async def _unless_single(self, context: Context) -> None:
        if self._no_batch:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "--no-batch")

    async def StartSimulation(  # noqa: N802 - the protocol's names
        self, request: pb.StartSimulationCommand, context: Context
    ) -> pb.StartSimulationResponse:
        await self._unless_busy(context)
        await self._unless_hung([request])
        [response] = await self._start([request])
        await asyncio.sleep(self._answer_after)
        if response.outcome == pb.START_OUTCOME_REJECTED:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, response.message)
        return response

    async def StartSimulations(  # noqa: N802
        self, request: pb.StartSimulationsRequest, context: Context
    ) -> pb.StartSimulationsResponse:
        await self._unless_single(context)
        await self._unless_busy(context)
        await self._unless_hung(request.commands)
        responses = await self._start(request.commands)
        await asyncio.sleep(self._answer_after)
        return pb.StartSimulationsResponse(responses=responses)

    async def ControlSimulation(  # noqa: N802
        self, request: pb.ControlSimulationCommand, context: Context
    ) -> pb.ControlSimulationResponse:
        await self._unless_single(context)
        name, stops = request.simulation_id, request.action == pb.CONTROL_ACTION_STOP
        if not stops and not self._pausing:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "only STOP")
        if name not in self._runs:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no simulation {name!r}")
        if request.action == pb.CONTROL_ACTION_PAUSE and not self._runs[name].finished_ns:
            self._paused.setdefault(name, self._never_ends(name))
            return pb.ControlSimulationResponse(simulation_id=name, state=pb.SIMULATION_STATE_PAUSED)
        if self._paused.pop(name, False) or stops:
            self._end(name, carrier.STOPPED if stops else None)
        await self.log_ends()
        return pb.ControlSimulationResponse(simulation_id=name, state=service.status(self._runs[name]).state)

    async def GetSimulationStatus(  # noqa: N802
        self, request: pb.GetSimulationStatusRequest, context: Context
    ) -> pb.GetSimulationStatusResponse:
        await self._unless_single(context)
        await self.log_ends()
        none = pb.SIMULATION_STATE_NOT_FOUND
        known = ((name, self._runs.get(name)) for name in request.simulation_ids)
        return pb.GetSimulationStatusResponse(
            statuses=[
                service.status(run) if run is not None else pb.SimulationStatus(simulation_id=name, state=none)
                for name, run in known
            ]
        )

    async def WatchCapacity(self, request: pb.WatchCapacityRequest, context: Context) -> AsyncIterator[pb.Capacity]:  # noqa: N802
        await self._unless_single(context)
        yield pb.Capacity(slots=self._slots, max_message_bytes=4 * 1024 * 1024, model_version=MODEL_VERSION)
        await asyncio.Event().wait()

    async def GetSimulationOutput(  # noqa: N802
        self, request: pb.GetSimulationOutputRequest, context: Context
    ) -> AsyncIterator[pb.OutputChunk]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        yield pb.OutputChunk()  # type: ignore[unreachable]  # a generator


async def publish(oracle: Oracle, stream: nats.js.JetStreamContext) -> None:
    """Publishes events in turn, and repeats each until the broker has stored it."""
    while True:
        event = await oracle.ends.get()
        await oracle.log_ends()
        while True:
            try:
                await stream.publish(event.subject, event.body, headers={"Nats-Msg-Id": event.message_id})
                break
            except nats.js.errors.NoStreamResponseError:
                with contextlib.suppress(nats.errors.Error):  # another publisher or the worker created it first
                    await stream.add_stream(outbox.stream_config())
            except (nats.errors.Error, OSError):
                await asyncio.sleep(0.2)


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await nats.connect(options.server, max_reconnect_attempts=-1, reconnect_time_wait=0.1, ping_interval=10)
    oracle = Oracle(options)
    publishers = [asyncio.create_task(publish(oracle, client.jetstream(timeout=2))) for _ in range(PUBLISHERS)]
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_OrchestratorClientServiceServicer_to_server(oracle, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    server.add_insecure_port(options.listen)
    await server.start()
    await stop.wait()
    await server.stop(0.2)
    for task in publishers:
        task.cancel()
    await client.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--listen", required=True)
    add("--server", required=True)
    add("--log", type=Path, help="log every start call, on disk before its reply")
    add("--no-batch", action="store_true", help="implement only StartSimulation")
    add("--fail", action="append", default=[], metavar="PATTERN[:KIND]", help="runs with these ids fail")
    add("--hold", action="append", default=[], metavar="PATTERN", help="these runs end when stopped or resumed")
    add("--hang", action="append", default=[], metavar="PATTERN", help="start calls with these ids get no answer")
    add("--answer-after", type=float, default=0.0, help="seconds between a start call and its answer")
    add("--started", action="store_true", help="publish that runs start, too")
    add("--pausing", action="store_true", help="implement PAUSE and RESUME too; a restart forgets what is paused")
    add("--busy", type=int, default=1, help="of N start calls, all but one fail with RESOURCE_EXHAUSTED")
    add("--slots", type=int, default=1000, help="the slots that WatchCapacity reports")
    add("--delay", type=float, default=0.0, help="the duration of a run in seconds")
    uvloop.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
