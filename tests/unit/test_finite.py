"""No number that isn't finite gets into a record: JSON has none, and `documents.encode` relies on that."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import event_codec
from ems_worker.core.documents import documents, sanitize, subjects
from tests.support import small_plans

LARGEST = "1.7976931348623157e308"
SMALLEST = "5e-324"


def finite(value: Any) -> bool:
    """Whether every number in it is; strict JSON can express exactly those."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.floats() | st.integers() | st.booleans() | st.text()))
def test_metrics_are_finite_whatever_was_reported(reported: dict[str, Any]) -> None:
    """What is not a finite number is null, and is the same null in the document."""
    metrics = sanitize.metrics(reported)
    assert finite(metrics)
    assert json.loads(documents.encode(metrics)) == metrics


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_an_event_brings_no_number_that_is_not_finite(number: str) -> None:
    """Python's JSON reader takes all of these."""
    event = f'{{"simulation_id": "a", "metrics": {{"population": {number}, "heat": 1.5}}}}'
    _, signal = event_codec.decode(subjects.RUN_COMPLETED, event.encode())
    assert signal.metrics == {"population": None, "heat": 1.5}


@pytest.mark.parametrize(
    "axis",
    [
        f"{{dist: normal, mean: {LARGEST}, std: 1e100}}",
        f"{{dist: normal, mean: -{LARGEST}, std: 1e291}}",
        f"{{dist: normal, mean: 0, std: {LARGEST}}}",
        "{dist: normal, mean: 1e308, std: 1e307}",
        f"{{dist: uniform, low: -{LARGEST}, high: {LARGEST}}}",
        f"{{dist: uniform, low: 0, high: {LARGEST}}}",
        f"{{dist: loguniform, low: {SMALLEST}, high: {LARGEST}}}",
        f"{{range: {{start: -{LARGEST}, stop: {LARGEST}, num: 5}}}}",
        f"{{range: {{start: -{LARGEST}, stop: {LARGEST}, step: 1e307}}}}",
        f"{{logrange: {{start: {SMALLEST}, stop: {LARGEST}, num: 5}}}}",
        "{expr: 'b * 10'}",
        f"[{LARGEST}, 1e999]",
        "[.inf, .nan]",
    ],
)
def test_a_plan_gives_finite_parameters_or_is_rejected(axis: str) -> None:
    """Also at the ends of what a float can hold."""
    design = ", design: {sampler: random, samples: 200}" if "dist" in axis else ""
    try:
        points = small_plans.params(f"{{parameter_space: {{b: [1e308, 1], a: {axis}}}{design}}}")
    except errors.EmsError:
        return
    assert points
    assert finite(points)


def test_the_largest_normal_distribution_is_accepted() -> None:
    """A distribution of which no sample overflows is no error."""
    points = small_plans.params(
        "{parameter_space: {a: {dist: normal, mean: 0, std: 1e307}}, design: {sampler: random, samples: 200}}"
    )
    assert finite(points)
    problems = small_plans.refused(
        "{parameter_space: {a: {dist: normal, mean: 1e308, std: 1e307}}, design: {sampler: random, samples: 200}}"
    )
    assert problems == [("out_of_range", "'mean' and 'std' are too large: samples would exceed the largest number")]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(2**64, 2**200))
def test_integers_of_any_length_are_encoded_beside_numbers(number: float, integer: int) -> None:
    """Parameters keep integers that no 64 bits hold, in the same document as metrics."""
    document = {"params": {"genome": integer}, "metrics": {"population": number}}
    assert json.loads(documents.encode(document)) == document
