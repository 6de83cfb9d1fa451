"""What GetSimulationStatus says, as signals like those of events."""

from google.protobuf.timestamp_pb2 import Timestamp

from ems_worker import errors
from ems_worker.core import text
from ems_worker.core.documents import sanitize
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb


def read(response: pb.GetSimulationStatusResponse) -> dict[str, Signal | None]:
    """By simulation_id; None for runs that the orchestrator doesn't know. What can't be understood is left out."""
    found: dict[str, Signal | None] = {}
    for one in response.statuses:
        if one.state == pb.SIMULATION_STATE_NOT_FOUND:
            found[one.simulation_id] = None
            continue
        try:
            signal = _signal(one)
        except errors.Unreadable:
            continue
        if signal is not None:
            found[one.simulation_id] = signal
    return found


def _signal(one: pb.SimulationStatus) -> Signal | None:
    started_ms, finished_ms = _milliseconds(one.started_at), _milliseconds(one.finished_at)
    version = text.clip(one.model_version, text.MAX_NAME)
    if one.state == pb.SIMULATION_STATE_QUEUED:
        return Signal(RunEvent.ACCEPT)
    if one.state in (pb.SIMULATION_STATE_RUNNING, pb.SIMULATION_STATE_PAUSED):
        return Signal(RunEvent.START, started_ms=started_ms, model_version=version)
    if one.state == pb.SIMULATION_STATE_COMPLETED:
        return Signal(
            RunEvent.COMPLETE,
            metrics=sanitize.metrics(dict(one.metrics)),
            artifacts=sanitize.artifacts(dict(one.artifacts)),
            started_ms=started_ms,
            finished_ms=finished_ms,
            model_version=version,
        )
    if one.state == pb.SIMULATION_STATE_FAILED:
        kind, message = sanitize.failure(one.error_kind, one.message)
        return Signal(
            RunEvent.FAIL,
            error_kind=kind,
            message=message,
            retryable=one.retryable if one.HasField("retryable") else None,
            started_ms=started_ms,
            finished_ms=finished_ms,
            model_version=version,
        )
    return None


def _milliseconds(timestamp: Timestamp) -> int | None:
    return sanitize.in_range(timestamp.seconds * 1000 + timestamp.nanos // 1_000_000)
