"""The events of the scripted orchestrator, with the faults of its way of being wrong."""

import asyncio
import secrets
import time

import nats.errors
from nats.aio.client import Client

from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

Payload = run_events_pb2.RunStarted | run_events_pb2.RunCompleted | run_events_pb2.RunFailed
_KINDS = {
    run_events_pb2.RunStarted: "sim.run_started",
    run_events_pb2.RunCompleted: "sim.run_completed",
    run_events_pb2.RunFailed: "sim.run_failed",
}


class Events:
    """Publishes events until they are stored."""

    def __init__(self, client: Client, way: str) -> None:
        self._client = client
        self._stream = client.jetstream()
        self._way = way
        self._last = ("", b"")

    async def report(self, payload: Payload) -> None:
        """Publishes the event with this payload."""
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
        while True:
            if self._way == "loses-events" and not self._client.is_connected:
                return  # nats-py would keep the message and send it after the outage
            try:
                await self._stream.publish(subject, data, timeout=0.2, headers=headers)
                return
            except (nats.errors.Error, OSError):
                if self._way == "loses-events":
                    return
                await asyncio.sleep(0.05)

    async def repeat_under_a_new_id(self) -> None:
        """Publishes the last event again, with another message id."""
        await self._publish(*self._last, {"Nats-Msg-Id": secrets.token_hex(8)})
