"""A `parameter_space` that is a list: the points of several spaces, equal ones once."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import largest, plan, space, value_files
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import settled
from tests.support.small_plans import BASE, JSON, UNCOUNTED, params, parsed
from tests.support.unions import axes, united


def points(text: str, limits: WorkLimits | None = None) -> list[dict[str, JSON]]:
    """The parameters of all points; they are counted in steps, and each can be had by its number."""
    made = parsed(text, limits=limits)
    size = settled.size(made)
    found = [*space.points(made)]
    assert size == space.count(made) == space.SpaceSize(len(found), len(found))
    assert [point.index for point in found] == [*range(len(found))]
    for point in found:
        assert next(space.points(made, point.index)) == point
    return [point.params for point in found]


def test_spaces_follow_one_another_and_equal_points_count_once() -> None:
    """A coarse grid and a fine one inside of it: the point that both have keeps its place in the first."""
    text = united(axes("a: [0, 10, 20], b: [0, 10]"), axes("a: [9, 10], b: [10, 11]"))
    expected = [*itertools.product([0, 10, 20], [0, 10]), (9, 10), (9, 11), (10, 11)]
    assert points(text) == [{"a": a, "b": b} for a, b in expected]


def test_what_a_space_does_not_name_has_the_value_of_the_base_configuration() -> None:
    """One factor at a time around the base: an empty space is the base itself."""
    text = united("", axes("a: [0, 1, 2]"), axes("b: [0, 7]"), axes("f.g: [5]"))
    assert points(text) == [
        {"a": 0, "b": 0, "f.g": 0},
        {"a": 1, "b": 0, "f.g": 0},
        {"a": 2, "b": 0, "f.g": 0},
        {"b": 7, "a": 0, "f.g": 0},
        {"f.g": 5, "a": 0, "b": 0},
    ]


def test_a_parameter_without_a_base_value_is_left_out_where_a_space_does_not_name_it() -> None:
    """Such as a variable or a new path: constraints that name it don't apply there."""
    text = united(
        "variables: {v: [1, 2]}",
        axes("new.x: [1, null]"),
        more="allow_new_paths: true, constraints: [v > 1, new.x == 1], ",
    )
    assert points(text) == [{"v": 2}, {"new.x": 1}]


@pytest.mark.parametrize("limits", [WorkLimits(), UNCOUNTED], ids=["at once", "later"])
def test_each_space_has_its_own_design_and_constraints(limits: WorkLimits) -> None:
    """Those of the plan are for all spaces as well, and its design for those that have none."""
    text = united(
        axes("a: [1, 2, 3]") + ", variables: {v: [4, 5, 6]}, design: {zip: [[a, v]]}, constraints: [a > 1]",
        axes("b: {dist: int, low: 0, high: 99}"),
        axes("c: [1, 2]"),
        more="constraints: [a + c < 3], design: {samples: 2}, variables: {w: [1, 2]}, ",
    )
    found = points(text, limits)
    assert found[:2] == [{"w": w, "v": 5, "a": 2, "b": 0, "c": 0} for w in (1, 2)]
    assert [(point["w"], point["a"], point["c"]) for point in found[2:]] == [
        *[(w, 0, 0) for w in (1, 1, 2, 2)],
        *[(w, 0, c) for w in (1, 2) for c in (1, 2)],
    ]
    assert found[2]["b"] == found[4]["b"] != found[3]["b"]


def test_equal_samples_of_one_space_stay_separate_points() -> None:
    """As in a plan that is a single space; a later space has none of them again."""
    dist = axes("a: {dist: choice, values: [1, 2]}") + ", design: {samples: 20}"
    found = points(united(dist, axes("a: [1, 2, 3]")))
    assert [point["a"] for point in found[20:]] == [3]
    assert {point["a"] for point in found[:20]} == {1, 2}


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        ("a: [1]", "a: [1.0]", 2),
        ("a: [1]", "a: ['1']", 2),
        ("a: {values: [5], when: 'on'}", "a: [0]", 1),
        ("f: [{g: 1}, {h: 2}]", "f: [{g: 1, h: 2}, {g: 0, h: 2}]", 3),
        ("f: {values: [{g: 1}], replace: true}", "f: {values: [{g: 1, h: 1}, {g: 1}], replace: true}", 2),
        ("list: [[1, 2], [1, 3]]", "a: [0]", 2),
        ("list: [[1, 3]]", "list: [['1', 3], [1, 3]]", 2),
        (f"a: [{'x' * 70}, y]", f"a: [z, {'x' * 70}]", 3),
        ("a: {expr: b + 1}, b: [1, 2]", "a: [2, 3], b: [1, 2]", 4),
        ("a: [1], e: [0]", "a: [1]", 1),
    ],
)
def test_points_are_equal_if_all_parameters_are(one: str, other: str, kept: int) -> None:
    """With the values of the base configuration where they are left out, and mappings merged."""
    text = united(axes(one), axes(other), more="allow_new_paths: true, ")
    assert len(points(text)) == kept


