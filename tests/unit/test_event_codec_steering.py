"""Decoding where a run is and how far it has come, in JSON and in protobuf."""

import json
from typing import Any

import pytest

from ems_worker.adapters import event_codec
from ems_worker.core import text
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2 as pb

_PAYLOADS: dict[str, Any] = {
    "sim.run_started": pb.RunStarted,
    "sim.run_completed": pb.RunCompleted,
    "sim.run_failed": pb.RunFailed,
    "sim.run_metrics": pb.RunMetrics,
}


def _encoded(subject: str, fields: dict[str, Any]) -> tuple[bytes, bytes]:
    payload = _PAYLOADS[subject](simulation_id="a", **fields)
    envelope = GenericEventRequest(event_type_key=f"{subject}.v1", event_payload=payload.SerializeToString())
    return json.dumps({"simulation_id": "a", **fields}).encode(), envelope.SerializeToString()


@pytest.mark.parametrize("subject", ["sim.run_started", "sim.run_completed", "sim.run_failed"])
@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"host": "n17", "slot": "3"}, ("n17", "3")),
        ({"host": "n17"}, ("n17", None)),
        ({}, (None, None)),
        ({"host": "", "slot": ""}, (None, None)),
        ({"host": "n" * 500}, ("n" * (text.MAX_NAME - 1) + "…", None)),
    ],
)
def test_the_place_of_a_run_is_decoded(
    subject: str, fields: dict[str, Any], place: tuple[str | None, str | None]
) -> None:
    """Host and slot are optional, and clipped."""
    for data in _encoded(subject, fields):
        _, signal = event_codec.decode(subject, data)
        assert (signal.host, signal.slot) == place


@pytest.mark.parametrize(
    ("fields", "progress"),
    [
        ({"step": 30.0, "total": 120.0}, (30.0, 120.0)),
        ({"step": 0.0, "total": 0.5}, (0.0, 0.5)),
        ({"step": 7.0}, (7.0, None)),
        ({"total": 7.0}, (None, 7.0)),
        ({}, (None, None)),
        ({"step": -1.0, "total": 10.0}, (None, 10.0)),
        ({"step": 1.0, "total": 0.0}, (1.0, None)),
        ({"step": float("nan"), "total": float("inf")}, (None, None)),
    ],
)
def test_the_progress_of_a_run_is_decoded(
    fields: dict[str, float], progress: tuple[float | None, float | None]
) -> None:
    """A step is at least 0 and a total above 0, both finite; another value is dropped, and the rest stands."""
    for data in _encoded("sim.run_metrics", {"metrics": {"population": 3.0}, **fields}):
        _, signal = event_codec.decode("sim.run_metrics", data)
        assert (signal.step, signal.total) == progress
        assert signal.metrics == {"population": 3.0}


@pytest.mark.parametrize("wrong", [True, "3", [3], {"n": 3}, None])
def test_values_of_the_wrong_type_are_dropped(wrong: object) -> None:
    """JSON can give a value of any type for a place or a progress."""
    progress = json.dumps({"simulation_id": "a", "step": wrong, "total": wrong}).encode()
    _, signal = event_codec.decode("sim.run_metrics", progress)
    assert (signal.step, signal.total) == (None, None)
    if not isinstance(wrong, str):
        place = json.dumps({"simulation_id": "a", "host": wrong, "slot": wrong}).encode()
        _, signal = event_codec.decode("sim.run_started", place)
        assert (signal.host, signal.slot) == (None, None)
