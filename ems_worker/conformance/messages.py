"""Reading the bytes of a run event, with every violation of the contract in it. Pure."""

import datetime
import enum
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import message as protobuf
from google.protobuf import timestamp_pb2

from ems_worker.conformance import subjects
from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

STARTED = subjects.RUN_STARTED
COMPLETED = subjects.RUN_COMPLETED
FAILED = subjects.RUN_FAILED
METRICS = subjects.RUN_METRICS
ONCE = (STARTED, COMPLETED, FAILED)
"""Events that a run has at most once. `METRICS`, its progress, may come again and again."""
KINDS = (*ONCE, METRICS)
ERROR_KINDS = ("simulation", "infeasible", "infrastructure", "timeout", "stopped")
_PROTOBUF_TYPES = ("application/x-protobuf", "application/protobuf")
_JSON_TYPE = "application/json"
_PAYLOADS: Mapping[str, type[protobuf.Message]] = {
    STARTED: run_events_pb2.RunStarted,
    COMPLETED: run_events_pb2.RunCompleted,
    FAILED: run_events_pb2.RunFailed,
    METRICS: run_events_pb2.RunMetrics,
}
_TIMES = {STARTED: ("started_at",), COMPLETED: ("finished_at",), FAILED: ("finished_at",), METRICS: ()}
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_MAX_CLOCK_DIFFERENCE_SECONDS = 24 * 3600.0


