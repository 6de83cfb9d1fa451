"""The local orchestrator as a process, its calls, and the events that it published."""

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

Payload = run_events_pb2.RunStarted | run_events_pb2.RunCompleted | run_events_pb2.RunFailed
PAYLOADS: dict[str, type[Payload]] = {
    "sim.run_started": run_events_pb2.RunStarted,
    "sim.run_completed": run_events_pb2.RunCompleted,
    "sim.run_failed": run_events_pb2.RunFailed,
}
SHELL = "sh {config}"
"""A simulator whose configuration is the shell script that it runs."""


class Orchestrator(servers.GrpcProgram):
    """`async with Orchestrator(nats_url, tmp_path) as one:` is ready for calls; `restart` keeps port and data.

    With `shared` its process outlives the `async with`: many tests may use it one after the other, each with a channel
    of its own, and `stop` ends it.
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
        # Tests run on machines where nobody else is.
        arguments = ["--insecure", *(word for option in options.items() for word in option)]
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
        """StartSimulation of a run whose configuration is this script."""
        return await self.calls.StartSimulation(command(simulation_id, script, sha=sha), timeout=10)

    async def control(self, simulation_id: str, action: pb.ControlAction.ValueType) -> pb.SimulationState.ValueType:
        """ControlSimulation; the state that it replies."""
        request = pb.ControlSimulationCommand(simulation_id=simulation_id, action=action)
        return (await self.calls.ControlSimulation(request, timeout=15)).state

    async def status(self, simulation_id: str) -> pb.SimulationStatus:
        """GetSimulationStatus of one run."""
        request = pb.GetSimulationStatusRequest(simulation_ids=[simulation_id])
        [status] = (await self.calls.GetSimulationStatus(request, timeout=10)).statuses
        return status

    async def reaches(
        self, simulation_id: str, *states: pb.SimulationState.ValueType, timeout: float = 15
    ) -> pb.SimulationStatus:
        """Waits until the run is in one of these states."""

        async def there() -> pb.SimulationStatus | None:
            status = await self.status(simulation_id)
            return status if status.state in states else None

        status = await wait.until(there, timeout=timeout, what=f"{simulation_id} to reach one of {states}")
        assert status is not None
        return status

    async def ends(self, simulation_id: str, timeout: float = 15) -> pb.SimulationStatus:
        """Waits until the run has ended."""
        ended = (pb.SIMULATION_STATE_COMPLETED, pb.SIMULATION_STATE_FAILED)
        return await self.reaches(simulation_id, *ended, timeout=timeout)


def command(simulation_id: str, script: str, *, sha: str = "sha", seed: int = 1) -> pb.StartSimulationCommand:
    """A start of a run whose configuration is this script."""
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
    """A message of SIM_EVENTS, unwrapped."""

    subject: str
    message_id: str
    envelope: envelope_pb2.GenericEventRequest
    payload: Payload


async def events(server: str, simulation_id: str | None = None) -> list[Event]:
    """All stored events (of one run) in the stream's order."""
    client = await nats.connect(server, connect_timeout=5)
    try:
        return [one async for one in _stored(client.jetstream()) if simulation_id in (None, one.envelope.simulation_id)]
    finally:
        await client.close()


async def event_count(server: str) -> int:
    """How many events SIM_EVENTS holds; 0 where there is no such stream yet."""
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
    """Waits until the run's event of this kind (`completed`, ...) is stored; all events of the run."""

    async def there() -> list[Event]:
        stored = await events(server, simulation_id)
        return stored if f"sim.run_{kind}" in [one.subject for one in stored] else []

    return await wait.until(there, what=f"{simulation_id} {kind} in SIM_EVENTS")
