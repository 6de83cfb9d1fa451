"""The statuses of GetSimulationStatus, as the signals that events would give."""

from google.protobuf.timestamp_pb2 import Timestamp

from ems_worker import errors
from ems_worker.core import text
from ems_worker.core.documents import sanitize
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb


def read(response: pb.GetSimulationStatusResponse) -> dict[str, Signal | None]:
    """Signals by simulation_id; None for runs that the orchestrator doesn't know. Unreadable statuses are left out."""
    signals: dict[str, Signal | None] = {}
    for status in response.statuses:
        if status.state == pb.SIMULATION_STATE_NOT_FOUND:
            signals[status.simulation_id] = None
            continue
        try:
            signal = _signal(status)
        except errors.Unreadable:
            continue
        if signal is not None:
            signals[status.simulation_id] = signal
    return signals


def _signal(status: pb.SimulationStatus) -> Signal | None:
    started_ms, finished_ms = _milliseconds(status.started_at), _milliseconds(status.finished_at)
    version = text.clip(status.model_version, text.MAX_NAME)
    host, slot = text.clip(status.host, text.MAX_NAME), text.clip(status.slot, text.MAX_NAME)
    if status.state == pb.SIMULATION_STATE_QUEUED:
        return Signal(RunEvent.ACCEPT)
    if status.state in (pb.SIMULATION_STATE_RUNNING, pb.SIMULATION_STATE_PAUSED):
        # PAUSED is no news either: the run is open, and the worker knows which runs it paused.
        return Signal(RunEvent.START, started_ms=started_ms, model_version=version, host=host, slot=slot)
    if status.state == pb.SIMULATION_STATE_COMPLETED:
        return Signal(
            RunEvent.COMPLETE,
            metrics=sanitize.metrics(dict(status.metrics)),
            artifacts=sanitize.artifacts(dict(status.artifacts)),
            started_ms=started_ms,
            finished_ms=finished_ms,
            model_version=version,
            host=host,
            slot=slot,
        )
    if status.state == pb.SIMULATION_STATE_FAILED:
        kind, message = sanitize.failure(status.error_kind, status.message)
        return Signal(
            RunEvent.FAIL,
            error_kind=kind,
            message=message,
            retryable=status.retryable if status.HasField("retryable") else None,
            started_ms=started_ms,
            finished_ms=finished_ms,
            model_version=version,
            host=host,
            slot=slot,
        )
    return None


def _milliseconds(timestamp: Timestamp) -> int | None:
    return sanitize.in_range(timestamp.seconds * 1000 + timestamp.nanos // 1_000_000)
