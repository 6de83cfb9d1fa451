"""Numbers for people: units, precision, intervals."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.cli import numbers


def test_a_number_agrees_with_its_noun() -> None:
    """Thousands are separated."""
    assert [numbers.counted(count, "job") for count in (0, 1, 2, 12000)] == ["0 jobs", "1 job", "2 jobs", "12,000 jobs"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_536_000, "1.5 MB"),
        (2 * 10**12, "2.0 TB"),
        (10**22, "10,000 EB"),
    ],
)
def test_bytes_have_units(count: int, text: str) -> None:
    """Three digits are enough."""
    assert numbers.size(count) == text


@pytest.mark.parametrize(("rate", "text"), [(0.5, "0.5"), (2.0, "2"), (999.4, "999"), (12345.6, "12,346")])
def test_a_rate_has_three_digits_or_is_whole(rate: float, text: str) -> None:
    """It is never written with an exponent."""
    assert numbers.rate(rate) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 20, 12000], ["1", "20", "12,000"]),
        ([0.5, 0.25, None], ["0.50", "0.25", "-"]),
        ([1 / 3, 2 / 3], ["0.333333", "0.666667"]),
        ([1234567.25, 0.5], ["1,234,567.25", "0.50"]),
        ([26, 28.5], ["26.0", "28.5"]),
        ([0.0, 0.0], ["0", "0"]),
        ([1e-7, 1.0], ["1e-07", "1"]),
        ([1e300, 1.0], ["1e+300", "1"]),
        ([0.00123456], ["0.00123456"]),
        ([], []),
    ],
)
def test_a_column_has_one_precision(values: list[float | None], texts: list[str]) -> None:
    """The largest number has six digits and the smallest three; ends of zeros are left out."""
    assert numbers.column(values) == texts


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)))
def test_any_numbers_have_a_width_that_fits(values: list[float]) -> None:
    """No number is written out over the whole screen, unless it is a long integer."""
    assert all(len(text) <= 30 for text in numbers.column(values))


@pytest.mark.parametrize(
    ("values", "places"),
    [([0.1, 0.01, 1], 2), ([26.0, 28.0], 1), ([5, 10], 0), ([1e-9, 1.0], None), ([0.8472938472, 0.1], 6), ([], 0)],
)
def test_parameters_have_the_decimals_of_the_plan(values: list[float], places: int | None) -> None:
    """Those of samples are rounded."""
    assert numbers.exact(values) == places


def aggregate(mean: float | None, std: float | None = None, n: int = 3) -> dict[str, Any]:
    return {"n": n, "mean": mean, "std": std}


@pytest.mark.parametrize(
    ("aggregates", "texts"),
    [
        ([aggregate(0.91234, 0.01), aggregate(0.8, 0.02)], ["0.912 ± 0.025", "0.800 ± 0.050"]),
        ([aggregate(5.0, 0.0), aggregate(6.0, 0.0)], ["5 ± 0", "6 ± 0"]),
        ([aggregate(1234.5, 100.0), aggregate(None), None], ["1,234 ± 248", "-", "-"]),
        ([aggregate(12.0, 1.0), aggregate(3.0, n=1)], ["12.0 ± 2.5", "3.0      "]),
        ([aggregate(1e-7, 1e-9)], ["1e-07 ± 2.5e-09"]),
        ([aggregate(123456.789, 0.1, n=9)], ["123,456.789 ± 0.077"]),
        ([aggregate(math.nan), aggregate(math.inf)], ["-", "-"]),
        ([aggregate(1e20, 1e18)], ["1e+20 ± 2.5e+18"]),
        ([aggregate(1.0, 1e-12)], ["1 ± 0"]),
    ],
)
def test_means_have_the_digits_that_their_intervals_tell(aggregates: list[dict[str, Any]], texts: list[str]) -> None:
    """All means of a column have as many decimals as the usual interval."""
    assert numbers.means(aggregates) == texts


def test_a_mean_over_fewer_values_says_so() -> None:
    """Where all have as many as expected there is nothing to say."""
    assert numbers.means([aggregate(1.0), aggregate(2.0, n=2)], [3, 3]) == ["1      ", "2 (n=2)"]
