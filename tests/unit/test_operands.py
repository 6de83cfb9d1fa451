"""The size of the values that expressions name."""

import json

import pytest

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import weights
from ems_worker.core.points import operands, plan

JSON = canonical.JSON


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (5, 0),
        ("x" * 1000, 1),
        ("x" * 1001, None),
        ([1, [2, 3], {"a": [4]}], 7),
        ([0] * 1000, 1000),
        ([0] * 1001, None),
        ([[0] * 500] * 2, None),
        (["x" * 100] * 100, 110),
        ({"x" * 1001: 1}, None),
        ({str(n): n for n in range(1001)}, None),
    ],
)
def test_the_weight_of_a_value_is_the_number_of_values_inside(value: JSON, weight: int | None) -> None:
    """It counts lists and mappings at any depth, and long texts a little; the maximum is a thousand."""
    assert weights.of(value) == weight


LONG: list[JSON] = [0] * 1001


def refused(constraint: str, **data: object) -> list[tuple[str, str]]:
    base: dict[str, JSON] = {"a": 0, "b": [1, 2], "c": {"d": [1]}, "long": LONG, "text": "x" * 1001}
    given = {"experiment_name": "x", "base_config": base, "constraints": [constraint], **data}
    try:
        plan.parse(json.loads(json.dumps(given)))
    except errors.PlanRejected as rejected:
        return [(problem.code, problem.path) for problem in rejected.problems]
    return []


def _axis(path: str, *values: object, **more: object) -> dict[str, object]:
    return {"parameter_space": {path: {"values": [*values], **more}}}


def _runs(*overrides: dict[str, JSON]) -> dict[str, object]:
    return {"runs": [{"params_override": each} for each in overrides]}


@pytest.mark.parametrize(
    ("constraint", "data"),
    [
        ("len(long) > 1", {}),
        ("text != 'a'", {}),
        ("sum(b) > 1", _axis("b", [1, 2], LONG)),
        ("sum(b) > 1", {**_axis("b", [1, 2], LONG, dist="choice"), "design": {"samples": 3}}),
        ("sum(c.d) > 1", _axis("c", {"d": [2, 3]}, {"d": LONG})),
        ("sum(b) > 1", _runs({"b": [1, 2]}, {"b": LONG}, {"b": [2]})),
        ("sum(b.0) > 1", _runs({"b": [[1, 2]]}, {"b": [LONG]})),
    ],
)
def test_a_value_that_is_too_long_for_an_expression_is_refused(constraint: str, data: dict[str, object]) -> None:
    """One such value is enough, wherever it comes from; the problem is at the expression."""
    assert refused(constraint, **data) == [("out_of_range", "constraints.0")]


@pytest.mark.parametrize(
    ("constraint", "data"),
    [
        ("a == 0", {}),
        ("long.5 == 0", {}),
        ("sum(b) > 1", _axis("b", [1, 2], LONG[:1000])),
        ("b.1 > 0", _axis("b", [*LONG, 1], [1, 2, *LONG])),
        ("a >= 0", {"parameter_space": {"a": {"dist": "int", "low": 0, "high": 9}}, "design": {"samples": 3}}),
        ("a >= 0", _runs({"a": 1}, {"b": LONG}, {})),
        ("b.0 == 1", _runs({"b": [1]}, {"b": [1, LONG]}, {})),
    ],
)
def test_values_that_no_expression_names_may_be_long(constraint: str, data: dict[str, object]) -> None:
    """Only the part of a value that an expression names counts."""
    assert refused(constraint, **data) == []


def test_looking_into_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads into the values of an axis has to be looked up in each of them."""
    monkeypatch.setattr(operands, "MAX_UNPACKED", 5)
    assert refused("b.0 > 0", **_axis("b", *([n] for n in range(1, 6)))) == []
    assert refused("b.0 > 0", **_axis("b", *([n] for n in range(1, 7)))) == [("out_of_range", "constraints.0")]
