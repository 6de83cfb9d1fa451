"""The distributions of `dist` axes: their quantiles, steps and weights, and what is refused."""

import math
import statistics
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.language import quantiles
from ems_worker.core.points import space
from tests.support.small_plans import BASE, params, parsed, refused

AXIS = "{parameter_space: {a: {dist: %s}}, design: {samples: 2}}"


def distribution(spec: str) -> quantiles.Distribution:
    """The distribution of this axis."""
    source = parsed(AXIS % spec).spaces[0].axes[0].source
    return source.distribution  # type: ignore[union-attr]  # it is sampled


def warnings(spec: str) -> list[str]:
    """The warnings that this axis causes."""
    return [problem.message for problem in parsed(AXIS % spec, {**BASE, "a": 0.5}).warnings]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("uniform, low: -1, high: 3", {0.0: -1.0, 0.25: 0.0, 0.5: 1.0, 0.75: 2.0}),
        ("loguniform, low: 0.001, high: 10", {0.0: 0.001, 0.25: 0.01, 0.5: 0.1, 0.75: 1.0}),
        ("int, low: 1, high: 4", {0.0: 1, 0.24: 1, 0.25: 2, 0.5: 3, 0.99: 4}),
        ("logint, low: 1, high: 999", {0.0: 1, 0.333: 9, 0.334: 10, 0.666: 99, 0.667: 100, 0.999: 993}),
        ("logint, low: 1, high: 3", {0.0: 1, 0.49: 1, 0.5: 2, 0.79: 2, 0.8: 3, 0.99: 3}),
        ("normal, mean: 10, std: 2", {0.5: 10.0, 0.1586552539314571: 8.0, 0.9772498680518208: 14.0}),
        ("lognormal, mean: 1, std: 0.5", {0.5: math.e, 0.8413447460685429: math.exp(1.5)}),
        ("truncnormal, mean: 0, std: 1, low: -1, high: 1", {0.0: -1.0, 0.5: 0.0, 0.75: 0.441770546687}),
        ("truncnormal, mean: 0, std: 1, low: 0, high: 99", {0.0: 0.0, 0.5: 0.6744897502, 0.9: 1.644853627}),
        ("truncnormal, mean: 0, std: 1, low: 10, high: 99", {0.0: 10.0, 0.5: 10.0684118361, 0.99: 10.4462728987}),
        ("truncnormal, mean: 0, std: 1, low: -99, high: -10", {0.5: -10.0684118361, 0.01: -10.4462728987}),
        ("triangular, low: 0, mode: 1, high: 4", {0.0: 0.0, 0.0625: 0.5, 0.25: 1.0, 0.8125: 2.5}),
        ("triangular, low: 0, mode: 0, high: 1", {0.0: 0.0, 0.75: 0.5}),
        ("triangular, low: 0, mode: 1, high: 1", {0.25: 0.5, 0.81: 0.9}),
        ("choice, values: [x, y]", {0.0: "x", 0.49: "x", 0.5: "y"}),
        (
            "choice, values: [x, y, z, w], weights: [1, 0, 2.5, 1.5]",
            {0.0: "x", 0.19: "x", 0.2: "z", 0.69: "z", 0.7: "w"},
        ),
        ("choice, values: [x, y, z], weights: [0, 0.1, 0]", {0.0: "y", 0.9999999999999999: "y", 1.0: "y"}),
    ],
)
def test_a_distribution_has_its_quantiles(spec: str, expected: dict[float, object]) -> None:
    """Of all samples, the part `u` lies below the value at the coordinate `u`."""
    sampled = distribution(spec)
    for u, value in expected.items():
        found = sampled(u)
        assert found == (pytest.approx(value, rel=2e-9, abs=1e-9) if isinstance(value, float) else value), u
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("spec", "mean", "std"),
    [
        ("uniform, low: 0, high: 12", 6, math.sqrt(12)),
        ("normal, mean: 5, std: 3", 5, 3),
        ("lognormal, mean: 0, std: 0.5", math.exp(0.125), math.sqrt(math.exp(0.25) * (math.exp(0.25) - 1))),
        ("triangular, low: 0, mode: 3, high: 9", 4, math.sqrt((81 + 9 - 27) / 18)),
        ("truncnormal, mean: 0, std: 2, low: 0, high: 40", 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(1 - 2 / math.pi)),
        ("normal, mean: 5, std: 3, step: 1", 5, math.sqrt(9 + 1 / 12)),
    ],
)
def test_a_distribution_has_its_moments(spec: str, mean: float, std: float) -> None:
    """At evenly spread coordinates, the mean and standard deviation are those that are known for it."""
    sampled = distribution(spec)
    values = [sampled((index + 0.5) / 4000) for index in range(4000)]
    assert statistics.fmean(values) == pytest.approx(mean, rel=1e-3)  # type: ignore[arg-type]  # they are numbers
    assert statistics.pstdev(values) == pytest.approx(std, rel=1e-2)  # type: ignore[type-var]  # they are numbers


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("uniform, low: 0, high: 0.3, step: 0.1", [0.0, 0.1, 0.2, 0.3]),
        ("uniform, low: 0.7, high: 1, step: 0.1", [0.7, 0.8, 0.9, 1.0]),
        ("uniform, low: 0, high: 3, step: 1", [0, 1, 2, 3]),
        ("int, low: 1, high: 7, step: 2", [1, 3, 5, 7]),
        ("triangular, low: 0, mode: 0.1, high: 0.3, step: 0.1", [0.0, 0.1, 0.2, 0.3]),
        ("loguniform, low: 0.1, high: 0.4, step: 0.1", [0.1, 0.2, 0.3, 0.4]),
        ("logint, low: 2, high: 8, step: 2", [2, 4, 6, 8]),
        ("truncnormal, mean: 1, std: 1, low: 0.5, high: 2, step: 0.5", [0.5, 1.0, 1.5, 2.0]),
    ],
)
def test_steps_count_from_low_in_decimals(spec: str, values: list[float]) -> None:
    """The values are those of a range by this step, whole if that is, and each of them is drawn."""
    sampled = distribution(spec)
    drawn = [sampled(index / 1000) for index in range(1000)]
    assert sorted(set(drawn)) == values  # type: ignore[type-var]  # they are numbers
    assert {type(value) for value in drawn} == {type(values[0])}
    assert all(first <= second for first, second in pairwise(drawn))  # type: ignore[operator]  # they are numbers