class Aspect(enum.Enum):
    """What a problem is about; there is a check for each aspect."""

    SUBJECT = enum.auto()
    ENVELOPE = enum.auto()
    PAYLOAD = enum.auto()


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the bus; `message_id` is its Nats-Msg-Id, or empty."""

    subject: str
    message_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """The event in a message. Fields that are missing in the message are empty."""

    message: Message
    kind: str
    simulation_id: str
    event_id: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[tuple[Aspect, str], ...] = ()

    @property
    def is_end(self) -> bool:
        """Whether the event reports the end of its run."""
        return self.kind in (COMPLETED, FAILED)


def read(message: Message, now: float) -> Event:
    """The event in a message that was published about `now` (seconds since the Unix epoch). Never raises."""
    problems: list[tuple[Aspect, str]] = []
    kind = ".".join(message.subject.split(".", 2)[:2])
    if kind not in KINDS:
        wanted = f"run events belong on {', '.join(KINDS)}"
        problems.append((Aspect.SUBJECT, f"{message.subject} is not the subject of a run event; {wanted}"))
    document = _object(message.data)
    event_id = outer = ""
    if document is None:
        try:
            envelope = envelope_pb2.GenericEventRequest.FromString(message.data)
        except protobuf.DecodeError:
            problems.append((Aspect.ENVELOPE, "neither a JSON object nor a GenericEventRequest"))
            return Event(message, kind, "", problems=tuple(problems))
        event_id, outer = envelope.event_id, envelope.simulation_id
        problems += _envelope_problems(envelope, kind, now)
        document, payload_problems = _payload(envelope, kind)
        problems += payload_problems
    if kind in KINDS:
        problems += [(Aspect.PAYLOAD, text) for text in _payload_problems(kind, document)]
    inner = document.get("simulation_id")
    if outer and inner and inner != outer:
        problems.append((Aspect.PAYLOAD, f"its simulation_id is {inner!r}, its envelope's {outer!r}"))
    simulation_id = outer or (inner if isinstance(inner, str) else "")
    return Event(message, kind, simulation_id, event_id, document, tuple(problems))


def _object(data: bytes) -> dict[str, Any] | None:
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _envelope_problems(envelope: envelope_pb2.GenericEventRequest, kind: str, now: float) -> list[tuple[Aspect, str]]:
    problems = []
    if envelope.event_type_key != f"{kind}.v1":
        problems.append((Aspect.SUBJECT, f"event_type_key is {envelope.event_type_key!r}, not {kind + '.v1'!r}"))
    if not envelope.event_id:
        problems.append((Aspect.ENVELOPE, "event_id is empty"))
    if not envelope.simulation_id:
        problems.append((Aspect.ENVELOPE, "simulation_id is empty"))
    if abs(envelope.timestamp_ns / 1e9 - now) > _MAX_CLOCK_DIFFERENCE_SECONDS:
        problem = f"timestamp_ns is {envelope.timestamp_ns}: not nanoseconds since 1970, or a clock that is a day off"
        problems.append((Aspect.ENVELOPE, problem))
    if envelope.payload_content_type not in (*_PROTOBUF_TYPES, _JSON_TYPE):
        problem = f"payload_content_type is {envelope.payload_content_type!r}, not {_PROTOBUF_TYPES[0]} or {_JSON_TYPE}"
        problems.append((Aspect.ENVELOPE, problem))
    return problems


def _payload(envelope: envelope_pb2.GenericEventRequest, kind: str) -> tuple[dict[str, Any], list[tuple[Aspect, str]]]:
    """The payload as a plain mapping, whichever way it is encoded, and the problems of its encoding."""
    if envelope.payload_content_type == _JSON_TYPE:
        document = _object(envelope.event_payload)
        if document is None:
            return {}, [(Aspect.PAYLOAD, "payload_content_type is JSON, but the payload isn't a JSON object")]
        return document, []
    if kind not in _PAYLOADS:
        return {}, []
    try:
        payload = _PAYLOADS[kind].FromString(envelope.event_payload)
    except protobuf.DecodeError:
        return {}, [(Aspect.PAYLOAD, f"the payload isn't a {_PAYLOADS[kind].DESCRIPTOR.full_name}")]
    return {field.name: _plain(field.name, value) for field, value in payload.ListFields()}, []


def _plain(name: str, value: Any) -> Any:
    """A protobuf value as it would be in JSON."""
    if isinstance(value, timestamp_pb2.Timestamp):
        try:
            return value.ToDatetime(datetime.UTC).isoformat()
        except (ValueError, OverflowError):  # a year beyond the calendar: milliseconds in place of seconds
            return f"{value.seconds} s"
    if name == "error_kind":
        known = value in run_events_pb2.ErrorKind.values()
        return run_events_pb2.ErrorKind.Name(value).removeprefix("ERROR_KIND_").lower() if known else value
    return dict(value) if isinstance(value, Mapping) else value


def _payload_problems(kind: str, document: Mapping[str, Any]) -> list[str]:
    problems = []
    if not isinstance(document.get("simulation_id"), str):
        problems.append("simulation_id is missing")
    times = {name: _time(document[name]) for name in ("started_at", "finished_at") if name in document}
    problems += [
        f"{name} is {document[name]!r}, not a time in RFC 3339 with its zone"
        for name, time in times.items()
        if time is None
    ]
    problems += [f"{name} is missing" for name in _TIMES[kind] if name not in document]
    started, finished = times.get("started_at"), times.get("finished_at")
    if started and finished and finished < started:
        problems.append("finished_at is before started_at")
    if kind == COMPLETED:
        problems += _result_problems(document)
    if kind == METRICS:
        problems += _progress_problems(document)
    if kind == FAILED:
        if document.get("error_kind") not in ERROR_KINDS:
            problems.append(f"error_kind is {document.get('error_kind')!r}, none of {', '.join(ERROR_KINDS)}")
        if not isinstance(document.get("message"), str) or not document["message"]:
            problems.append("message is empty: it must say why the run failed")
        if not isinstance(document.get("retryable", False), bool):
            problems.append(f"retryable is {document['retryable']!r}, not true or false")
    return problems


def _result_problems(document: Mapping[str, Any]) -> list[str]:
    metrics, artifacts = document.get("metrics", {}), document.get("artifacts", {})
    problems = []
    if not isinstance(metrics, Mapping) or not all(_is_number(value) for value in metrics.values()):
        problems.append(f"metrics is {metrics!r}, not a mapping of names to numbers")
    elif not metrics:
        problems.append("metrics is empty")
    if not isinstance(artifacts, Mapping) or not all(
        isinstance(uri, str) and _SCHEME.match(uri) for uri in artifacts.values()
    ):
        problems.append(f"artifacts is {artifacts!r}, not a mapping of names to URIs")
    return problems


def _progress_problems(document: Mapping[str, Any]) -> list[str]:
    problems = []
    step, total = document.get("step", 0), document.get("total", 1)
    if step is None or not _is_number(step) or not step >= 0:
        problems.append(f"step is {step!r}, not a number of at least 0")
    if total is None or not _is_number(total) or not total > 0:
        problems.append(f"total is {total!r}, not a number above 0")
    return problems


def _is_number(value: object) -> bool:
    """Whether it is a number, or null: a metric without a value."""
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isinf(value)


def _time(text: object) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
