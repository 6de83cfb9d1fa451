"""The local orchestrator as a process, its calls, and the events that it publishes."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import nats
import nats.js.errors
from nats.js import JetStreamContext

from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import servers, wait

Payload = run_events_pb2.RunStarted | run_events_pb2.RunCompleted | run_events_pb2.RunFailed | run_events_pb2.RunMetrics
PAYLOADS: dict[str, type[Payload]] = {
    "sim.run_started": run_events_pb2.RunStarted,
    "sim.run_completed": run_events_pb2.RunCompleted,
    "sim.run_failed": run_events_pb2.RunFailed,
    "sim.run_metrics": run_events_pb2.RunMetrics,
}
SHELL = "sh {config}"
"""A simulator that runs its configuration as a shell script."""


class Orchestrator(servers.GrpcProgram):
    """The orchestrator: ready for calls in `async with Orchestrator(nats_url, tmp_path) as orchestrator:`.

    `restart` keeps its port and data. With `shared`, its process outlives the `async with`, so that several tests can
    use it one after the other, each with its own channel; `stop` ends it.
    """

    def __init__(
        self,
        server: str,
        directory: Path,
        *,
        slots: int = 2,
        simulator: str = SHELL,
        more: Sequence[str] = (),
        shared: bool = False,
    ):
        self.shared = shared
        self.data_dir = directory / "orchestrator"
        options = {
            "--server": server,
            "--data-dir": str(self.data_dir),
            "--slots": str(slots),
            "--simulator": simulator,
        }
        # The machines that run tests have no other users.
        arguments = ["--insecure", *(argument for option in options.items() for argument in option)]
        super().__init__("ems_worker.local.orchestrator", [*arguments, *more], log=directory / "orchestrator.log")

    async def __aenter__(self) -> Self:
        if not self.running:
            await super().__aenter__()
        options = [("grpc.max_reconnect_backoff_ms", 100), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self.target, options=options)
        self.calls = pb_grpc.OrchestratorClientServiceStub(self._channel)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._channel.close(None)
        if not self.shared:
            await super().__aexit__(*exception)

    async def begin(self, simulation_id: str, script: str, *, sha: str = "sha") -> pb.StartSimulationResponse:
        """Calls StartSimulation for a run whose configuration is this script."""
        return await self.calls.StartSimulation(command(simulation_id, script, sha=sha), timeout=10)

    async def control(self, simulation_id: str, action: pb.ControlAction.ValueType) -> pb.SimulationState.ValueType:
        """Calls ControlSimulation; returns the state in the reply."""
        request = pb.ControlSimulationCommand(simulation_id=simulation_id, action=action)
        return (await self.calls.ControlSimulation(request, timeout=15)).state

    async def status(self, simulation_id: str) -> pb.SimulationStatus:
        """Calls GetSimulationStatus for one run."""
        request = pb.GetSimulationStatusRequest(simulation_ids=[simulation_id])
        [status] = (await self.calls.GetSimulationStatus(request, timeout=10)).statuses
        return status

    async def reaches(
        self, simulation_id: str, *states: pb.SimulationState.ValueType, timeout: float = 15
    ) -> pb.SimulationStatus:
        """Waits until the run is in one of these states."""

        async def reached() -> pb.SimulationStatus | None:
            status = await self.status(simulation_id)
            return status if status.state in states else None

        status = await wait.until(reached, timeout=timeout, what=f"{simulation_id} to reach one of {states}")
        assert status is not None
        return status

    async def ends(self, simulation_id: str, timeout: float = 15) -> pb.SimulationStatus:
        """Waits until the run has ended."""
        ended = (pb.SIMULATION_STATE_COMPLETED, pb.SIMULATION_STATE_FAILED)
        return await self.reaches(simulation_id, *ended, timeout=timeout)


def command(simulation_id: str, script: str, *, sha: str = "sha", seed: int = 1) -> pb.StartSimulationCommand:
    """The command that starts a run whose configuration is this script."""
    return pb.StartSimulationCommand(
        simulation_id=simulation_id,
        config=script.encode(),
        config_content_type="application/yaml",
        config_sha=sha,
        rng_seed=seed,
        experiment_id="exp",
    )


@dataclass(frozen=True, slots=True)
class Event:
    """A message of SIM_EVENTS, decoded."""

    subject: str
    message_id: str
    envelope: envelope_pb2.GenericEventRequest
    payload: Payload


async def events(server: str, simulation_id: str | None = None) -> list[Event]:
    """All stored events, or those of one run, in the order of the stream."""
    client = await nats.connect(server, connect_timeout=5)
    try:
        return [
            event
            async for event in _stored(client.jetstream())
            if simulation_id in (None, event.envelope.simulation_id)
        ]
    finally:
        await client.close()


async def event_count(server: str) -> int:
    """The number of events in SIM_EVENTS; 0 if the stream doesn't exist yet."""
    client = await nats.connect(server, connect_timeout=5)
    try:
        return (await client.jetstream().stream_info("SIM_EVENTS")).state.messages
    except nats.js.errors.NotFoundError:
        return 0
    finally:
        await client.close()


async def _stored(stream: JetStreamContext) -> AsyncIterator[Event]:
    try:
        state = (await stream.stream_info("SIM_EVENTS")).state
    except nats.js.errors.NotFoundError:
        return
    for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
        message = await stream.get_msg("SIM_EVENTS", sequence)
        assert message.subject is not None
        assert message.headers is not None
        envelope = envelope_pb2.GenericEventRequest.FromString(message.data or b"")
        payload = PAYLOADS[message.subject].FromString(envelope.event_payload)
        yield Event(message.subject, message.headers["Nats-Msg-Id"], envelope, payload)


async def published(server: str, simulation_id: str, kind: str) -> list[Event]:
    """Waits until an event of this kind (`completed`, ...) is stored for the run; returns all events of the run."""

    async def stored() -> list[Event]:
        of_run = await events(server, simulation_id)
        return of_run if f"sim.run_{kind}" in [event.subject for event in of_run] else []

    return await wait.until(stored, what=f"{simulation_id} {kind} in SIM_EVENTS")