def test_steps_of_an_even_distribution_are_equally_likely() -> None:
    """Those at the ends as well: the values of others are moved to the nearest one."""
    even, triangular = (
        distribution(f"{each}, high: 4, step: 1") for each in ("uniform, low: 0", "triangular, low: 0, mode: 4")
    )
    drawn = [even(index / 1000) for index in range(1000)]
    assert [drawn.count(value) for value in range(5)] == [200] * 5
    parts = [sum(triangular(index / 4096) == value for index in range(4096)) / 4096 for value in range(5)]
    assert parts == pytest.approx([1 / 64, 8 / 64, 16 / 64, 24 / 64, 15 / 64], abs=1e-3)


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("normal, mean: 10, std: 2, step: 0.1", [8.0, 10.0, 12.0, 7.4]),
        ("normal, mean: 10, std: 2, step: 3", [9, 9, 12, 6]),
        ("lognormal, mean: 1, std: 0.5, step: 0.25", [1.75, 2.75, 4.5, 1.5]),
        ("lognormal, mean: 1, std: 0.5, step: 5", [0, 5, 5, 0]),
    ],
)
def test_without_ends_values_are_multiples_of_the_step(spec: str, values: list[float]) -> None:
    """Each value is moved to the nearest one."""
    sampled = distribution(spec)
    found = [sampled(u) for u in (0.1586552539314571, 0.5, 0.8413447460685429, 0.1)]
    assert list(map(repr, found)) == list(map(repr, values))


