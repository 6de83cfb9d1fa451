"""Encodes the events of a run: the platform's envelope around a protobuf payload."""

from google.protobuf import message, timestamp_pb2

from ems_worker.core.documents import subjects
from ems_worker.local.orchestrator import model
from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

STARTED = subjects.RUN_STARTED
COMPLETED = subjects.RUN_COMPLETED
FAILED = subjects.RUN_FAILED
METRICS = subjects.RUN_METRICS
_SOURCE = "ems-local-orchestrator"
_ERROR_KINDS = {
    model.ErrorKind.SIMULATION: run_events_pb2.ERROR_KIND_SIMULATION,
    model.ErrorKind.INFEASIBLE: run_events_pb2.ERROR_KIND_INFEASIBLE,
    model.ErrorKind.INFRASTRUCTURE: run_events_pb2.ERROR_KIND_INFRASTRUCTURE,
    model.ErrorKind.STOPPED: run_events_pb2.ERROR_KIND_STOPPED,
}


def started(run: model.LocalRun) -> model.Event:
    """The event sim.run_started."""
    payload = run_events_pb2.RunStarted(
        simulation_id=run.simulation_id,
        started_at=timestamp(run.started_ns),
        model_version=run.model_version,
        host=run.host,
        slot=run.slot,
    )
    # A run that a shutdown interrupted starts again, which is another event.
    again = f":{run.starts}" if run.starts > 1 else ""
    return _event(STARTED, run, run.started_ns, payload, distinct=again)


def ended(run: model.LocalRun) -> model.Event:
    """The event sim.run_completed or sim.run_failed."""
    end = run.end
    started_at = timestamp(run.started_ns) if run.started_ns else None
    finished_at = timestamp(run.finished_ns)
    if end.error_kind is None:
        completed = run_events_pb2.RunCompleted(
            simulation_id=run.simulation_id,
            metrics=end.metrics,
            artifacts=end.artifacts,
            started_at=started_at,
            finished_at=finished_at,
            model_version=run.model_version,
            host=run.host,
            slot=run.slot,
        )
        return _event(COMPLETED, run, run.finished_ns, completed)
    failed = run_events_pb2.RunFailed(
        simulation_id=run.simulation_id,
        error_kind=_ERROR_KINDS[end.error_kind],
        message=end.message,
        retryable=end.retryable,
        started_at=started_at,
        finished_at=finished_at,
        host=run.host,
        slot=run.slot,
    )
    return _event(FAILED, run, run.finished_ns, failed)


def progress(run: model.LocalRun, step: float | None, total: float | None, *, at_ns: int) -> model.Event:
    """The event sim.run_metrics of an open run that was at `step` of `total` at the time `at_ns`."""
    payload = run_events_pb2.RunMetrics(simulation_id=run.simulation_id, source=_SOURCE, step=step, total=total)
    return _event(METRICS, run, at_ns, payload, distinct=f":{at_ns}")


def timestamp(nanoseconds: int) -> timestamp_pb2.Timestamp:
    """Nanoseconds since the Unix epoch as a protobuf timestamp."""
    return timestamp_pb2.Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def _event(
    subject: str, run: model.LocalRun, at_ns: int, payload: message.Message, *, distinct: str = ""
) -> model.Event:
    # The id is the same at every publish: the stream drops duplicates within its window, and readers drop later ones.
    message_id = f"{run.simulation_id}:{subject.removeprefix(subjects.RUN_PREFIX)}{distinct}"
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
