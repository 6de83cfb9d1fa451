"""A run event's bytes: what it says, and everything that the contract finds wrong with it. Pure."""

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
KINDS = (STARTED, COMPLETED, FAILED)
ERROR_KINDS = ("simulation", "infeasible", "infrastructure", "timeout", "stopped")
_PROTOBUF_TYPES = ("application/x-protobuf", "application/protobuf")
_JSON_TYPE = "application/json"
_PAYLOADS: Mapping[str, type[protobuf.Message]] = {
    STARTED: run_events_pb2.RunStarted,
    COMPLETED: run_events_pb2.RunCompleted,
    FAILED: run_events_pb2.RunFailed,
}
_TIMES = {STARTED: ("started_at",), COMPLETED: ("finished_at",), FAILED: ("finished_at",)}
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_CLOCKS_APART_SECONDS = 24 * 3600.0


class Aspect(enum.Enum):
    """What a problem is about: each is a check of its own."""

    SUBJECT = enum.auto()
    ENVELOPE = enum.auto()
    PAYLOAD = enum.auto()


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came from the bus; `message_id` is its Nats-Msg-Id, empty where it has none."""

    subject: str
    message_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """What a message says. Fields that it doesn't have are empty; `wrong` has its problems."""

    message: Message
    kind: str
    simulation_id: str
    event_id: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    wrong: tuple[tuple[Aspect, str], ...] = ()

    @property
    def is_end(self) -> bool:
        """Whether it says that its run has ended."""
        return self.kind in (COMPLETED, FAILED)


def read(message: Message, now: float) -> Event:
    """The event in a message that was published about `now` (seconds since the Unix epoch). Never raises."""
    wrong: list[tuple[Aspect, str]] = []
    kind = ".".join(message.subject.split(".", 2)[:2])
    if kind not in KINDS:
        wrong.append((Aspect.SUBJECT, f"no run event belongs on {message.subject}; there are {', '.join(KINDS)}"))
    document = _object(message.data)
    event_id = outer = ""
    if document is None:
        try:
            envelope = envelope_pb2.GenericEventRequest.FromString(message.data)
        except protobuf.DecodeError:
            wrong.append((Aspect.ENVELOPE, "neither a JSON object nor a GenericEventRequest"))
            return Event(message, kind, "", wrong=tuple(wrong))
        event_id, outer = envelope.event_id, envelope.simulation_id
        wrong += _envelope_problems(envelope, kind, now)
        document = _payload(envelope, kind, wrong)
    if kind in KINDS:
        wrong += [(Aspect.PAYLOAD, text) for text in _payload_problems(kind, document)]
    inner = document.get("simulation_id")
    if outer and inner and inner != outer:
        wrong.append((Aspect.PAYLOAD, f"its simulation_id is {inner!r}, its envelope's {outer!r}"))
    return Event(message, kind, outer or (inner if isinstance(inner, str) else ""), event_id, document, tuple(wrong))


def _object(data: bytes) -> dict[str, Any] | None:
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _envelope_problems(envelope: envelope_pb2.GenericEventRequest, kind: str, now: float) -> list[tuple[Aspect, str]]:
    wrong = []
    if envelope.event_type_key != f"{kind}.v1":
        wrong.append((Aspect.SUBJECT, f"event_type_key is {envelope.event_type_key!r}, not {kind + '.v1'!r}"))
    if not envelope.event_id:
        wrong.append((Aspect.ENVELOPE, "event_id is empty"))
    if not envelope.simulation_id:
        wrong.append((Aspect.ENVELOPE, "simulation_id is empty"))
    if abs(envelope.timestamp_ns / 1e9 - now) > _CLOCKS_APART_SECONDS:
        words = f"timestamp_ns is {envelope.timestamp_ns}: not nanoseconds since 1970, or a clock that is a day off"
        wrong.append((Aspect.ENVELOPE, words))
    if envelope.payload_content_type not in (*_PROTOBUF_TYPES, _JSON_TYPE):
        words = f"payload_content_type is {envelope.payload_content_type!r}, not {_PROTOBUF_TYPES[0]} or {_JSON_TYPE}"
        wrong.append((Aspect.ENVELOPE, words))
    return wrong


def _payload(envelope: envelope_pb2.GenericEventRequest, kind: str, wrong: list[tuple[Aspect, str]]) -> dict[str, Any]:
    """The payload as a plain mapping, whichever way it is encoded."""
    if envelope.payload_content_type == _JSON_TYPE:
        document = _object(envelope.event_payload)
        if document is None:
            wrong.append((Aspect.PAYLOAD, "payload_content_type says JSON, and the payload isn't a JSON object"))
        return document or {}
    if kind not in _PAYLOADS:
        return {}
    try:
        said = _PAYLOADS[kind].FromString(envelope.event_payload)
    except protobuf.DecodeError:
        wrong.append((Aspect.PAYLOAD, f"the payload isn't a {_PAYLOADS[kind].DESCRIPTOR.full_name}"))
        return {}
    return {name.name: _plain(name.name, value) for name, value in said.ListFields()}


def _plain(name: str, value: Any) -> Any:
    """A protobuf value as JSON would have it."""
    if isinstance(value, timestamp_pb2.Timestamp):
        try:
            return value.ToDatetime(datetime.UTC).isoformat()
        except (ValueError, OverflowError):  # a year that no calendar has: milliseconds in the place of seconds
            return f"{value.seconds} s"
    if name == "error_kind":
        known = value in run_events_pb2.ErrorKind.values()
        return run_events_pb2.ErrorKind.Name(value).removeprefix("ERROR_KIND_").lower() if known else value
    return dict(value) if isinstance(value, Mapping) else value


def _payload_problems(kind: str, document: Mapping[str, Any]) -> list[str]:
    wrong = []
    if not isinstance(document.get("simulation_id"), str):
        wrong.append("simulation_id is missing")
    times = {name: _time(document[name]) for name in ("started_at", "finished_at") if name in document}
    wrong += [
        f"{name} is {document[name]!r}, not a time in RFC 3339 with its zone"
        for name, time in times.items()
        if time is None
    ]
    wrong += [f"{name} is missing" for name in _TIMES[kind] if name not in document]
    started, finished = times.get("started_at"), times.get("finished_at")
    if started and finished and finished < started:
        wrong.append("finished_at is before started_at")
    if kind == COMPLETED:
        wrong += _result_problems(document)
    if kind == FAILED:
        if document.get("error_kind") not in ERROR_KINDS:
            wrong.append(f"error_kind is {document.get('error_kind')!r}, none of {', '.join(ERROR_KINDS)}")
        if not isinstance(document.get("message"), str) or not document["message"]:
            wrong.append("message is empty: nobody will know why the run failed")
        if not isinstance(document.get("retryable", False), bool):
            wrong.append(f"retryable is {document['retryable']!r}, not true or false")
    return wrong


def _result_problems(document: Mapping[str, Any]) -> list[str]:
    metrics, artifacts = document.get("metrics", {}), document.get("artifacts", {})
    wrong = []
    if not isinstance(metrics, Mapping) or not all(_is_number(value) for value in metrics.values()):
        wrong.append(f"metrics is {metrics!r}, not a mapping of names to numbers")
    elif not metrics:
        wrong.append("metrics is empty")
    if not isinstance(artifacts, Mapping) or not all(
        isinstance(uri, str) and _SCHEME.match(uri) for uri in artifacts.values()
    ):
        wrong.append(f"artifacts is {artifacts!r}, not a mapping of names to URIs")
    return wrong


def _is_number(value: object) -> bool:
    """Null is a metric that the run has no value for."""
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isinf(value)


def _time(text: object) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
