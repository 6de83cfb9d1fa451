"""Plans that parsing leaves open: all that is open is tried before they are accepted."""

import pytest

from ems_worker import errors
from ems_worker.core.points import grid, space
from ems_worker.core.points import plan as plans

BASE: dict[str, object] = {"a": 0, "b": 0, "c": 0, "d": 0}


def parsed(axes: dict[str, object], *constraints: str) -> plans.Plan:
    data: dict[str, object] = {"experiment_name": "open", "base_config": BASE, "parameter_space": axes}
    return plans.parse({**data, "constraints": list(constraints)} if constraints else data)


def settled(axes: dict[str, object], *constraints: str) -> tuple[int, list[str]]:
    """The number of points and the codes of what is wrong, after everything was tried."""
    try:
        *_, last = space.settling(parsed(axes, *constraints))
    except errors.PlanRejected as rejected:
        return 0, [problem.code for problem in rejected.problems]
    return last.points, []


def numbers(count: int) -> dict[str, object]:
    return {"range": {"start": 1, "stop": count, "num": count}}


@pytest.fixture(params=[40, pytest.param(400, marks=pytest.mark.long)])
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many values of an axis that not all combinations are tried at once; a tenth has a hundredth of the budget."""
    count: int = request.param
    for name in ("_BUDGET", "_TRIED_STEPS"):
        monkeypatch.setattr(grid, name, getattr(grid, name) * count**2 // 400**2)
    return count


def test_a_derived_value_is_tried_at_every_combination() -> None:
    """In steps; one that fails at the very last is found."""
    assert settled({"a": numbers(60), "b": numbers(60), "c": {"expr": "a * b"}}) == (3600, [])
    failing = {"a": numbers(60), "b": numbers(60), "c": {"expr": "1 / (a * b - 3600)"}}
    assert settled(failing) == (0, ["expression_fails"])


def test_a_constraint_that_leaves_nothing_is_found_when_all_was_tried(side: int) -> None:
    """Where there were too many combinations to know it at once."""
    assert settled({"a": numbers(side), "b": numbers(side)}, "a + b < 0") == (0, ["no_points"])


@pytest.mark.parametrize(
    ("constraints", "codes"),
    [
        (("a < b",), ["expression_fails"]),
        (("a < b", "a != 3"), []),
        (("a < b", "a * b != 12", "a != 3"), []),
    ],
)
def test_a_derived_value_may_fail_where_no_point_is(constraints: tuple[str, ...], codes: list[str]) -> None:
    """Constraints guard it: it is only tried where they hold."""
    axes = {"a": numbers(6), "b": numbers(6), "c": {"expr": "1 / (a - 3)"}}
    points, found = settled(axes, *constraints)
    assert found == codes
    assert (points == 0) is bool(codes)


def test_a_combination_that_no_point_reaches_is_looked_for_everywhere() -> None:
    """Whatever the other parameters are, none of them goes with the least of the second one."""
    axes = {"a": numbers(6), "b": numbers(6), "c": {"expr": "1 / (b - 1)"}}
    assert settled(axes, "a < b") == (15, [])


def test_a_derived_value_is_told_beside_a_constraint_that_has_no_value(side: int) -> None:
    """Points are looked for past combinations at which the constraint can't be worked out."""
    at = side * 3 // 8
    axes = {"b": numbers(side), "a": numbers(side), "c": {"expr": f"1 / (b - {at})"}}
    assert "expression_fails" in settled(axes, f"a + 1 / (b - {at}) > 0")[1]


def test_a_constraint_without_a_value_leaves_nothing_to_derive_from(side: int) -> None:
    """It is the constraint that is told, at its place."""
    axes = {"a": numbers(side), "b": numbers(side), "c": {"expr": "1 / (a - 3)"}}
    assert "expression_fails" in settled(axes, "1 / (a - b) < 2")[1]


def test_a_derived_value_that_fails_is_no_matter_where_nothing_is_left_at_all() -> None:
    """There is one thing wrong then: no points."""
    axes = {"a": numbers(6), "b": numbers(6), "c": {"expr": "1 / (a - 3)"}}
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(axes, "1 > 2")
    assert "expression_fails" not in [problem.code for problem in rejected.value.problems]
