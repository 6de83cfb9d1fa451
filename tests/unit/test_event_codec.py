"""Decoding run events, in every encoding of the contract."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import event_codec
from ems_worker.core import text
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2 as pb

STARTED_MS, FINISHED_MS = 1_767_225_600_000, 1_767_225_601_234
STARTED_AT, FINISHED_AT = "2026-01-01T00:00:00Z", "2026-01-01T01:00:01.234567891+01:00"
SUBJECTS = (event_codec.STARTED, event_codec.COMPLETED, event_codec.FAILED, event_codec.METRICS)

COMPLETED = Signal(
    RunEvent.COMPLETE,
    metrics={"population": 25.0, "bad": None},
    artifacts={"series": "file:///reef.csv"},
    started_ms=STARTED_MS,
    finished_ms=FINISHED_MS,
    model_version="m7",
)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _envelope(subject: str, payload: bytes, **fields: Any) -> bytes:
    fields = {"event_type_key": f"{subject}.v1", "event_payload": payload} | fields
    return GenericEventRequest(**fields).SerializeToString()


def _completed_json() -> bytes:
    return _json(
        {
            "simulation_id": "reef-p000001-r000-a1",
            "metrics": {"population": 25, "bad": float("nan")},
            "artifacts": {"series": "file:///reef.csv"},
            "started_at": STARTED_AT,
            "finished_at": FINISHED_AT,
            "model_version": "m7",
            "some_other_key": [1],
        }
    )


def _completed_pb() -> bytes:
    payload = pb.RunCompleted(
        simulation_id="reef-p000001-r000-a1",
        metrics={"population": 25.0, "bad": float("inf")},
        artifacts={"series": "file:///reef.csv"},
        model_version="m7",
    )
    payload.started_at.FromMilliseconds(STARTED_MS)
    payload.finished_at.FromNanoseconds(FINISHED_MS * 1_000_000 + 567_891)
    return payload.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        _completed_json(),
        b" \r\n\t" + _completed_json(),
        _envelope("sim.run_completed", _completed_json(), payload_content_type="application/json; charset=utf-8"),
        _envelope("sim.run_completed", _completed_json()),
        _envelope("sim.run_completed", _completed_pb(), payload_content_type="application/x-protobuf"),
        _envelope("sim.run_completed", _completed_pb(), simulation_id="reef-p000001-r000-a1", event_id="e1"),
    ],
)
@pytest.mark.parametrize("subject", ["sim.run_completed", "sim.run_completed.reef.1"])
def test_every_encoding_gives_the_same_signal(subject: str, data: bytes) -> None:
    """JSON, an envelope with JSON and an envelope with protobuf mean the same, on the subject and below it."""
    assert event_codec.decode(subject, data) == ("reef-p000001-r000-a1", COMPLETED)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_start_is_decoded(as_json: bool) -> None:
    """The signal has the time of the start and the version of the model."""
    payload = pb.RunStarted(simulation_id="a", model_version="m7")
    payload.started_at.FromMilliseconds(STARTED_MS)
    document = {"simulation_id": "a", "started_at": STARTED_AT, "model_version": "m7"}
    data = _json(document) if as_json else _envelope("sim.run_started", payload.SerializeToString())
    expected = Signal(RunEvent.START, started_ms=STARTED_MS, model_version="m7")
    assert event_codec.decode("sim.run_started", data) == ("a", expected)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("retryable", [True, False, None])
@pytest.mark.parametrize("kind", ["simulation", "infeasible", "infrastructure", "timeout", "stopped"])
def test_a_failure_is_decoded(as_json: bool, retryable: bool | None, kind: str) -> None:
    """The signal has the kind of the error, its message, and whether it can be retried if the event says so."""
    number = pb.ErrorKind.Value(f"ERROR_KIND_{kind.upper()}")
    payload = pb.RunFailed(simulation_id="a", error_kind=number, message="why", retryable=retryable)
    document = {"simulation_id": "a", "error_kind": kind, "message": "why", "retryable": retryable}
    data = _json(document) if as_json else _envelope("sim.run_failed", payload.SerializeToString())
    expected = Signal(RunEvent.FAIL, error_kind=ErrorKind(kind), message="why", retryable=retryable)
    assert event_codec.decode("sim.run_failed", data) == ("a", expected)


def test_metrics_are_decoded() -> None:
    """Metrics of a run that come by themselves are read from JSON and from protobuf."""
    payload = pb.RunMetrics(simulation_id="a", metrics={"population": 3.0})
    document = {"simulation_id": "a", "metrics": {"population": 3}}
    for data in (_json(document), _envelope("sim.run_metrics", payload.SerializeToString())):
        expected = Signal(RunEvent.MEASURE, metrics={"population": 3.0})
        assert event_codec.decode("sim.run_metrics", data) == ("a", expected)


def test_the_envelope_fills_in_what_its_payload_leaves_out() -> None:
    """The run's name and the time of the event come from the envelope if the payload has none."""
    at_ns = FINISHED_MS * 1_000_000
    outer = {"simulation_id": "a", "timestamp_ns": at_ns}
    for subject, payload in [("sim.run_failed", b"{}"), ("sim.run_failed", b""), ("sim.run_completed", b"")]:
        name, signal = event_codec.decode(subject, _envelope(subject, payload, **outer))
        assert (name, signal.started_ms, signal.finished_ms) == ("a", None, FINISHED_MS)
    _, signal = event_codec.decode("sim.run_started", _envelope("sim.run_started", b"", **outer))
    assert signal.started_ms == FINISHED_MS


