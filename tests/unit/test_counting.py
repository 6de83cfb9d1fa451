"""Counting: what counts is how many combinations are left, not how many there would be without conditions."""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import pairwise, product

import pytest

from ems_worker import errors
from ems_worker.core.points import plan, space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import settled, steps


def made(
    axes: Mapping[str, object], constraints: Iterable[str] = (), limits: WorkLimits | None = None, **more: object
) -> plan.Plan:
    data = {"experiment_name": "x", "base_config": dict.fromkeys(axes, 0), "parameter_space": axes, **more}
    return plan.parse({**data, "constraints": [*constraints]}, limits=limits)


def numbers(names: Iterable[str], count: int) -> dict[str, object]:
    return {name: [*range(count)] for name in names}


def one_at_a_time(count: int) -> plan.Plan:
    """Axes of 11 values, of which at most one differs from the base."""
    names = [f"p{number}" for number in range(count)]
    return made(numbers(names, 11), [" + ".join(f"int({name} != 0)" for name in names) + " <= 1"])


@pytest.mark.parametrize("first", [True, False])
def test_a_selector_and_the_axes_that_it_selects_are_counted(first: bool) -> None:
    """Eleven words select an axis of ten values each, and the twelfth none, whatever the order of the axes."""
    words: dict[str, object] = {"which": [f"w{number}" for number in range(12)]}
    selected = {f"p{n}": {"values": [*range(10)], "when": f"which == 'w{n}'"} for n in range(11)}
    found = made({**words, **selected} if first else {**selected, **words})
    assert space.count(found) == space.SpaceSize(111, 111)
    assert len({str(sorted(point.params.items())) for point in space.points(found)}) == 111


@pytest.mark.usefixtures("untraced")
def test_one_factor_at_a_time_is_counted() -> None:
    """The work grows with the number of axes as the design does, not with the number of combinations."""
    assert space.count(one_at_a_time(11)) == space.SpaceSize(111, 111)
    assert space.count(one_at_a_time(30)) == space.SpaceSize(301, 301)
    assert steps.of(lambda: one_at_a_time(30)) < 800_000
    assert next(space.points(one_at_a_time(11), 110)).params == {
        **dict.fromkeys(map("p{}".format, range(11)), 0),
        "p0": 10,
    }


@pytest.mark.usefixtures("untraced")
def test_one_factor_at_a_time_has_any_number_of_axes() -> None:
    """Of two hundred, each with the base and ten other values."""
    assert space.count(one_at_a_time(200)) == space.SpaceSize(2001, 2001)
    assert steps.of(lambda: one_at_a_time(200)) < 2_000_000


WEIGHTS = [Decimal(9 + 7 * number**2 % 101) / 100 for number in range(20)]


def subset_sums() -> Counter[Decimal]:
    """How many subsets of the weights have each sum."""
    ways = Counter({Decimal(0): 1})
    for weight in WEIGHTS:
        ways += Counter({total + weight: count for total, count in ways.items()})
    return ways


@pytest.mark.parametrize("limit", ["5.5", "30"])
@pytest.mark.parametrize(
    ("sign", "holds"),
    [
        ("<", operator.lt),
        ("<=", operator.le),
        (">", operator.gt),
        (">=", operator.ge),
        ("==", operator.eq),
        ("!=", operator.ne),
    ],
)
def test_sums_of_many_axes_of_two_values_are_counted(
    sign: str, holds: Callable[[Decimal, Decimal], bool], limit: str
) -> None:
    """What is left of a sum decides most combinations early, even if nearly all of them have sums of their own."""
    names = [f"x{number}" for number in range(20)]
    total = " + ".join(f"{weight} * {name}" for weight, name in zip(WEIGHTS, names, strict=True))
    expected = sum(count for value, count in subset_sums().items() if holds(value, Decimal(limit)))
    if expected:
        assert settled.size(made(numbers(names, 2), [f"{total} - {limit} {sign} 0"])).points == expected
    else:
        with pytest.raises(errors.PlanRejected, match="no combination satisfies"):
            made(numbers(names, 2), [f"{total} {sign} {limit}"])


@pytest.mark.parametrize(("sign", "points"), [("<= 20", 78), ("> 66000", 10), ("== 21", 6), ("!= 66603", 3_374_999)])
def test_a_sum_of_many_values_is_decided_by_the_least_and_the_greatest(sign: str, points: int) -> None:
    """All values of the rest of it would be too many. The axes have squares."""
    axes = {name: [number**2 for number in range(150)] for name in "abc"}
    assert settled.size(made(axes, [f"a + b + c {sign}"])).points == points


