"""Run events: decoding the bytes of a message into a signal about a run.

A message is JSON, or a protobuf GenericEventRequest with a protobuf or JSON payload. For anything else `decode` raises
errors.Unreadable, and it raises no other exception.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from ems_worker import errors
from ems_worker.core import text
from ems_worker.core.documents import sanitize, subjects
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2 as pb

STARTED = subjects.RUN_STARTED
COMPLETED = subjects.RUN_COMPLETED
FAILED = subjects.RUN_FAILED
METRICS = subjects.RUN_METRICS
_VERSION = ".v1"

_JSON_TYPE = "application/json"
_WHITESPACE = b" \t\r\n"


def decode(subject: str, data: bytes) -> tuple[str, Signal]:
    """The simulation_id of the run, and the signal about it. Raises errors.Unreadable with a reason for people."""
    kind = _kind(subject)
    document = _as_json(data)
    if document is not None:
        return _DECODERS[kind][0](document, None, None)
    return _envelope(kind, data)


@functools.lru_cache(maxsize=256)
def _kind(subject: str) -> str:
    kind = ".".join(subject.split(".", 2)[:2])
    if kind not in _DECODERS:
        raise errors.Unreadable(f"subject {subject} is not that of a run event")
    return kind


def _as_json(data: bytes) -> Mapping[str, Any] | None:
    """The bytes as a JSON object; None if they must be protobuf.

    No protobuf message of ours starts with `{`, which would be the tag of a group, field 15. White space before the
    `{` proves nothing: a line feed is also the tag of field 1, and `{` a length. Such bytes are JSON only if all of
    them are valid JSON.
    """
    stripped = data.lstrip(_WHITESPACE)
    if not stripped.startswith(b"{"):
        return None
    try:
        return _loads(data)
    except errors.Unreadable:
        if len(stripped) != len(data):
            return None
        raise


def _loads(data: bytes) -> Mapping[str, Any]:
    """The object in JSON that begins with `{`."""
    try:
        document: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError:
        # Python's parser accepts NaN and Infinity, which Python, C++ and R programs write.
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise errors.Unreadable(f"not valid JSON: {error}") from error
    return document


def _envelope(kind: str, data: bytes) -> tuple[str, Signal]:
    try:
        envelope = GenericEventRequest.FromString(data)
    except DecodeError as error:
        raise errors.Unreadable("neither JSON nor a GenericEventRequest") from error
    key = envelope.event_type_key
    if key != kind + _VERSION:
        raise errors.Unreadable(
            f"event_type_key is {key[: text.MAX_NAME]!r}; {kind + _VERSION} belongs on this subject"
            if key
            else "neither JSON nor a GenericEventRequest with an event_type_key"
        )
    happened_ms = sanitize.in_range(envelope.timestamp_ns // 1_000_000)
    document = _as_json(envelope.event_payload)
    if document is not None:
        return _DECODERS[kind][0](document, envelope.simulation_id, happened_ms)
    if envelope.payload_content_type.startswith(_JSON_TYPE):
        raise errors.Unreadable("payload_content_type is JSON, but the payload isn't")
    try:
        return _DECODERS[kind][1](envelope.event_payload, envelope.simulation_id, happened_ms)
    except DecodeError as error:
        raise errors.Unreadable(f"the payload is not a valid protobuf message of {key}") from error


def _name(inner: object, outer: str | None) -> str:
    """The name of the event's run. The payload and the envelope may both have it, and must agree."""
    if not outer:
        return sanitize.simulation_id(inner)
    if inner and inner != outer:
        raise errors.Unreadable("simulation_id differs between the envelope and its payload")
    return sanitize.simulation_id(outer)


def _started(document: Mapping[str, Any], outer: str | None, at_ms: int | None) -> tuple[str, Signal]:
    return _name(document.get("simulation_id"), outer), Signal(
        RunEvent.START,
        started_ms=sanitize.milliseconds(document.get("started_at")) or at_ms,
        model_version=text.clip(document.get("model_version"), text.MAX_NAME),
        host=text.clip(document.get("host"), text.MAX_NAME),
        slot=text.clip(document.get("slot"), text.MAX_NAME),
    )


def _completed(document: Mapping[str, Any], outer: str | None, at_ms: int | None) -> tuple[str, Signal]:
    return _name(document.get("simulation_id"), outer), Signal(
        RunEvent.COMPLETE,
        metrics=sanitize.metrics(document.get("metrics")),
        artifacts=sanitize.artifacts(document.get("artifacts")),
        started_ms=sanitize.milliseconds(document.get("started_at")),
        finished_ms=sanitize.milliseconds(document.get("finished_at")) or at_ms,
        model_version=text.clip(document.get("model_version"), text.MAX_NAME),
        host=text.clip(document.get("host"), text.MAX_NAME),
        slot=text.clip(document.get("slot"), text.MAX_NAME),
    )