def test_an_unknown_protobuf_kind_keeps_its_number() -> None:
    """An unknown kind of error counts as a failure of the simulation, and the message has its number."""
    payload = pb.RunFailed(simulation_id="a", message="why")
    data = payload.SerializeToString() + b"\x10\x63"
    _, signal = event_codec.decode("sim.run_failed", _envelope("sim.run_failed", data))
    assert (signal.error_kind, signal.message) == (ErrorKind.SIMULATION, "error_kind '99': why")


@pytest.mark.parametrize(
    ("subject", "data", "message"),
    [
        ("sim.run_weather", b"{}", "not that of a run event"),
        ("sim", b"{}", "not that of a run event"),
        ("sim.run_started", b"", "neither JSON nor"),
        ("sim.run_started", b"\xff\xff", "neither JSON nor"),
        ("sim.run_started", b"[1]", "neither JSON nor"),
        ("sim.run_started", b"{", "not valid JSON"),
        ("sim.run_started", b"{" * 100_000, "not valid JSON"),
        ("sim.run_started", b'{"a":' * 100_000, "not valid JSON"),
        ("sim.run_started", b"{}", "simulation_id is missing"),
        ("sim.run_started", b'{"simulation_id": 7}', "simulation_id is missing"),
        ("sim.run_started", _json({"simulation_id": "x" * 201}), "the limit is 200"),
        ("sim.run_completed", _json({"simulation_id": "a", "metrics": [1]}), "metrics is not a mapping"),
        (
            "sim.run_completed",
            _json({"simulation_id": "a", "metrics": {str(n): n for n in range(1001)}}),
            "1001 entries",
        ),
        ("sim.run_completed", _json({"simulation_id": "a", "metrics": {"": 1}}), "a name that is empty"),
        ("sim.run_completed", _json({"simulation_id": "a", "artifacts": {"a": "x" * 2001}}), "the limit is 2000"),
        ("sim.run_started", GenericEventRequest(simulation_id="a").SerializeToString(), "an event_type_key"),
        (
            "sim.run_started",
            _envelope("sim.run_failed", b"", simulation_id="a"),
            "'sim.run_failed.v1'; sim.run_started.v1",
        ),
        (
            "sim.run_started",
            _envelope("sim.run_started", b"", event_type_key="sim.run_started.v2"),
            "'sim.run_started.v2'",
        ),
        ("sim.run_started", _envelope("sim.run_started", b"\xff", simulation_id="a"), "not a valid protobuf message"),
        ("sim.run_started", _envelope("sim.run_started", b"{", simulation_id="a"), "not valid JSON"),
        (
            "sim.run_started",
            _envelope("sim.run_started", b"", simulation_id="a", payload_content_type="application/json"),
            "is JSON, but the payload isn't",
        ),
        (
            "sim.run_started",
            _envelope("sim.run_started", _json({"simulation_id": "b"}), simulation_id="a"),
            "differs between the envelope and its payload",
        ),
    ],
)
def test_an_unreadable_event_is_refused_with_its_reason(subject: str, data: bytes, message: str) -> None:
    """The reason, which is written into the dead letter, is specific and short."""
    with pytest.raises(errors.Unreadable) as caught:
        event_codec.decode(subject, data)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(st.sampled_from(SUBJECTS), st.binary())
