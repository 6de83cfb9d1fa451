"""How the conformance kit reads events: valid events have no problems, and any bytes can be read."""

import json
import time
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.conformance import messages
from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

NOW = 1_780_000_000.0
NAME = "e-p000000-r000-a1"
COMPLETED = {"simulation_id": NAME, "metrics": {"a": 1, "b": None}, "finished_at": "2026-05-28T00:00:00.000Z"}
FAILED = {"simulation_id": NAME, "error_kind": "timeout", "message": "late", "finished_at": "2026-05-28T00:00:00+02:00"}
STARTED = {"simulation_id": NAME, "started_at": "2026-05-28T00:00:00Z"}


def problems(kind: str, data: bytes) -> list[str]:
    event = messages.read(messages.Message(kind, "id", data), NOW)
    return [problem for _, problem in event.problems]


def wrapped(kind: str, payload: bytes, content_type: str) -> bytes:
    return envelope_pb2.GenericEventRequest(
        event_id="1",
        event_type_key=f"{kind}.v1",
        event_payload=payload,
        timestamp_ns=int(NOW * 1e9),
        simulation_id=NAME,
        payload_content_type=content_type,
    ).SerializeToString()


@pytest.mark.parametrize("document", [COMPLETED, FAILED, STARTED])
def test_json_is_valid_with_and_without_an_envelope(document: dict[str, Any]) -> None:
    """Plain JSON, and JSON in a GenericEventRequest, have no problems."""
    kinds = {"metrics": messages.COMPLETED, "error_kind": messages.FAILED}
    kind = next((kind for key, kind in kinds.items() if key in document), messages.STARTED)
    data = json.dumps(document).encode()
    assert problems(kind, data) == []
    assert problems(kind, wrapped(kind, data, "application/json")) == []
    assert messages.read(messages.Message(kind, "id", data), NOW).simulation_id == NAME


def test_a_protobuf_payload_is_read_like_json() -> None:
    """The fields of a protobuf payload have the same names and values as in JSON."""
    at = timestamp_pb2.Timestamp(seconds=int(NOW))
    payload = run_events_pb2.RunFailed(
        simulation_id=NAME, error_kind=run_events_pb2.ERROR_KIND_TIMEOUT, message="late", finished_at=at
    )
    data = wrapped(messages.FAILED, payload.SerializeToString(), "application/x-protobuf")
    event = messages.read(messages.Message(messages.FAILED, "id", data), NOW)
    assert event.problems == ()
    assert event.payload == {
        "simulation_id": NAME,
        "error_kind": "timeout",
        "message": "late",
        "finished_at": "2026-05-28T20:26:40+00:00",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"simulation_id": 7}, "simulation_id is missing"),
        ({"metrics": {"a": True}}, "not a mapping of names to numbers"),
        ({"metrics": [1]}, "not a mapping of names to numbers"),
        ({"finished_at": "2026-05-28T00:00:00"}, "not a time in RFC 3339 with its zone"),
        ({"finished_at": 1_780_000_000}, "not a time in RFC 3339 with its zone"),
        ({"started_at": "2026-05-29T00:00:00Z"}, "finished_at is before started_at"),
        ({"artifacts": {"log": "runs/log"}}, "not a mapping of names to URIs"),
    ],
)
def test_each_violation_of_the_contract_is_a_problem(change: dict[str, Any], message: str) -> None:
    """A field that violates the contract is a problem of its own, which names the field."""
    [problem] = problems(messages.COMPLETED, json.dumps({**COMPLETED, **change}).encode())
    assert message in problem


def test_a_time_beyond_the_calendar_is_a_problem() -> None:
    """Milliseconds in place of the seconds of a Timestamp raise no exception."""
    at = timestamp_pb2.Timestamp(seconds=int(NOW * 1000))
    payload = run_events_pb2.RunStarted(simulation_id=NAME, started_at=at).SerializeToString()
    [problem] = problems(messages.STARTED, wrapped(messages.STARTED, payload, "application/x-protobuf"))
    assert problem == "started_at is '1780000000000 s', not a time in RFC 3339 with its zone"


@given(
    st.sampled_from([*messages.KINDS, "sim.run_metrics", "sim.run_started.eu", "else"]),
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)
        )
        .map(lambda value: json.dumps({**COMPLETED, **(value if isinstance(value, dict) else {"metrics": value})}))
        .map(str.encode),
        st.binary(max_size=100).map(lambda payload: wrapped(messages.FAILED, payload, "application/x-protobuf")),
    ),
)
def test_any_bytes_are_an_event_with_problems(subject: str, data: bytes) -> None:
    """Reading arbitrary bytes raises no exception."""
    event = messages.read(messages.Message(subject, "", data), time.time())
    assert event.message.data == data
