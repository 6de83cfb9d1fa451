"""Canonical JSON, digests, and the differences between values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import canonical

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON_VALUES)
def test_canonical_json_reads_back_as_the_value(value: object) -> None:
    """Floats remain floats, and whole numbers remain whole numbers."""
    again = json.loads(canonical.canonical_json(value))
    assert again == value
    assert canonical.canonical_json(again) == canonical.canonical_json(value)


def test_equal_values_have_the_same_canonical_json() -> None:
    """The order of keys doesn't matter; the types of values do."""
    assert canonical.canonical_json({"b": [1, 1.0, "é"], "a": None}) == '{"a":null,"b":[1,1.0,"é"]}'.encode()
    assert canonical.digest(1) != canonical.digest(1.0)
    assert canonical.digest(True) != canonical.digest(1)
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical.canonical_json(float("nan"))


def test_the_digest_of_a_plan_has_the_content_of_the_base_and_not_its_path() -> None:
    """Another base, another type of a number or another key gives another digest."""
    base = {"fish": 1}
    by_path = canonical.plan_sha({"experiment_name": "x", "base_config_file_path": "a.yaml"}, base)
    assert by_path == canonical.plan_sha({"base_config_path": "b.yaml", "experiment_name": "x"}, base)
    assert by_path == canonical.plan_sha({"experiment_name": "x", "base_config": base}, base)
    assert by_path != canonical.plan_sha({"experiment_name": "x"}, {"fish": 1.0})
    assert by_path != canonical.plan_sha({"experiment_name": "x", "num_replicates_per_run": 1}, base)
    assert len(by_path) == 64


def test_differences_names_each_path_that_differs() -> None:
    """Types count; lists of different lengths differ as a whole."""
    a = {"same": 1, "type": 1, "deep": {"x": [1, 2, {"y": 3}]}, "short": [1], "gone": {"all": 1}}
    b = {"same": 1, "type": 1.0, "deep": {"x": [1, 5, {"y": 4}]}, "short": [1, 2], "new": None}
    assert [*canonical.differences(a, b)] == ["deep.x.1", "deep.x.2.y", "gone", "new", "short", "type"]
    assert [*canonical.differences(a, a)] == []
    assert [*canonical.differences(True, 1)] == [""]
    assert [*canonical.differences({"zero": 0.0}, {"zero": -0.0})] == ["zero"]


@given(JSON_VALUES, JSON_VALUES)
def test_values_without_differences_have_the_same_digest(a: object, b: object) -> None:
    """Values with differences have different digests."""
    assert (not [*canonical.differences(a, b)]) == (canonical.digest(a) == canonical.digest(b))