@given(st.floats(0, 1))
def test_values_are_within_their_bounds(u: float) -> None:
    """That holds for all coordinates, 1 included."""
    low, high, mode = -1.0, 1.5, 0.25
    for each in (
        quantiles.Triangular(low, mode, high),
        quantiles.TruncNormal(0.3, 0.2, low, high),
        quantiles.Nearest(quantiles.TruncNormal(9.0, 2.0, low, high), low, high, 0.5),
        quantiles.Even(low, high, 0.5),
    ):
        assert low <= each(u) <= high  # type: ignore[operator]  # they are numbers
    assert quantiles.LogInt(3, 17)(u) in range(3, 18)
    assert quantiles.LogNormal(0.0, 1.0)(u) > 0  # type: ignore[operator]  # it is a number


@given(st.floats(0, 1), st.floats(0, 1))
def test_values_grow_with_their_coordinates(one: float, other: float) -> None:
    """A distribution keeps the order of the samplers' points."""
    for each in (
        quantiles.Triangular(0.0, 3.0, 4.0),
        quantiles.TruncNormal(0.0, 1.0, -2.0, 1.0),
        quantiles.TruncNormal(0.0, 1.0, 2.0, 4.0),
        quantiles.LogInt(1, 10**6),
        quantiles.LogNormal(1.0, 2.0),
    ):
        assert each(min(one, other)) <= each(max(one, other))  # type: ignore[operator]  # they are numbers


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("lognormal, mean: 1, std: 0.5", 2.67367313663),
        ("truncnormal, mean: 20, std: 4, low: 15, high: 25", 19.8956036659),
        ("truncnormal, mean: 20, std: 4, low: 25, high: 35", 26.4194328648),
        ("logint, low: 1, high: 1000000", 833),
        ("triangular, low: 0, mode: 1, high: 5", 1.7962521946944698),
    ],
)
def test_a_sample_is_the_same_on_all_machines(spec: str, value: float) -> None:
    """Samples are numbers that are known in advance: 12 digits where mathematical functions are not exact."""
    assert distribution(spec)(0.4868) == value


def test_a_choice_with_weights_that_differ_by_much_is_exact() -> None:
    """The parts are computed as fractions, so that neither a sum overflows nor a small weight is lost."""
    sampled = quantiles.Choice(["a", "b", "c"], (1e308, 1e308, 5e-324))
    assert [sampled(u) for u in (0.0, 0.4999, 0.5, 0.9999999999999999)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("spec", "code", "part"),
    [
        ("uniform, low: 1, high: 1", "out_of_range", "'low' is 1 and not below 'high', 1"),
        ("logint, low: 0, high: 5", "out_of_range", "0 is not between 1 and"),
        ("logint, low: 1.5, high: 5", "wrong_type", "expected a whole number"),
        ("lognormal, mean: 0, std: 0", "out_of_range", "0 is not greater than 0"),
        ("lognormal, mean: 900, std: 1", "out_of_range", "those of the samples' natural logarithm"),
        ("lognormal, mean: 0, std: 100", "out_of_range", "those of the samples' natural logarithm"),
        ("truncnormal, mean: 0, std: 1, low: 40, high: 50", "out_of_range", "leave next to nothing"),
        ("truncnormal, mean: 0, std: 1, low: -50, high: -40", "out_of_range", "leave next to nothing"),
        ("truncnormal, mean: 0, std: 1, low: 1, high: 1.0000001", "out_of_range", "leave next to nothing"),
        ("truncnormal, mean: 0, std: 1, low: 1", "missing_key", "'high' is missing"),
        ("truncnormal, mean: 0, std: 1, low: 1, high: 0", "out_of_range", "'low' is 1 and not below 'high', 0"),
        ("triangular, low: 0, mode: 2, high: 1", "out_of_range", "'mode' is 2 and not between 'low', 0, and 'high', 1"),
        ("triangular, low: 0, high: 1", "missing_key", "'mode' is missing"),
        ("triangular, low: 0, high: 1, mode: x", "wrong_type", "expected a number"),
        ("uniform, low: 0, high: 1, mode: 0.5", "unknown_key", "dist uniform has no 'mode'"),
        ("uniform, low: 0, high: 1, step: 0", "out_of_range", "0 is not greater than 0"),
        ("uniform, low: 0, high: 1, step: -0.1", "out_of_range", "-0.1 is not greater than 0"),
        ("uniform, low: 0, high: 1, step: x", "wrong_type", "expected a number"),
        ("uniform, low: 0, high: 1, step: 1.5", "out_of_range", "all samples would be 'low'"),
        ("int, low: 0, high: 9, step: 0.5", "wrong_type", "expected a whole number"),
        ("normal, mean: 0, std: 1, step: 0", "out_of_range", "0 is not greater than 0"),
        ("normal, mean: 1.0e19, std: 1, step: 2", "out_of_range", "64 bits: for floats write 2.0"),
        ("normal, mean: 0, std: 1.0e307, step: 1.7e308", "out_of_range", "exceed the largest number"),
        ("normal, mean: 3, std: 1, step: 1000", "out_of_range", "so large that all samples would be 0"),
        ("choice, values: [1, 2], step: 1", "unknown_key", "dist choice has no 'step'"),
        ("choice, values: [1, 2], weights: [1]", "out_of_range", "1 weights for 2 values"),
        ("choice, values: [1, 2], weights: 1", "wrong_type", "expected a list"),
        ("choice, values: [1, 2], weights: [1, x]", "wrong_type", "expected a number"),
        ("choice, values: [1, 2], weights: [1, -1]", "out_of_range", "-1 is less than 0"),
        ("choice, values: [1, 2], weights: [0, 0]", "out_of_range", "all weights are 0"),
        ("choice, values: [1, 1], weights: [1, 2]", "duplicate", "list each once, with the sum of its weights"),
        ("uniform, low: 0, high: 1, weights: [1]", "unknown_key", "dist uniform has no 'weights'"),
        ("uniform, low: 0, high: 1, unique: 1", "wrong_type", "expected true or false"),
    ],
)
def test_what_a_distribution_cannot_be_is_refused(spec: str, code: str, part: str) -> None:
    """There is one error, which says what is wrong."""
    [(found, message)] = refused(AXIS % spec)
    assert found == code
    assert part in message