def test_a_sum_is_compared_with_another() -> None:
    """Both sides may have any order, signs and axes of their own."""
    axes = {name: [0.1, 0.25, 3] for name in "abcdef"}
    expected = sum(
        values[5] - values[0] - (values[1] - values[3]) < values[2] + values[4] - 2
        for values in product([Decimal("0.1"), Decimal("0.25"), Decimal(3)], repeat=6)
    )
    assert space.count(made(axes, ["f - a - (b - d) < c + e - 2"])).points == expected


def test_a_sum_that_rounds_is_computed_in_its_order() -> None:
    """As everywhere: 34 digits, from left to right."""
    axes: dict[str, object] = {"a": [1e30, 1], "b": [1e-30, 2], "c": [-1e30, 3]}
    left_to_right = made(axes, ["a + b + c == 0"])
    assert [point.params for point in space.points(left_to_right)] == [{"a": 1e30, "b": 1e-30, "c": -1e30}]
    with pytest.raises(errors.PlanRejected, match="no combination satisfies"):
        made(axes, ["a + c + b == 0"])
    axes = {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
    assert space.count(made(axes, ["a / 3 + b / 3 + c / 3 < 1"])).points == 1


def test_a_sum_of_single_values_is_computed() -> None:
    """Without axes, and of axes in one dimension."""
    assert space.count(made({"a": [1]}, ["a + 1 - 0.5 == 1.5"])).points == 1
    zipped = made({**numbers("ab", 9), "c": [1, 2]}, ["a + b + c < 7"], design={"zip": [["a", "b"]]})
    assert space.count(zipped).points == 6
    assert space.count(made({"a": [1, 2], "b": ["x", "y"], "c": [1, 2]}, ["a + c > 3 or b + 'z' == 'xz'"])).points == 5


def test_the_order_of_a_sum_does_not_matter() -> None:
    """Axes may have another order than the terms of a sum of whole numbers."""
    names = [f"p{number}" for number in range(20)]
    differ = [f"int({name} != 0)" for name in names]
    shuffled = [*differ[::3], *differ[1::3], *differ[2::3]]
    assert space.count(made(numbers(names, 11), [f"{' + '.join(shuffled)} - 0 < 3 - 1"])).points == 201


@pytest.mark.parametrize("order", ["abcdef", "acebdf"])
def test_a_chain_of_pairs_is_counted(order: str) -> None:
    """Six axes of 20 values, each at least as large as the one before: (20 + 5) over 6 points of 64 million."""
    chain = [f"{low} <= {high}" for low, high in pairwise("abcdef")]
    found = made(numbers(order, 20), chain)
    assert space.count(found).points == 177_100
    assert next(space.points(found, 177_099)).params == dict.fromkeys(order, 19)


def test_a_chain_of_pairs_is_counted_as_dynamic_programming_counts_it() -> None:
    """Neighbours differ by 8 at most."""
    chain = [f"abs({one} - {other}) <= 8" for one, other in pairwise("abcdef")]
    ways = [1] * 20
    for _ in range(5):
        ways = [sum(ways[max(0, value - 8) : value + 9]) for value in range(20)]
    assert space.count(made(numbers("abcdef", 20), chain)).points == sum(ways)


def test_axes_that_no_expression_connects_are_counted_apart() -> None:
    """Pairs that alternate with each other don't multiply the work."""
    lower, upper = [f"l{n}" for n in range(6)], [f"u{n}" for n in range(6)]
    found = made(numbers([*lower, *upper], 6), [f"l{n} < u{n}" for n in range(6)])
    assert space.count(found).points == 15**6


@pytest.mark.long
@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("constraints", "points"),
    [
        (["a + b + c + d + e < 60", "a * b * c * d * e > 10000"], 1_054_975),
        (["a * b + c * d > 3 * e", "a ** 2 + b * c < d * e * 5"], 1_227_899),
    ],
)
def test_dense_constraints_over_five_axes_are_counted(constraints: list[str], points: int) -> None:
    """Of 1.9 million combinations, most are decided together with others."""
    axes = {name: {"range": {"start": 1, "stop": 18, "num": 18}} for name in "abcde"}
    found = made(axes, constraints)
    assert steps.of(lambda: settled.size(found)) < 15_000_000
    assert settled.size(found).points == points