def _failed(document: Mapping[str, Any], outer: str | None, at_ms: int | None) -> tuple[str, Signal]:
    kind, message = sanitize.failure(document.get("error_kind"), document.get("message"))
    retryable = document.get("retryable")
    return _name(document.get("simulation_id"), outer), Signal(
        RunEvent.FAIL,
        error_kind=kind,
        message=message,
        retryable=retryable if isinstance(retryable, bool) else None,
        started_ms=sanitize.milliseconds(document.get("started_at")),
        finished_ms=sanitize.milliseconds(document.get("finished_at")) or at_ms,
        host=text.clip(document.get("host"), text.MAX_NAME),
        slot=text.clip(document.get("slot"), text.MAX_NAME),
    )


def _measured(document: Mapping[str, Any], outer: str | None, at_ms: int | None) -> tuple[str, Signal]:
    return _name(document.get("simulation_id"), outer), Signal(
        RunEvent.MEASURE,
        metrics=sanitize.metrics(document.get("metrics")),
        step=sanitize.step(document.get("step")),
        total=sanitize.total(document.get("total")),
    )


def _started_pb(data: bytes, outer: str, at_ms: int | None) -> tuple[str, Signal]:
    payload = pb.RunStarted.FromString(data)
    return _name(payload.simulation_id, outer), Signal(
        RunEvent.START,
        started_ms=_milliseconds(payload.started_at) or at_ms,
        model_version=text.clip(payload.model_version, text.MAX_NAME),
        host=text.clip(payload.host, text.MAX_NAME),
        slot=text.clip(payload.slot, text.MAX_NAME),
    )


def _completed_pb(data: bytes, outer: str, at_ms: int | None) -> tuple[str, Signal]:
    payload = pb.RunCompleted.FromString(data)
    return _name(payload.simulation_id, outer), Signal(
        RunEvent.COMPLETE,
        metrics=sanitize.metrics(dict(payload.metrics)),
        artifacts=sanitize.artifacts(dict(payload.artifacts)) if payload.artifacts else {},
        started_ms=_milliseconds(payload.started_at),
        finished_ms=_milliseconds(payload.finished_at) or at_ms,
        model_version=text.clip(payload.model_version, text.MAX_NAME),
        host=text.clip(payload.host, text.MAX_NAME),
        slot=text.clip(payload.slot, text.MAX_NAME),
    )


def _failed_pb(data: bytes, outer: str, at_ms: int | None) -> tuple[str, Signal]:
    payload = pb.RunFailed.FromString(data)
    known = payload.error_kind in pb.ErrorKind.values()
    name = pb.ErrorKind.Name(payload.error_kind) if known else str(payload.error_kind)
    kind, message = sanitize.failure(name, payload.message)
    return _name(payload.simulation_id, outer), Signal(
        RunEvent.FAIL,
        error_kind=kind,
        message=message,
        retryable=payload.retryable if payload.HasField("retryable") else None,
        started_ms=_milliseconds(payload.started_at),
        finished_ms=_milliseconds(payload.finished_at) or at_ms,
        host=text.clip(payload.host, text.MAX_NAME),
        slot=text.clip(payload.slot, text.MAX_NAME),
    )


def _measured_pb(data: bytes, outer: str, at_ms: int | None) -> tuple[str, Signal]:
    payload = pb.RunMetrics.FromString(data)
    return _name(payload.simulation_id, outer), Signal(
        RunEvent.MEASURE,
        metrics=sanitize.metrics(dict(payload.metrics)),
        step=sanitize.step(payload.step) if payload.HasField("step") else None,
        total=sanitize.total(payload.total) if payload.HasField("total") else None,
    )


def _milliseconds(timestamp: Timestamp) -> int | None:
    """None for an absent timestamp, whose fields are zero."""
    return sanitize.in_range(timestamp.seconds * 1000 + timestamp.nanos // 1_000_000)


_FromJson = Callable[[Mapping[str, Any], str | None, int | None], tuple[str, Signal]]
_FromProtobuf = Callable[[bytes, str, int | None], tuple[str, Signal]]
_DECODERS: Mapping[str, tuple[_FromJson, _FromProtobuf]] = {
    STARTED: (_started, _started_pb),
    COMPLETED: (_completed, _completed_pb),
    FAILED: (_failed, _failed_pb),
    METRICS: (_measured, _measured_pb),
}
