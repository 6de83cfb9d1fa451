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
from tests.support import settled, steps
from tests.support.small_plans import BASE, JSON, UNCOUNTED, params, parsed, refused
from tests.unit.test_extension import paths as not_extensible
from tests.unit.test_plan_edits import edit
from tests.unit.test_plan_edits import refused as not_edited


def united(*spaces: str, more: str = "") -> str:
    return "{" + more + "parameter_space: [" + ", ".join(f"{{{each}}}" for each in spaces) + "]}"


def axes(text: str) -> str:
    return f"parameter_space: {{{text}}}"


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


def grid(size: int, name: str = "a") -> str:
    return f"{name}: {{range: {{start: 1, stop: {size}, num: {size}}}}}"


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


def problems(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(errors.PlanRejected) as rejected:
        settled.size(parsed(text))
    return [(problem.code, problem.path, problem.message) for problem in rejected.value.problems]


@pytest.mark.parametrize(
    ("text", "code", "path", "message"),
    [
        ("parameter_space: []", "empty", "parameter_space", "list at least one space"),
        ("parameter_space: [5]", "wrong_type", "parameter_space.0", "each entry is a space: {parameter_space: {path"),
        ("parameter_space: [{a: [1]}]", "unknown_key", "parameter_space.0.a", "write {parameter_space: {a: ...}}"),
        (
            "parameter_space: [{x.y: [1]}]",
            "unknown_key",
            "parameter_space.0.x.y",
            "write {parameter_space: {x.y: ...}}",
        ),
        ("parameter_space: [{samples: 3}]", "unknown_key", "parameter_space.0.samples", "did you mean design.samples?"),
        ("parameter_space: [{runs: []}]", "unknown_key", "parameter_space.0.runs", "write it beside parameter_space"),
        (united("design: {max_jobs: 3}"), "unknown_key", "parameter_space.0.design.max_jobs", "is about all spaces"),
        (united("variables: 3"), "wrong_type", "parameter_space.0.variables", "a mapping"),
        (united("constraints: [a, 'a =']"), "bad_expression", "parameter_space.0.constraints.1", "=="),
        (united("", "constraints: [q > 1]"), "unknown_name", "parameter_space.1.constraints.0", "'q' is neither"),
        (
            united("", axes("a: [0, 1]") + ", constraints: ['1 / a > 0']"),
            "expression_fails",
            "parameter_space.1.constraints.0",
            "with a = 0",
        ),
        (
            united(axes("f: [{g: 1}]"), axes("f.g: [1]")),
            "overlapping_paths",
            "parameter_space.1.parameter_space.f.g",
            "this and 'f' of another space",
        ),
        (
            united(axes("f.g: [1]"), axes("f: [{g: 1}]")),
            "overlapping_paths",
            "parameter_space.1.parameter_space.f",
            "name the same path in both",
        ),
        (
            united(axes("a: [1]"), axes("a: {values: [1], as: n}")),
            "duplicate",
            "parameter_space.1.parameter_space.a",
            "'a' is called 'n' here, and 'a' in another space",
        ),
        (
            united(axes("a: {values: [1], as: n}"), axes("b: {values: [1], as: n}")),
            "duplicate",
            "parameter_space.1.parameter_space.b",
            "'n' stands for 'a' in another space",
        ),
        (
            united(axes("a: {values: [1], as: n}"), "variables: {n: [1]}"),
            "duplicate",
            "parameter_space.1.variables.n",
            "'n' stands for 'a' in another space",
        ),
        (
            united("variables: {n: [1]}", axes("n: [1]"), more="allow_new_paths: true, "),
            "duplicate",
            "parameter_space.1.parameter_space.n",
            "'n' stands for the variable 'n' in another space",
        ),
        (
            united(axes("a: {values: [1], replace: true}"), axes("a: [1]")),
            "contradiction",
            "parameter_space.1.parameter_space.a",
            "write it in all or in none",
        ),
        (
            united("variables: {v: [1]}", more="variables: {v: [1]}, "),
            "duplicate",
            "parameter_space.0.variables.v",
            "'v' also stands for the variable 'v'; give one of them another name",
        ),
        (
            united("design: {zip: []}", more="design: {samples: 3, max_jobs: 5}, "),
            "contradiction",
            "design.samples",
            "every space has a design of its own",
        ),
        (
            united(axes("a: [1, 2], b: [1, 2]"), axes("a: [1, 2]"), more="design: {zip: [[a, b]]}, "),
            "unknown_name",
            "design.zip.0.1",
            "spaces with other axes need a design of their own",
        ),
        (united("", "", more="design: {samples: 3}, "), "nothing_to_sample", "design.samples", "no axis has a 'dist'"),
        (united("", axes("a: [1]"), more="constraints: [a > 5], "), "no_points", "parameter_space", "no combination"),
        (
            united("", axes("a: [1, 2]"), more="design: {max_jobs: 2}, "),
            "too_many_jobs",
            "design.max_jobs",
            "the plan has 3 jobs, and its max_jobs is 2",
        ),
    ],
)
def test_problems_have_their_place_in_an_entry(text: str, code: str, path: str, message: str) -> None:
    """What several spaces share is reported once."""
    [(found, at, said)] = problems(text)
    assert (found, at) == (code, path)
    assert message in said


def test_problems_of_a_short_name_have_their_place() -> None:
    """As the plan writes it, also inside of an entry."""
    text = (
        "parameters:\n  - {parameters: {a: [1, 2]}}\n  - parameters: {aa: [1]}\n    parameter_space: {a: [5]}\n  - 5\n"
    )
    document = yaml_reader.read_plan(f"name: x\n{text}".encode())
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(document.data, BASE)
    located = yaml_reader.with_positions(rejected.value.problems, document)
    assert [(each.path, each.line) for each in located] == [("parameters.1.parameters", 4), ("parameters.2", 6)]
    only = yaml_reader.read_plan(b"name: x\nparameters:\n  - {parameters: {aa: [1]}}\n")
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(only.data, BASE)
    assert [each.path for each in yaml_reader.with_positions(rejected.value.problems, only)] == [
        "parameters.0.parameters.aa"
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


@pytest.mark.usefixtures("untraced")
def test_disjoint_spaces_are_not_compared() -> None:
    """A path or variable that never has the same value in two spaces shows it: no point is made."""
    square = f"{grid(600)}, {grid(600, 'b')}"
    many = [axes(f"{square}, c: [{number}]") for number in range(50)]
    assert space.count(parsed(united(*many))) == space.SpaceSize(18_000_000, 18_000_000)
    assert steps.of(lambda: parsed(united(*many))) < 200_000
    marked = [f"{axes(square)}, variables: {{part: [{number}]}}" for number in range(3)]
    assert space.count(parsed(united(*marked))).points == 1_080_000


@pytest.mark.usefixtures("untraced")
def test_one_factor_at_a_time_is_a_union() -> None:
    """Sixty spaces of a path each, and the base, have no points in common but the base."""
    base: dict[str, JSON] = dict.fromkeys(map("p{}".format, range(60)), 0)
    made = parsed(united("", *(axes(f"p{number}: [1, 2, 3]") for number in range(60))), base)
    assert space.count(made) == space.SpaceSize(181, 181)
    assert next(space.points(made, 180)).params == {**base, "p59": 3}


def test_too_many_points_are_not_compared_one_by_one() -> None:
    """They are refused, with the spaces and what to do; up to the limit they are compared in steps."""
    text = united(
        axes(f"{grid(600)}, {grid(600, 'b')}"), axes("a: [1], b: [1]"), axes("c: [7]"), axes("a: [2], b: [2]")
    )
    for limits in (None, UNCOUNTED):
        [(code, message)] = refused(text, limits)
        assert code == "too_many_combinations"
        assert "the 360,002 points of spaces that may have some in common (0, 1, 3) are too many" in message
        assert "vary a path or variable in them that never has the same value" in message
    [(code, message)] = refused(united(axes(grid(900)), axes(grid(900))), WorkLimits(early_steps=0, steps=20_000))
    assert code == "too_many_combinations"
    assert "the points of these spaces are too many" in message
    many = united(*(axes(f"{grid(400)}, {grid(400, 'b')}") for _ in range(6)))
    assert "(0, 1, 2, 3, 4, ...)" in refused(many)[0][1]


def test_points_are_compared_in_steps() -> None:
    """Until then the number is an upper bound, and there are no points; a call with enough steps counts."""
    made = parsed(united(axes(grid(100)), axes(grid(150))), limits=UNCOUNTED)
    assert space.count(made) == space.SpaceSize(250, 250, exact=False)
    assert [*space.points(made, 0, 500)] == []
    assert not made.grid.exact
    numbers = [size.points for size in space.settle(made)]
    assert numbers[-1] == 150
    assert made.grid.settled
    assert [point.params["a"] for point in space.points(made, 148)] == [149, 150]
    assert (
        space.count(parsed(united(axes(grid(100)), axes(grid(150))), limits=WorkLimits(early_steps=3000))).points < 251
    )


def test_constraints_of_a_space_are_too_much_work_at_their_place() -> None:
    """The limit of work is for all spaces together."""
    text = united("", axes(f"{grid(50)}, {grid(50, 'b')}") + ", constraints: ['sin(a * b) > 0']")
    [(code, path, message)] = problems_of(text, WorkLimits(early_steps=0, steps=900))
    assert (code, path) == ("too_many_combinations", "parameter_space.1.constraints")
    assert "connect a, b" in message


def problems_of(text: str, limits: WorkLimits) -> list[tuple[str, str, str]]:
    with pytest.raises(errors.PlanRejected) as rejected:
        [*space.points(parsed(text, limits=limits))]
    return [(problem.code, problem.path, problem.message) for problem in rejected.value.problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (united(*[""] * 101), "101 spaces; at most 100 are allowed"),
        (
            united(*[""] * 100, more=f"variables: {{v: [{', '.join(map(str, range(2500)))}]}}, "),
            "2,500 values of common",
        ),
        (united(*[""] * 100, more=f"design: {{zip: [3, [{', '.join(['a'] * 2500)}]]}}, "), "too many"),
        (united(*[""] * 100, more=f"constraints: [{', '.join(['a < 5'] * 11)}], "), "1,100 expressions"),
        (
            united(*[""] * 100, more=f"variables: {{{', '.join(f'v{i}: {{expr: a}}' for i in range(11))}}}, "),
            "1,100 exp",
        ),
    ],
)
def test_what_spaces_share_is_bounded(text: str, message: str) -> None:
    """It is read for each of them."""
    [(code, said)] = refused(text)
    assert code == "out_of_range"
    assert message in said


def test_a_long_range_of_common_variables_costs_nothing() -> None:
    """Its values are computed when they are needed."""
    text = united(*(axes(f"a: [{number}]") for number in range(9)), more=f"variables: {{{grid(100_000, 'v')}}}, ")
    assert space.count(parsed(text)).points == 900_000


def test_samples_of_all_spaces_are_bounded_together() -> None:
    """A sampler that draws all numbers at once may draw its part of them in each space."""
    dist = axes("a: {dist: uniform, low: 0, high: 1}")
    text = united(*[dist] * 3, more="design: {sampler: sobol, samples: 524288}, ")
    assert "sobol draws at most 349,525 numbers here" in refused(text)[0][1]


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


def test_extend_compares_spaces_in_order() -> None:
    """Spaces and values may be added; samples that are there keep their values."""
    old = united(axes("a: [1, 2]"), axes("b: [3]"))
    assert not_extensible(old, united(axes("a: [1, 2, 5]"), axes("b: [3, 4]"), axes("a: [7], b: [7]"))) == []
    dist = "b: {dist: uniform, low: 0, high: 1}"
    sampled = united(axes("a: [1]"), f"{axes(dist)}, design: {{samples: 8}}")
    assert not_extensible(sampled, sampled.replace("8", "9")) == []
    assert not_extensible(sampled, sampled.replace("8", "7")) == ["parameter_space.1.design.samples"]
    assert not_extensible(sampled, sampled.replace("8", "8, seed: 3")) == ["parameter_space.1.design.seed"]
    assert not_extensible(sampled, sampled.replace("8", "8, sampler: halton")) == ["parameter_space.1.design.sampler"]
    assert not_extensible(sampled, sampled.replace("high: 1", "high: 2")) == ["parameter_space.1.parameter_space.b"]


def test_values_are_added_to_the_axis_of_one_space() -> None:
    """An axis that several spaces have is ambiguous, and a common variable is not."""
    text = "{experiment_name: x, " + united(axes("a: [1]"), axes("b: [3], a: [1]"), more="variables: {v: [1]}, ")[1:]
    assert edit(text, add={"b": [4]})["parameter_space"][1] == {"parameter_space": {"b": [3, 4], "a": [1]}}
    assert edit(text, add={"v": [4]})["variables"] == {"v": [1, 4]}
    assert not_edited(text, add={"a": [4]}) == [("not_a_list", "add.a")]
    short = "{name: x, parameters: [{parameters: {a: [1]}}, {}]}"
    assert edit(short, add={"a": [4]})["parameter_space"] == [{"parameter_space": {"a": [1, 4]}}, {}]


def test_samples_are_added_to_the_common_design() -> None:
    """Samples of a space's own design are left to a whole plan."""
    dist = axes("a: {dist: uniform, low: 0, high: 1}")
    text = "{experiment_name: x, " + united(dist, "", more="design: {samples: 4}, ")[1:]
    assert edit(text, samples=9)["design"] == {"samples": 9}
    own = "{experiment_name: x, " + united(f"{dist}, design: {{samples: 4}}", "")[1:]
    assert not_edited(own, samples=9) == [("nothing_to_sample", "design.samples")]


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