@example("sim.run_started", b'{"simulation_id": "\\ud800", "metrics": NaN}')
@example("sim.run_completed", b'{"simulation_id": "a", "metrics": {"\\udfff": 1e999}, "finished_at": NaN}')
@example("sim.run_completed", b'{"simulation_id": "a", "metrics": {"a": 1' + b"0" * 400 + b', "b": NaN}}')
@example("sim.run_completed", b'{"simulation_id": "a", "finished_at": "0001-01-01T00:00:00+23:59"}')
@example("sim.run_completed", b'{"a": 1' + b"0" * 5000 + b', "b": NaN}')
def test_arbitrary_bytes_are_a_signal_or_unreadable(subject: str, data: bytes) -> None:
    """Arbitrary bytes raise nothing but Unreadable, and what is decoded can be stored."""
    for sent in (data, _envelope(subject, data), _envelope(subject, data, simulation_id="a", timestamp_ns=-(2**63))):
        try:
            name, signal = event_codec.decode(subject, sent)
        except errors.Unreadable:
            continue
        json.dumps([name, signal.metrics, signal.message], allow_nan=False, ensure_ascii=False).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        *("simulation_id", "metrics", "artifacts", "started_at", "finished_at", "error_kind", "message", "retryable"),
        *("host", "slot", "step", "total"),
    ]
)


@given(st.sampled_from(SUBJECTS), st.dictionaries(keys, json_values))
def test_arbitrary_json_is_a_signal_or_unreadable(subject: str, document: dict[str, Any]) -> None:
    """Values of the wrong type raise nothing but Unreadable, and the decoded signal has the right types."""
    try:
        name, signal = event_codec.decode(subject, _json(document))
    except errors.Unreadable:
        return
    assert isinstance(name, str)
    assert isinstance(signal, Signal)
    assert all(isinstance(value, float) for value in (signal.metrics or {}).values() if value is not None)


names = st.text(min_size=1, max_size=text.MAX_NAME)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(names, st.dictionaries(names, finite, max_size=20), st.dictionaries(names, st.text(max_size=50), max_size=5))
def test_metrics_and_artifacts_round_trip(name: str, metrics: dict[str, float], artifacts: dict[str, str]) -> None:
    """Every number and every string is decoded exactly, in both encodings."""
    payload = pb.RunCompleted(simulation_id=name, metrics=metrics, artifacts=artifacts).SerializeToString()
    document = {"simulation_id": name, "metrics": metrics, "artifacts": artifacts}
    for data in (
        _json(document),
        _envelope("sim.run_completed", payload),
        _envelope("sim.run_completed", _json(document)),
    ):
        decoded, signal = event_codec.decode("sim.run_completed", data)
        assert (decoded, signal.metrics, signal.artifacts) == (name, metrics, artifacts)


@given(st.text(min_size=123, max_size=123, alphabet=st.characters(max_codepoint=127)))
def test_an_envelope_that_begins_like_json_is_still_an_envelope(event_id: str) -> None:
    """A line feed is also the tag of field 1, and `{` a length of 123, so the two alone don't make it JSON."""
    data = _envelope("sim.run_started", b"", event_id=event_id, simulation_id="a")
    assert data.lstrip().startswith(b"{")
    assert event_codec.decode("sim.run_started", data)[0] == "a"
