"""Zip groups, whose axes vary together, and duplicate values."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import plan, space
from tests.support.small_plans import BASE, JSON, params, parsed, refused


def test_zipped_axes_vary_together() -> None:
    """A zip group has the position of its first axis, and is combined with all other axes."""
    assert params("{parameter_space: {a: [1, 2], b: [5, 6], c: {values: [8, 9], as: n}}, design: {zip: [[n, a]]}}") == [
        {"a": 1, "b": 5, "n": 8},
        {"a": 1, "b": 6, "n": 8},
        {"a": 2, "b": 5, "n": 9},
        {"a": 2, "b": 6, "n": 9},
    ]


def repeated(text: str) -> list[str]:
    return [problem.path for problem in parsed(text).warnings if problem.code == "duplicate_value"]


def test_equal_rows_of_a_zip_group_are_one_point() -> None:
    """A value may occur in several rows of a group; only rows that are equal as a whole count once, with a warning."""
    table = "{parameter_space: {a: [1, 1, 2], b: [5, 6, 5]}, design: {zip: [[a, b]]}}"
    assert params(table) == [{"a": 1, "b": 5}, {"a": 1, "b": 6}, {"a": 2, "b": 5}]
    assert repeated(table) == []
    twice = "{parameter_space: {a: {values: [1, 2, 1, 1]}, b: [5, 5, 5, 6]}, design: {zip: [[b, a]]}}"
    assert params(twice) == [{"a": 1, "b": 5}, {"a": 2, "b": 5}, {"a": 1, "b": 6}]
    assert repeated(twice) == ["parameter_space.b.2"]
    assert "b = 5, a = 1 is repeated" in parsed(twice).warnings[0].message
    with pytest.raises(errors.PlanRejected, match="a has 3, b has 2"):
        parsed("{parameter_space: {a: [1, 1, 2], b: [5, 6]}, design: {zip: [[a, b]]}}")
    assert params(
        "{parameter_space: {a: [7, 7], b: {range: {start: 1, stop: 2, num: 2}}}, design: {zip: [[a, b]]}}"
    ) == [
        {"a": 7, "b": 1},
        {"a": 7, "b": 2},
    ]


@pytest.mark.parametrize(
    ("axis", "distinct", "location"),
    [
        ("[3, 3.0, 3, 4]", [3, 3.0, 4], "parameter_space.a.2"),
        ("{range: {start: 1, stop: 1, num: 5}}", [1], "parameter_space.a.range"),
        ("{logrange: {start: 2.5, stop: 2.5, num: 3}}", [2.5], "parameter_space.a.logrange"),
        ("{range: {start: 4, stop: 4.000000000000001, num: 5}}", [4.0, 4 + 2**-50], "parameter_space.a.range"),
        ("{logrange: {start: 5.0e-324, stop: 1.0e-323, num: 4}}", [5e-324, 1e-323], "parameter_space.a.logrange"),
    ],
)  # fmt: skip
def test_equal_values_of_an_axis_are_one_point(axis: str, distinct: list[JSON], location: str) -> None:
    """Duplicates in lists and ranges get a warning at their location in the plan."""
    text = f"parameter_space: {{a: {axis}}}"
    assert [canonical.text(point["a"]) for point in params(text)] == [canonical.text(value) for value in distinct]
    assert repeated(text) == [location]


def test_a_long_range_finer_than_floats_is_refused() -> None:
    """Finding the equal ones among a million values takes too long; a short range is accepted with a warning."""
    fine = "{range: {start: 1, stop: 1.0000000000000004, num: 1000000}}"
    [(code, message)] = refused(f"parameter_space: {{a: {fine}}}")
    assert code == "out_of_range"
    assert "at most 100,000 values" in message
    group = f"{{parameter_space: {{a: {fine}, b: {fine}}}, design: {{zip: [[a, b]]}}}}"
    with pytest.raises(errors.PlanRejected, match=r"design\.zip\.0: the values are closer"):
        parsed(group)
    few = group.replace("1000000", "3").replace("0004", "0001")
    assert params(few) == [{"a": 1.0, "b": 1.0}]
    assert repeated(few) == ["design.zip.0"]


@given(st.data())
def test_zip_groups_are_those_of_a_naive_expansion(data: st.DataObject) -> None:
    """Lists may have duplicates, inside and outside of groups, and conditions may leave out values."""
    size = data.draw(st.integers(2, 5))
    columns = {
        name: data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size), label=name)
        for name in ("a", "b", "c")
    }
    group = data.draw(st.permutations(data.draw(st.sampled_from([["a", "b"], ["a", "c"], ["a", "b", "c"]]))))
    when = data.draw(st.sampled_from([None, "a > 0", "a == 1"]))
    axes: dict[str, object] = {name: {"values": values} for name, values in columns.items()}
    if when is not None:
        axes["c"] = {"values": columns["c"], "when": when}
    made = plan.parse(
        {"experiment_name": "x", "base_config": BASE, "parameter_space": axes, "design": {"zip": [group]}}
    )
    holds: Callable[[int], bool] = {None: lambda _: True, "a > 0": lambda a: a > 0, "a == 1": lambda a: a == 1}[when]
    together = list(dict.fromkeys(zip(*(columns[name] for name in group), strict=True)))
    others = [name for name in columns if name not in group]
    expected: dict[str, dict[str, JSON]] = {}
    # The group has the position of its first axis, a.
    for row, *rest in itertools.product(together, *(dict.fromkeys(columns[name]) for name in others)):
        full = dict(zip([*group, *others], [*row, *rest], strict=True))
        point: dict[str, JSON] = {name: full[name] for name in columns if name != "c" or holds(full["a"])}
        expected.setdefault(canonical.text(point), point)
    assert [point.params for point in space.points(made)] == list(expected.values())
