"""Ranges of values, and the values of distributions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core.language import quantiles, ranges, samples
from ems_worker.core.points import plan

FINITE = st.floats(-1e9, 1e9).map(lambda value: round(value, 6))


def test_steps_are_exact_decimals() -> None:
    """Steps of a tenth accumulate no rounding errors, and both ends are included."""
    assert list(ranges.by_step(0, 1, 0.1)) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert list(ranges.by_step(0.0, 1.0, 0.3)) == [0.0, 0.3, 0.6, 0.9]
    assert list(ranges.by_count(18.0, 24.0, 4)) == [18.0, 20.0, 22.0, 24.0]


def test_a_range_of_whole_numbers_has_whole_numbers() -> None:
    """Values are whole if both ends and every step are; otherwise all of them are floats."""
    for values, expected in [
        (ranges.by_count(500, 1500, 5), [500, 750, 1000, 1250, 1500]),
        (ranges.by_count(0, 1, 3), [0.0, 0.5, 1.0]),
        (ranges.by_count(0.0, 2, 3), [0.0, 1.0, 2.0]),
        (ranges.by_count(7, 9, 1), [7]),
        (ranges.by_step(10, 1, -4), [10, 6, 2]),
        (ranges.by_step(1, 5, 2.0), [1.0, 3.0, 5.0]),
        (ranges.by_magnitude(1, 1000, 4), [1, 10, 100, 1000]),
        (ranges.by_magnitude(4, 9, 3), [4, 6, 9]),
        (ranges.by_magnitude(1, 1000, 3), [1.0, math.sqrt(1000), 1000.0]),
        (ranges.by_magnitude(1, 10, 100), None),
        (ranges.by_magnitude(5, 5, 3), [5, 5, 5]),
        (ranges.by_magnitude(100, 1, 2), [100, 1]),
        (ranges.by_magnitude(3, 300, 1), [3]),
        (ranges.by_magnitude(1e-4, 0.1, 4), [1e-4, 1e-3, 1e-2, 0.1]),
    ]:
        listed = list(values)
        if expected is None:
            assert all(type(value) is float for value in listed)
        else:
            assert listed == expected
            assert list(map(type, listed)) == list(map(type, expected))


@given(FINITE, FINITE, st.integers(2, 200))
def test_a_range_has_exact_ends_and_the_given_number_of_values(start: float, stop: float, num: int) -> None:
    """The first value equals the start and the last value equals the stop."""
    values = ranges.by_count(start, stop, num)
    assert len(values) == ranges.size(values) == num
    assert (values[0], values[num - 1]) == (start, stop)
    assert list(values) == sorted(values, reverse=start > stop)


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.integers(2, 50))
def test_a_logarithmic_range_grows_by_the_same_factor(start: float, stop: float, num: int) -> None:
    """The ends are exact."""
    values = list(ranges.by_magnitude(start, stop, num))
    assert (values[0], values[-1]) == (start, stop)
    for index, value in enumerate(values):
        assert math.isclose(value, start * (stop / start) ** (index / (num - 1)), rel_tol=1e-9)


def test_a_huge_range_computes_values_on_access() -> None:
    """It is a sequence whose size may be too large for `len`."""
    values = ranges.by_step(0, 10**18, 1)
    assert ranges.size(values) == 10**18 + 1
    assert values[10**17] == 10**17
    assert ranges.size([1, 2]) == 2
    with pytest.raises(IndexError):
        values[10**18 + 1]
    assert ranges.by_count(0, 9, 10)[2:8:3] == [2, 5]


def test_a_column_of_samples_is_a_sequence() -> None:
    """Indexing and slicing map coordinates by the distribution."""
    column = samples.Column([0.0, 0.5, 0.999], quantiles.Int(1, 2))
    assert column[0:3] == [1, 2, 2]
    assert len(column) == 3


@given(st.floats(0, 1, exclude_max=True))
def test_a_distribution_stays_within_its_range(u: float) -> None:
    """That holds for all coordinates from 0, included, to 1."""
    assert -1 <= quantiles.Uniform(-1.0, 1.0)(u) <= 1  # type: ignore[operator]  # it is a number
    assert 1e-4 <= quantiles.LogUniform(1e-4, 0.1)(u) <= 0.1  # type: ignore[operator]  # it is a number
    assert quantiles.Int(-1, 1)(u) in (-1, 0, 1)
    assert quantiles.Choice(["a", "b"])(u) in ("a", "b")
    assert math.isfinite(quantiles.Normal(0.0, 1.0)(u))  # type: ignore[arg-type]  # it is a number


@pytest.mark.parametrize(
    ("start", "stop", "step", "values"),
    [
        (-math.pi / 4, 7 * math.pi / 4, math.pi / 4, [index * math.pi / 4 for index in range(-1, 8)]),
        (0, 1, 0.3333333333333334, [0.0, 0.3333333333333334, 0.6666666666666668, 1.0]),
        (1, 0, -0.3333333333333333, [1.0, 0.6666666666666667, 0.3333333333333334, 0.0]),
        (0, 1.0000000001, 0.5, [0.0, 0.5, 1.0000000001]),
        (0, 1.00000001, 0.5, [0.0, 0.5, 1.0]),
        (0, 3.0000000001, 1, [0.0, 1.0, 2.0, 3.0000000001]),
        (0, 3.0, 1, [0, 1, 2, 3]),
        (0, 1e-10, 1, [0]),
        (5, 5, 0.1, [5.0]),
    ],
)
def test_a_range_reaches_its_stop(start: float, stop: float, step: float, values: list[float]) -> None:
    """A number of steps that is whole apart from the rounding of floats is whole, and the last value is the stop."""
    found = list(ranges.by_step(start, stop, step))
    assert list(map(type, found)) == list(map(type, values))
    assert found == pytest.approx(values, rel=1e-15, abs=1e-15)
    assert (found[0], found[-1]) == (values[0], values[-1])


@pytest.mark.parametrize(
    ("axis", "path", "message"),
    [
        ({"range": {"start": 2**64, "stop": 0, "num": 2}}, "range.start", "18446744073709551616 does not fit 64 bits"),
        ({"range": {"start": 0, "stop": -(2**63) - 1, "num": 2}}, "range.stop", "does not fit 64 bits"),
        ({"range": {"start": 0, "stop": 1e30, "step": 2**64}}, "range.step", "does not fit 64 bits"),
        ({"logrange": {"start": 1, "stop": 2**64, "num": 3}}, "logrange.stop", "does not fit 64 bits"),
        (
            {"range": {"start": 5, "stop": 1e20, "step": 2**62}},
            "range.stop",
            "the whole numbers of this range don't fit 64 bits: for floats write the start as 5.0",
        ),
    ],
)
def test_whole_numbers_of_ranges_fit_64_bits(axis: dict[str, object], path: str, message: str) -> None:
    """Also those between the start and the stop, and in plans that no reader has checked."""
    data = {"experiment_name": "x", "base_config": {"a": 0}, "parameter_space": {"a": axis}}
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(data)
    [problem] = rejected.value.problems
    assert (problem.code, problem.path) == ("out_of_range", f"parameter_space.a.{path}")
    assert message in problem.message
