"""`concat`: the values of lists and ranges, one after another, as one axis."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.points import plan
from ems_worker.core.points.edits import Edits, edited
from tests.support.small_plans import BASE, params, parsed

MIXED = "{parameter_space: {a: {concat: [[1, 2], {range: {start: 10, stop: 30, step: 10}}, {values: [99]}]}}}"


def axis(text: str) -> str:
    return f"{{parameter_space: {{a: {{concat: {text}}}}}}}"


def test_the_parts_follow_one_another() -> None:
    """Each is a list, listed values, or a range of either kind."""
    assert [point["a"] for point in params(MIXED)] == [1, 2, 10, 20, 30, 99]
    assert [point["a"] for point in params(axis("[{logrange: {start: 1, stop: 100, num: 3}}, [5]]"))] == [1, 10, 100, 5]


def test_a_concat_is_an_axis_like_any_other() -> None:
    """It may be zipped, has a name, and depends on a condition."""
    assert params(
        "{parameter_space: {a: {concat: [[1], [2]], as: n}, b: [5, 6]}, design: {zip: [[n, b]]}, constraints: [n > 1]}"
    ) == [{"n": 2, "b": 6}]


def test_values_that_several_parts_have_count_once() -> None:
    """The warning is at the later one: at the value in a list, otherwise at the range."""
    parsed_plan = parsed(axis("[[1, 2], {range: {start: 2, stop: 4, num: 3}}, [7, 4]]"))
    assert [warning.path for warning in parsed_plan.warnings if warning.code == "duplicate_value"] == [
        "parameter_space.a.concat.1.range",
        "parameter_space.a.concat.2.1",
    ]
    assert parsed_plan.grid.total == 5


def test_a_value_of_another_type_is_shown_where_it_is() -> None:
    """A text among numbers."""
    [warning] = parsed(axis("[[1, 2], [3, 'x']]")).warnings
    assert (warning.code, warning.path) == ("other_kind", "parameter_space.a.concat.1.1")


@pytest.mark.parametrize(
    ("parts", "code", "path"),
    [
        ("[]", "empty", "parameter_space.a.concat"),
        ("5", "wrong_type", "parameter_space.a.concat"),
        ("[[1], []]", "empty", "parameter_space.a.concat.1"),
        ("[1, 2]", "not_an_axis", "parameter_space.a.concat.0"),
        ("[{dist: uniform, low: 0, high: 1}]", "not_an_axis", "parameter_space.a.concat.0"),
        ("[{concat: [[1]]}]", "not_an_axis", "parameter_space.a.concat.0"),
        ("[[1], {range: {start: 0, stop: 1}}]", "range_form", "parameter_space.a.concat.1.range"),
        ("[[1], {range: {start: 1, stop: 100000, step: 1}}]", "too_many_points", "parameter_space.a.concat"),
        ("[{range: {start: 1, stop: 4294967296, step: 1}}]", "too_many_points", "parameter_space.a.concat"),
    ],
)
def test_other_parts_are_refused(parts: str, code: str, path: str) -> None:
    """Where they stand. The values are in memory, so there are not as many as in a range."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(axis(parts))
    assert (code, path) in [(problem.code, problem.path) for problem in rejected.value.problems]


def test_values_that_are_added_are_a_part_of_their_own() -> None:
    """`extend` leaves the other parts as they are; values that are there already add nothing."""
    document = yaml_reader.read_plan(f"{{experiment_name: x, {MIXED[1:]}".encode()).data

    def added(*values: int) -> object:
        after = edited(document, plan.parse(document, BASE), Edits(add={"a": values}))
        return after["parameter_space"]["a"]["concat"][3:]

    assert added(20, 5, 5, 1) == [[5]]
    assert added(20) == []
