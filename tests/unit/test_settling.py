"""Counting: combinations that parsing leaves open are evaluated before a plan is accepted."""

import pytest

from ems_worker import errors
from ems_worker.core.points import plan as plans
from ems_worker.core.points import space

BASE: dict[str, object] = {"a": 0, "b": 0, "c": 0, "d": 0}


def parsed(axes: dict[str, object], *constraints: str) -> plans.Plan:
    data: dict[str, object] = {"experiment_name": "open", "base_config": BASE, "parameter_space": axes}
    return plans.parse({**data, "constraints": list(constraints)} if constraints else data)


def counted(axes: dict[str, object], *constraints: str) -> tuple[int, list[str]]:
    """The number of points and the codes of the problems after counting."""
    try:
        *_, last = space.settle(parsed(axes, *constraints))
    except errors.PlanRejected as rejected:
        return 0, [problem.code for problem in rejected.problems]
    return last.points, []


def numbers(count: int) -> dict[str, object]:
    return {"range": {"start": 1, "stop": count, "num": count}}


def test_a_derived_value_is_evaluated_at_every_combination() -> None:
    """A value that fails only at the last combination is found."""
    assert counted({"a": numbers(60), "b": numbers(60), "c": {"expr": "a * b"}}) == (3600, [])
    failing = {"a": numbers(60), "b": numbers(60), "c": {"expr": "1 / (a * b - 3600)"}}
    assert counted(failing) == (0, ["expression_fails"])


def test_a_constraint_that_excludes_all_combinations_is_found() -> None:
    """If there are too many combinations for parsing, counting reports that the plan has no points."""
    assert counted({"a": numbers(400), "b": numbers(400)}, "a + b < 0") == (0, ["no_points"])


@pytest.mark.parametrize(
    ("constraints", "codes"),
    [
        (("a < b",), ["expression_fails"]),
        (("a < b", "a != 3"), []),
        (("a < b", "a * b != 12", "a != 3"), []),
    ],
)
def test_constraints_guard_derived_values(constraints: tuple[str, ...], codes: list[str]) -> None:
    """A derived value needs to have a value only where all constraints hold."""
    axes = {"a": numbers(6), "b": numbers(6), "c": {"expr": "1 / (a - 3)"}}
    points, found = counted(axes, *constraints)
    assert found == codes
    assert (points == 0) is bool(codes)


def test_a_value_that_no_point_has_may_fail() -> None:
    """The search for a point covers all values of the other parameters, and none of them allows b = 1."""
    axes = {"a": numbers(6), "b": numbers(6), "c": {"expr": "1 / (b - 1)"}}
    assert counted(axes, "a < b") == (15, [])


def test_a_derived_value_and_a_constraint_may_both_have_no_value() -> None:
    """The search for points continues past combinations at which the constraint has no value."""
    axes = {"b": numbers(400), "a": numbers(400), "c": {"expr": "1 / (b - 150)"}}
    assert "expression_fails" in counted(axes, "a + 1 / (b - 150) > 0")[1]


def test_a_constraint_without_a_value_is_reported() -> None:
    """A derived value that fails as well doesn't hide it."""
    axes = {"a": numbers(400), "b": numbers(400), "c": {"expr": "1 / (a - 3)"}}
    assert "expression_fails" in counted(axes, "1 / (a - b) < 2")[1]


def test_a_derived_value_may_fail_if_the_plan_has_no_points() -> None:
    """The only problem is that there are no points."""
    axes = {"a": numbers(6), "b": numbers(6), "c": {"expr": "1 / (a - 3)"}}
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(axes, "1 > 2")
    assert "expression_fails" not in [problem.code for problem in rejected.value.problems]