def test_entries_of_runs_are_combined_with_all_spaces() -> None:
    """Each is a point of its own at every combination, even if two are equal."""
    runs = "runs: [{params_override: {c: 1}}, {params_override: {c: 1}, run_id_suffix: x}], "
    assert points(united(axes("a: [1, 2]"), axes("a: [2, 3]"), more=runs)) == [
        *[{"c": 1, "a": a} for a in (1, 2, 1, 2)],
        *[{"c": 1, "a": 3} for _ in range(2)],
    ]
    few = united(axes("a: [1, 2]"), axes("a: [2, 3]"), more=f"{runs}constraints: ['a < 3 or c == 0'], ")
    assert len(points(few)) == 4


def test_a_list_of_one_space_is_that_space() -> None:
    """It has its own words, short names included."""
    assert params(united("parameters: {a: [1, 2]}, constraints: [a < 2]")) == [{"a": 1}]


def test_a_path_has_one_name_unit_and_label() -> None:
    """The columns of tables are those of all spaces, in order; a unit may be written once."""
    made = parsed(
        united("variables: {v: [1]}", axes("a: {values: [1], as: n}, b: [1]"), axes("a: {values: [2], as: n, unit: K}"))
    )
    assert [(each.name, each.path, each.unit) for each in made.parameters] == [
        ("v", (), None),
        ("n", ("a",), "K"),
        ("b", ("b",), None),
    ]


def test_values_of_files_are_read_in_all_spaces() -> None:
    """In the variables and the parameter_space of each entry, and in those of the plan."""
    axis = "{file: t.csv, column: k}"
    text = united(f"variables: {{v: {axis}}}", axes(f"a: {axis}"), more=f"variables: {{w: {axis}}}, ")
    data = yaml_reader.read_plan(text.encode()).data
    assert [reference.location for reference in value_files.references(data)] == [
        ("variables", "w", "file"),
        ("parameter_space", 0, "variables", "v", "file"),
        ("parameter_space", 1, "parameter_space", "a", "file"),
    ]


def test_derived_values_of_each_space_are_judged() -> None:
    """A value of another kind causes a warning at its own place."""
    made = parsed(united(axes("a: {expr: '1.5'}"), axes("b: {expr: '2.5'}")))
    assert [each.path for each in made.warnings] == [
        "parameter_space.0.parameter_space.a.expr",
        "parameter_space.1.parameter_space.b.expr",
    ]


def test_the_largest_configuration_is_found_in_any_space() -> None:
    """The bound takes the largest value of a parameter, not the sum over all spaces."""
    spaces = [axes(f"a: [{letter * 300}]") for letter in "xyzuvw"]
    assert largest.over(parsed(united(*spaces)), "x", 1800) is None
    problem = largest.over(parsed(united(axes("a: [1]"), axes(f"a: [{'x' * 3000}]"))), "x", 1800)
    assert problem is not None
    assert "start command of point 1" in problem.message


@st.composite
def drawn_spaces(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Spaces over three paths and a variable, with some constraints."""
    spaces = []
    for _ in range(draw(st.integers(2, 4))):
        names = draw(st.lists(st.sampled_from("abcv"), unique=True, max_size=3))
        lists = {name: draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)) for name in names}
        entry: dict[str, Any] = {"parameter_space": {name: lists[name] for name in names if name != "v"}}
        if "v" in lists:
            entry["variables"] = {"v": lists["v"]}
        if draw(st.booleans()):
            entry["constraints"] = [draw(st.sampled_from(["a + b < 4", "a != c", "b <= a"]))]
        spaces.append(entry)
    return spaces


def brute(spaces: Sequence[dict[str, Any]], common: Sequence[str]) -> list[dict[str, int]]:
    """All combinations that the constraints allow, with base values filled in, equal ones once."""
    found: dict[str, dict[str, int]] = {}
    has_variable = any("variables" in entry for entry in spaces)
    named = {name for entry in spaces for name in entry["parameter_space"]}
    for entry in spaces:
        lists = {**entry.get("variables", {}), **entry["parameter_space"]}
        for values in itertools.product(*lists.values()):
            point = dict(zip(lists, values, strict=True))
            full = {**dict.fromkeys("abc", 0), **point}
            if all(eval(text, dict(full)) for text in (*common, *entry.get("constraints", []))):
                row = {name: full[name] for name in sorted(named)} | ({"v": full.get("v")} if has_variable else {})
                found.setdefault(canonical.text(row), {name: value for name, value in row.items() if value is not None})
    return [*found.values()]


@given(
    drawn_spaces(), st.lists(st.sampled_from(["a < 3", "c + b > 0"]), max_size=1), st.sampled_from([0, 300, 600_000])
)
def test_unions_have_the_points_of_brute_force(spaces: list[dict[str, Any]], common: list[str], early: int) -> None:
    """In the order of the spaces, whenever they are counted."""
    data = {"experiment_name": "x", "parameter_space": spaces, "constraints": common}
    expected = brute(spaces, common)
    limits = WorkLimits(early_steps=early)
    if not expected:
        with pytest.raises(errors.PlanRejected, match="no_points"):
            settled.size(plan.parse(data, BASE, limits))
        return
    made = plan.parse(data, BASE, limits)
    assert settled.size(made).points == len(expected)
    assert [dict(sorted(point.params.items())) for point in space.points(made)] == [
        dict(sorted(each.items())) for each in expected
    ]
