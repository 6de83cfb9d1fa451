"""The events of a run, as bytes: the platform's envelope around a protobuf payload."""

from google.protobuf import message, timestamp_pb2

from ems_worker.core.documents import subjects
from ems_worker.local.orchestrator import model
from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

STARTED = subjects.RUN_STARTED
COMPLETED = subjects.RUN_COMPLETED
FAILED = subjects.RUN_FAILED
_SOURCE = "ems-local-orchestrator"
_KINDS = {
    model.ErrorKind.SIMULATION: run_events_pb2.ERROR_KIND_SIMULATION,
    model.ErrorKind.INFEASIBLE: run_events_pb2.ERROR_KIND_INFEASIBLE,
    model.ErrorKind.INFRASTRUCTURE: run_events_pb2.ERROR_KIND_INFRASTRUCTURE,
    model.ErrorKind.STOPPED: run_events_pb2.ERROR_KIND_STOPPED,
}


def started(run: model.Run) -> model.Event:
    """sim.run_started"""
    payload = run_events_pb2.RunStarted(
        simulation_id=run.simulation_id, started_at=timestamp(run.started_ns), model_version=run.model_version
    )
    return _event(STARTED, run, run.started_ns, payload)


def ended(run: model.Run) -> model.Event:
    """sim.run_completed or sim.run_failed, as the run's outcome says."""
    outcome = run.outcome
    started_at = timestamp(run.started_ns) if run.started_ns else None
    finished_at = timestamp(run.finished_ns)
    if outcome.error_kind is None:
        completed = run_events_pb2.RunCompleted(
            simulation_id=run.simulation_id,
            metrics=outcome.metrics,
            artifacts=outcome.artifacts,
            started_at=started_at,
            finished_at=finished_at,
            model_version=run.model_version,
        )
        return _event(COMPLETED, run, run.finished_ns, completed)
    failed = run_events_pb2.RunFailed(
        simulation_id=run.simulation_id,
        error_kind=_KINDS[outcome.error_kind],
        message=outcome.message,
        retryable=outcome.retryable,
        started_at=started_at,
        finished_at=finished_at,
    )
    return _event(FAILED, run, run.finished_ns, failed)


def timestamp(nanoseconds: int) -> timestamp_pb2.Timestamp:
    """Nanoseconds since the Unix epoch as protobuf has them."""
    return timestamp_pb2.Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def _event(subject: str, run: model.Run, at_ns: int, payload: message.Message) -> model.Event:
    # The same id at every publish: the stream drops the second of two within its duplicate window, readers the rest.
    message_id = f"{run.simulation_id}:{subject.removeprefix(subjects.RUN_PREFIX)}"
    body = envelope_pb2.GenericEventRequest(
        event_id=message_id,
        event_type_key=f"{subject}.v1",
        event_payload=payload.SerializeToString(),
        timestamp_ns=at_ns,
        source_worker_id=_SOURCE,
        simulation_id=run.simulation_id,
        payload_content_type="application/x-protobuf",
        correlation_id=run.experiment_id,
    )
    return model.Event(run.simulation_id, subject, message_id, body.SerializeToString())
