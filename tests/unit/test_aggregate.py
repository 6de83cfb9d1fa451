"""Aggregates of one metric over many jobs."""

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle.aggregate import Aggregate

VALUES = st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=30)


def of(values: Sequence[float | None]) -> Aggregate:
    aggregate = Aggregate()
    for value in values:
        aggregate = aggregate.add(value)
    return aggregate


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_aggregates_are_mean_and_sample_standard_deviation(values: list[float]) -> None:
    """They agree with `statistics.mean` and `statistics.stdev`."""
    aggregate = of(values)
    assert aggregate.n == len(values)
    assert aggregate.mean == pytest.approx(statistics.mean(values), rel=1e-9, abs=1e-6)
    assert aggregate.std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)
    assert (aggregate.min, aggregate.max) == (min(values), max(values))


def test_values_that_are_not_finite_are_missing() -> None:
    """NaN and infinities are left out of the mean, and a single value has no deviation."""
    aggregate = of([math.nan, math.inf, None, 1.0])
    assert (aggregate.n, aggregate.missing, aggregate.mean, aggregate.std) == (1, 3, 1.0, None)


def test_a_value_that_arrives_late_is_no_longer_missing() -> None:
    """The aggregate is the one that it would have been."""
    assert of([1.0, None]).arrived(3.0) == of([1.0, 3.0])


@given(st.lists(VALUES, max_size=5))
def test_aggregates_of_parts_merge_into_the_aggregate_of_the_whole(parts: list[list[float | None]]) -> None:
    """So those of an experiment follow from those of its points."""
    merged = Aggregate()
    for part in parts:
        merged = merged.merge(of(part))
    whole = of([value for part in parts for value in part])
    assert (merged.n, merged.missing, merged.min, merged.max) == (whole.n, whole.missing, whole.min, whole.max)
    assert merged.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-6)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-6, abs=1e-3)


@given(VALUES)
def test_nothing_merged_with_an_aggregate_is_that_aggregate(values: list[float | None]) -> None:
    """This is so on both sides, to the last bit."""
    assert Aggregate().merge(of(values)) == of(values) == of(values).merge(Aggregate())