def test_steps_that_miss_high_cause_a_warning() -> None:
    """The largest value is below it then."""
    [message] = warnings("uniform, low: 0, high: 1, step: 0.3")
    assert message == "steps of 0.3 from 'low' miss 'high': no sample is above 0.9"
    assert warnings("uniform, low: 0, high: 1, step: 0.25") == []


def test_whole_steps_are_whole_numbers_in_the_configuration() -> None:
    """An integer of the base configuration takes them without a warning."""
    plan = parsed(AXIS % "normal, mean: 100, std: 15, step: 1")
    assert plan.warnings == ()
    assert all(isinstance(point.params["a"], int) for point in space.points(plan))


def test_weights_decide_how_often_a_value_is_drawn() -> None:
    """Their sum doesn't matter."""
    axis = "{dist: choice, values: [0, 1], weights: [30, 10]}"
    text = f"{{parameter_space: {{a: {axis}}}, design: {{sampler: sobol, samples: 64}}}}"
    assert sum(point["a"] for point in params(text)) == 16  # type: ignore[misc]  # they are numbers


def test_the_numbers_of_values_are_known() -> None:
    """They limit how many samples can differ."""
    sizes = {
        "int, low: 1, high: 4": 4,
        "logint, low: 1, high: 4": 4,
        "choice, values: [1, 2]": 2,
        "choice, values: [1, 2, 3], weights: [1, 0, 0.0]": 1,
        "uniform, low: 0, high: 1, step: 0.1": 11,
        "triangular, low: 0, mode: 0, high: 1, step: 0.5": 3,
        "normal, mean: 0, std: 1, step: 1": None,
        "uniform, low: 0, high: 1": None,
    }
    assert {spec: quantiles.size(distribution(spec)) for spec in sizes} == sizes


def test_steps_are_exact_fractions_of_their_decimals() -> None:
    """A thousand steps of 0.001 are 1."""
    sampled = distribution("normal, mean: 1, std: 0.0001, step: 0.001")
    assert sampled(0.5) == 1.0
    found = distribution("uniform, low: 0, high: 1000, step: 0.001")(0.123456)
    assert isinstance(found, float)
    assert Fraction(repr(found)) % Fraction("0.001") == 0