def test_a_plan_that_takes_too_much_work_is_refused() -> None:
    """The error names the parameters and the remedy; a limit of memory has the same error. It stays refused."""
    axes = {f"p{n}": [1, 2.5, 3.25, 4.125] for n in range(12)}
    odd = " + ".join(f"sqrt({name})" for name in axes)
    for limits in (WorkLimits(early_steps=0, steps=5_000), WorkLimits(early_steps=0, parts=500)):
        found = made(axes, [f"{odd} > 20"], limits)
        for _ in range(2):
            with pytest.raises(errors.PlanRejected) as rejected:
                settled.size(found)
            [problem] = rejected.value.problems
            assert (problem.code, problem.path) == ("too_many_combinations", "constraints")
            assert "p0, p1, p2, p3, p4, ..." in problem.message
            assert "fewer values" in problem.message
            with pytest.raises(errors.PlanRejected):
                next(space.points(found))


def test_a_derived_value_that_takes_too_much_work_is_refused() -> None:
    """The error is at the parameter."""
    axes = {**numbers("ab", 100), "c": {"expr": "sqrt(a + 1) * sqrt(b + 2)"}}
    with pytest.raises(errors.PlanRejected) as rejected:
        settled.size(made(axes, limits=WorkLimits(early_steps=0, steps=5_000)))
    assert [problem.path for problem in rejected.value.problems] == ["parameter_space.c"]


def test_a_condition_over_a_large_range_is_counted() -> None:
    """Digits of a large dimension are taken in blocks."""
    axes = {"a": {"range": {"start": 0, "stop": 4999, "num": 5000}}, "b": [0, 1, 2]}
    found = made(axes, ["a % 3 == b", "a != 4000"])
    assert space.count(found).points == 4999
    assert next(space.points(found, 4998)).params == {"a": 4999, "b": 1}
    zipped = {**axes, "c": {"range": {"start": 0, "stop": 4999, "num": 5000}, "when": "b > 0 and a > 4990"}}
    assert space.count(made(zipped, ["a % 3 == b"], design={"zip": [["a", "c"]]})).points == 5000


def test_more_points_than_can_be_numbered_are_refused() -> None:
    """The number is exact if it is not astronomic."""
    for axis_count, shown in ((10, "10,000,000,000 points"), (40, "more than 4,611,686,018,427,387,904 points")):
        names = [f"p{n}" for n in range(axis_count)]
        for limits in (WorkLimits(), WorkLimits(early_steps=0)):
            with pytest.raises(errors.PlanRejected) as rejected:
                settled.size(made(numbers(names, 10), limits=limits))
            [problem] = rejected.value.problems
            assert problem.code == "too_many_points"
            assert problem.message.startswith(shown)
    assert space.count(made(numbers(names, 10), limits=WorkLimits(early_steps=0))).points == 2**32 - 1


def test_a_condition_of_a_constant_must_have_a_value() -> None:
    """Also if the parameter has a single value, so that it is no axis of the grid."""
    axes = {"a": [1, 0], "b": {"value": 5, "when": "1 / a > 0"}}
    with pytest.raises(errors.PlanRejected, match="'1 / a > 0' with a = 0"):
        settled.size(made(axes))
    assert settled.size(made(axes, ["a > 0"])).points == 1


def test_a_sum_that_grows_too_large_has_no_value() -> None:
    """As any other number; it may be a part of a condition that is decided without it."""
    axes = {"a": [0.5, 1.0], "b": [0, 1]}
    large = "int(a * 1e77) + int(a * 1e77) - b > 0"
    with pytest.raises(errors.PlanRejected, match=r"with a = 1\.0, b = 0: a number in it grows too large"):
        settled.size(made(axes, [large]))
    assert space.count(made(axes, [f"a < 1 and {large}"])).points == 2


def test_the_longest_chain_of_derived_values_is_counted() -> None:
    """Each depends on the one before twice, and is nested as deep as it may be."""
    axes: dict[str, object] = {"y": [1, 2], "z": [1, 2], "x0": {"expr": "z + y"}}
    for number in range(1, 49):
        nested = f"{'abs(' * 36}x{number - 1}{')' * 36}"
        axes[f"x{number}"] = {"expr": nested, "when": f"x{number - 1} > 0"}
    assert settled.size(made(axes, ["x48 > 3"])).points == 1
