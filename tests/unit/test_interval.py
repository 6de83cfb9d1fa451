"""The 95 percent interval of a mean."""

import math

import pytest
from scipy import stats

from ems_worker.core.lifecycle import interval


@pytest.mark.parametrize("n", [*range(2, 40), 100, 10_000])
def test_the_interval_is_that_of_students_distribution(n: int) -> None:
    """It agrees with SciPy's quantiles to five digits."""
    expected = stats.t.ppf(0.975, n - 1) * 2.5 / math.sqrt(n)
    assert interval.half_width(n, 2.5) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("n", "std"), [(0, None), (1, None), (1, 0.0), (5, None)])
def test_one_value_has_no_interval(n: int, std: float | None) -> None:
    """Neither has a mean without a standard deviation."""
    assert interval.half_width(n, std) is None


def test_equal_values_have_an_interval_of_zero() -> None:
    """Their standard deviation is known."""
    assert interval.half_width(3, 0.0) == 0.0
