"""Points: how many there are, which, and in which order."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical, grid, plan, samples, space

JSON = canonical.JSON
BASE: dict[str, JSON] = {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": {"g": 0}, "on": False, "list": [1, 2]}


def parsed(text: str, base: dict[str, JSON] = BASE) -> plan.Plan:
    document = yaml_reader.read_plan(text.encode())
    return plan.parse({"experiment_name": "x", **document.data}, base)


def params(text: str) -> list[dict[str, JSON]]:
    return [point.params for point in space.points(parsed(text))]


REEF = """
base_config: {fish: {count: 1}, env: {temp: 1.0}, shark: {present: false, speed: 0}, growth: 0.1}
parameter_space:
  fish.count: [50, 100]
  env.temp: {range: {start: 18.0, stop: 24.0, num: 4}}
  shark.present: [true, false]
  shark.speed: {values: [1, 2], when: "shark.present == true"}
  growth: {dist: loguniform, low: 1.0e-4, high: 0.1}
design: {sampler: lhs, samples: 64, seed: 7}
constraints: ["fish.count * env.temp < 2400"]
num_replicates_per_run: 5
"""


def test_the_plan_of_6720_jobs() -> None:
    """32 combinations, 24 after conditions, 21 after the constraint, times 64 samples, times 5 replicates."""
    reef = parsed(REEF)
    assert space.count(reef) == space.Count(21 * 64, 6720, exact=True)
    assert space.count(
        parsed(REEF.replace("constraints", "labels").replace('["fish.count * env.temp < 2400"]', "{}"))
    ) == (space.Count(24 * 64, 24 * 64 * 5))
    points = list(space.points(reef))
    cells = {canonical.text({k: v for k, v in point.params.items() if k != "growth"}) for point in points}
    assert len(cells) == 21
    samples = {point.params["growth"] for point in points}
    assert len(samples) == 64
    assert all(isinstance(value, float) and 1e-4 <= value <= 0.1 for value in samples)
    for point in points:
        assert point.params["fish.count"] * point.params["env.temp"] < 2400  # type: ignore[operator]  # they are numbers
        assert ("shark.speed" in point.params) == point.params["shark.present"]
    # The same samples in every cell of the grid, within it in the same order.
    assert [point.params["growth"] for point in points[:64]] == [point.params["growth"] for point in points[-64:]]


def test_the_last_axis_is_the_fastest() -> None:
    """Row-major in the plan's order, nested and dotted alike."""
    assert params("parameter_space: {b: [1, 2], f: {g: [5]}, a: [3, 4]}") == [
        {"b": 1, "f.g": 5, "a": 3},
        {"b": 1, "f.g": 5, "a": 4},
        {"b": 2, "f.g": 5, "a": 3},
        {"b": 2, "f.g": 5, "a": 4},
    ]


def test_runs_are_points_of_their_own_times_the_grid() -> None:
    """Entries of `runs` come first and are never merged; with a parameter_space each is run at every combination."""
    text = """
    runs:
      - {run_id_suffix: x, labels: {k: v}, params_override: {f: {g: 1}, list: [9]}}
      - {params_override: {f.g: 1, list: [9]}}
    parameter_space: {a: [1, 2]}
    """
    points = list(space.points(parsed(text)))
    assert [(point.index, point.run_id_suffix, point.labels) for point in points] == [
        (0, "x", {"k": "v"}),
        (1, "x", {"k": "v"}),
        (2, None, {}),
        (3, None, {}),
    ]
    assert [point.params for point in points] == 2 * [
        {"f.g": 1, "list": [9], "a": 1},
        {"f.g": 1, "list": [9], "a": 2},
    ]


def test_a_plan_without_parameters_is_one_point() -> None:
    """The base configuration as it is."""
    assert params("description: only the base") == [{}]


def test_zipped_axes_vary_together() -> None:
    """At the place of the first of them; other axes cross the group."""
    assert params("{parameter_space: {a: [1, 2], b: [5, 6], c: {values: [8, 9], as: n}}, design: {zip: [[n, a]]}}") == [
        {"a": 1, "b": 5, "n": 8},
        {"a": 1, "b": 6, "n": 8},
        {"a": 2, "b": 5, "n": 9},
        {"a": 2, "b": 6, "n": 9},
    ]


def repeated(text: str) -> list[str]:
    return [problem.path for problem in parsed(text).warnings if problem.code == "duplicate_value"]


def test_equal_rows_of_a_zip_group_are_one_point() -> None:
    """Lists are zipped as they are written: values that come again make other rows, and only equal rows count once."""
    table = "{parameter_space: {a: [1, 1, 2], b: [5, 6, 5]}, design: {zip: [[a, b]]}}"
    assert params(table) == [{"a": 1, "b": 5}, {"a": 1, "b": 6}, {"a": 2, "b": 5}]
    assert repeated(table) == []
    twice = "{parameter_space: {a: {values: [1, 2, 1, 1]}, b: [5, 5, 5, 6]}, design: {zip: [[b, a]]}}"
    assert params(twice) == [{"a": 1, "b": 5}, {"a": 2, "b": 5}, {"a": 1, "b": 6}]
    assert repeated(twice) == ["parameter_space.b.2"]
    assert "b = 5, a = 1 is there twice" in parsed(twice).warnings[0].message
    with pytest.raises(errors.PlanRejected, match="a has 3, b has 2"):
        parsed("{parameter_space: {a: [1, 1, 2], b: [5, 6]}, design: {zip: [[a, b]]}}")
    assert params(
        "{parameter_space: {a: [7, 7], b: {range: {start: 1, stop: 2, num: 2}}}, design: {zip: [[a, b]]}}"
    ) == [
        {"a": 7, "b": 1},
        {"a": 7, "b": 2},
    ]


@pytest.mark.parametrize(
    ("axis", "left", "told"),
    [
        ("[3, 3.0, 3, 4]", [3, 3.0, 4], "parameter_space.a.2"),
        ("{range: {start: 1, stop: 1, num: 5}}", [1], "parameter_space.a.range"),
        ("{logrange: {start: 2.5, stop: 2.5, num: 3}}", [2.5], "parameter_space.a.logrange"),
        ("{range: {start: 4, stop: 4.000000000000001, num: 5}}", [4.0, 4 + 2**-50], "parameter_space.a.range"),
        ("{logrange: {start: 5.0e-324, stop: 1.0e-323, num: 4}}", [5e-324, 1e-323], "parameter_space.a.logrange"),
    ],
)  # fmt: skip
def test_equal_values_of_an_axis_are_one_point(axis: str, left: list[JSON], told: str) -> None:
    """Of lists and of ranges, with one warning where the plan says them."""
    text = f"parameter_space: {{a: {axis}}}"
    assert [canonical.text(point["a"]) for point in params(text)] == [canonical.text(value) for value in left]
    assert repeated(text) == [told]


def test_ranges_that_are_too_fine_are_refused() -> None:
    """To find which of a million values are equal takes too long; zipped with a list they have as many as that."""
    fine = "{range: {start: 1, stop: 1.0000000000000004, num: 1000000}}"
    [(code, words)] = refused(f"parameter_space: {{a: {fine}}}")
    assert code == "out_of_range"
    assert "100,000 of these at most" in words
    group = f"{{parameter_space: {{a: {fine}, b: {fine}}}, design: {{zip: [[a, b]]}}}}"
    with pytest.raises(errors.PlanRejected, match=r"design\.zip\.0: values closer"):
        parsed(group)
    few = group.replace("1000000", "3").replace("0004", "0001")
    assert params(few) == [{"a": 1.0, "b": 1.0}]
    assert repeated(few) == ["design.zip.0"]


@given(st.data())
def test_zip_groups_are_those_of_a_naive_expansion(data: st.DataObject) -> None:
    """Lists with repeats, in groups and beside them, with conditions that leave values out."""
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
    # The group is at the place of its first axis, which is a.
    for row, *rest in itertools.product(together, *(dict.fromkeys(columns[name]) for name in others)):
        full = dict(zip([*group, *others], [*row, *rest], strict=True))
        point: dict[str, JSON] = {name: full[name] for name in columns if name != "c" or holds(full["a"])}
        expected.setdefault(canonical.text(point), point)
    assert [point.params for point in space.points(made)] == list(expected.values())


def test_what_becomes_equal_by_a_condition_is_one_point() -> None:
    """In zip groups too: entries that differ only in what is left out count once."""
    text = """
    parameter_space:
      on: [true, false]
      a: [1, 2, 3]
      b: {values: [5, 5.0, 5.5], when: "on"}
      c: {values: [7, 7.5, 8], when: "on"}
    design: {zip: [[a, b, c]]}
    """
    found = params(text)
    assert found == [
        {"on": True, "a": 1, "b": 5, "c": 7},
        {"on": True, "a": 2, "b": 5.0, "c": 7.5},
        {"on": True, "a": 3, "b": 5.5, "c": 8},
        {"on": False, "a": 1},
        {"on": False, "a": 2},
        {"on": False, "a": 3},
    ]
    only = """
    parameter_space: {on: [true, false], a: {values: [1, 2], when: on}, b: {values: [1, 2], when: on}}
    design: {zip: [[a, b]]}
    """
    assert params(only) == [{"on": True, "a": 1, "b": 1}, {"on": True, "a": 2, "b": 2}, {"on": False}]


def test_derived_values_come_from_what_they_name() -> None:
    """Parameters by path or name, the base configuration, entries of `runs`; left out where what they name is."""
    text = """
    allow_new_paths: true
    runs: [{params_override: {d: 10, list: [7]}}, {}]
    parameter_space:
      c: {expr: "a + n + d + f.g + list.0"}
      a: [1, 2]
      b: {values: [5], as: n}
      e: {expr: "c * 2", when: "a > 1"}
      new.x: {values: [3], when: "a > 1"}
      new.y: {expr: "new.x + 1"}
      new.z: {value: [1, 2], when: "new.y > 1"}
    """
    assert params(text) == [
        {"d": 10, "list": [7], "c": 23, "a": 1, "n": 5},
        {"d": 10, "list": [7], "c": 24, "a": 2, "n": 5, "e": 48, "new.x": 3, "new.y": 4, "new.z": [1, 2]},
        {"c": 7, "a": 1, "n": 5},
        {"c": 8, "a": 2, "n": 5, "e": 16, "new.x": 3, "new.y": 4, "new.z": [1, 2]},
    ]


def test_a_left_out_parameter_has_the_base_s_value_in_expressions() -> None:
    """For that is what the run gets; without one, conditions don't hold and constraints don't apply."""
    base_value = """
    parameter_space: {on: [true, false], a: {values: [5], when: on}}
    constraints: ["a == 0"]
    """
    assert params(base_value) == [{"on": False}]
    none = """
    allow_new_paths: true
    parameter_space: {on: [true, false], x: {values: [5, 6], when: on}, a: {values: [1], when: "x > 5"}}
    constraints: ["x > 5"]
    """
    assert params(none) == [{"on": True, "x": 6, "a": 1}, {"on": False}]


def test_constraints_hold_at_points_of_runs_too() -> None:
    """What an entry overrides is what its constraints see, values inside of lists and mappings as well."""
    text = """
    runs:
      - {run_id_suffix: x, params_override: {a: 1, list: [1, 1]}}
      - {run_id_suffix: y, params_override: {a: 2, list: [5, 5]}}
      - {run_id_suffix: z, params_override: {b: 1}}
    constraints: ["a != 1 or list.1 == 5", "a + list.0 < 9", "len(list) == 2"]
    """
    assert [point.run_id_suffix for point in space.points(parsed(text))] == ["y", "z"]
    inside = "{parameter_space: {f: [{g: 1}, {g: 2}], list: [[1, 2], [3, 4]]}, constraints: ['f.g + list.0 < 5']}"
    assert params(inside) == [
        {"f": {"g": 1}, "list": [1, 2]},
        {"f": {"g": 1}, "list": [3, 4]},
        {"f": {"g": 2}, "list": [1, 2]},
    ]


def test_a_value_that_a_list_does_not_have_is_missing() -> None:
    """Where the values of an axis are of different shape, names inside of them may have none."""
    text = "{parameter_space: {f: [{g: 1}, {}, 5], b: {expr: 'f.g + 1'}}, allow_new_paths: true}"
    assert params(text) == [{"f": {"g": 1}, "b": 2}, {"f": {}}, {"f": 5}]


def test_points_can_be_made_from_any_on() -> None:
    """What was interrupted goes on where it stopped, whatever the plan has."""
    reef = parsed(REEF)
    points = list(space.points(reef))
    for start in (0, 1, 63, 64, 500, 1343, 1344, 2000):
        assert list(space.points(reef, start)) == points[start:]


def test_a_million_jobs_are_counted_and_reached_at_once() -> None:
    """By arithmetic: nothing is expanded to count, and the last point is found without those before it."""
    text = """
    parameter_space: {a: {range: {start: 0, stop: 999999, step: 1}}, b: {range: {start: 0, stop: 1, num: 1000}}}
    num_replicates_per_run: 3
    """
    large = parsed(text)
    assert space.count(large) == space.Count(10**9, 3 * 10**9)
    last = next(space.points(large, 10**9 - 1))
    assert (last.index, last.params) == (10**9 - 1, {"a": 999_999, "b": 1.0})


AXES: dict[str, list[JSON]] = {"a": [1, 2, 3], "b": [0, 1], "c": [2, 4], "d": [True, False]}
CONDITIONS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "a > 1": lambda p: p["a"] > 1,
    "b == 1": lambda p: p["b"] == 1,
    "not d": lambda p: not p["d"],
    "a + c < 6": lambda p: p["a"] + p["c"] < 6,
    "d or a * b == 2": lambda p: p["d"] or p["a"] * p["b"] == 2,
    "true": lambda _: True,
}


def _naively(whens: dict[str, str], constraints: list[str], order: list[str]) -> list[dict[str, JSON]]:
    """All points the slow way: every combination, conditions one after another, equal ones once."""
    found: dict[str, dict[str, JSON]] = {}
    for values in itertools.product(*(AXES[name] for name in order)):
        full = dict(zip(order, values, strict=True))
        seen = {**BASE}
        left: dict[str, JSON] = {}
        for name in "abcd":  # conditions name only axes before their own in this order
            if name in full and (name not in whens or CONDITIONS[whens[name]](seen)):
                seen[name] = left[name] = full[name]
        if all(CONDITIONS[constraint](seen) for constraint in constraints):
            point = {name: left[name] for name in order if name in left}
            found.setdefault(canonical.text(point), point)
    return list(found.values())


@settings(max_examples=50)
@given(
    order=st.permutations(list(AXES)),
    when_b=st.sampled_from([None, "a > 1", "true"]),
    when_c=st.sampled_from([None, "b == 1", "a > 1"]),
    when_d=st.sampled_from([None, "a + c < 6", "b == 1"]),
    constraints=st.lists(st.sampled_from(list(CONDITIONS)), max_size=3),
    patience=st.sampled_from([grid._BUDGET, 0, 40]),
)
def test_points_are_those_of_a_naive_expansion(
    order: list[str],
    when_b: str | None,
    when_c: str | None,
    when_d: str | None,
    constraints: list[str],
    patience: int,
) -> None:
    """The same points in the same order, however much of the counting is left undone; counts are exact or a bound."""
    whens = {name: when for name, when in (("b", when_b), ("c", when_c), ("d", when_d)) if when is not None}
    axes: dict[str, object] = {name: {"values": AXES[name]} for name in order}
    axes |= {name: {"values": AXES[name], "when": when} for name, when in whens.items()}
    data = {"experiment_name": "x", "base_config": BASE, "parameter_space": axes, "constraints": constraints}
    expected = _naively(whens, constraints, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "_BUDGET", patience)
        if not expected:
            with contextlib.suppress(errors.PlanRejected):
                assert not list(space.points(plan.parse(data)))
            return
        made = plan.parse(data)
    count = space.count(made)
    points = list(space.points(made))
    assert [point.params for point in points] == expected
    assert [point.index for point in points] == list(range(len(points)))
    assert count.points == len(points) if count.exact else count.points >= len(points)
    assert space.exact_count(made) == space.Count(len(points), len(points))
    for start in range(len(points) + 1):
        assert list(space.points(made, start)) == points[start:]
    for start in reversed(range(len(points) + 1)):
        assert list(itertools.islice(space.points(made, start), 2)) == points[start : start + 2]


def test_a_bound_says_that_it_is_one() -> None:
    """Where too many axes are coupled to work all out, the count is marked, and points are found all the same."""
    text = """
    parameter_space: {a: {range: {start: 1, stop: 400, num: 400}}, b: {range: {start: 1, stop: 400, num: 400}}}
    constraints: ["a * b == 399"]
    """
    bounded = parsed(text)
    assert space.count(bounded) == space.Count(160_000, 160_000, exact=False)
    assert space.exact_count(bounded) == space.Count(8, 8)
    first = next(space.points(bounded))
    assert first.params == {"a": 1, "b": 399}
    # The next chunk begins where the last one ended.
    assert next(space.points(bounded, 1)).params == {"a": 3, "b": 133}
    assert next(space.points(bounded, 0)).params == {"a": 1, "b": 399}


FAILING = "{parameter_space: {a: {range: {start: 400, stop: 0, num: 401}}, b: {expr: '1 / a'}}}"


def refused(text: str) -> list[tuple[str, str]]:
    """What is found wrong with a plan that could be read, when all of it is tried."""
    with pytest.raises(errors.PlanRejected) as found:
        space.exact_count(parsed(text))
    return [(problem.code, problem.message) for problem in found.value.problems]


def test_an_expression_that_has_no_value_at_some_point_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever that point is: what is too much to be tried while the plan is read is tried before it is accepted."""
    [(code, message)] = refused(FAILING)
    assert (code, message) == ("expression_fails", "'1 / a' with a = 0: it has no value: division by zero")
    monkeypatch.setattr(grid, "_BUDGET", 0)
    open_axes = "a: {range: {start: 9, stop: 0, num: 10}}, b: {range: {start: 9, stop: 0, num: 10}}"
    [(code, message)] = refused(f"{{parameter_space: {{{open_axes}}}, constraints: ['1 / a + 1 / b > 1.4']}}")
    assert (code, message.partition(":")[0]) == ("expression_fails", "'1 / a + 1 / b > 1.4' with a = 9, b = 0")
    [(code, message)] = refused(
        f"{{parameter_space: {{{open_axes}, c: {{expr: 1 / (a - b)}}}}, constraints: ['a > 1']}}"
    )
    assert (code, message.partition(":")[0]) == ("expression_fails", "'1 / (a - b)' with a = 9, b = 9")


@pytest.mark.parametrize("patience", [grid._BUDGET, 0])
@pytest.mark.parametrize("stop", [3, 400])
@pytest.mark.parametrize(
    "guard",
    [
        "b: {expr: '1 / a'}, c: [1, 2]}, constraints: ['a * c > 0']",
        "b: {expr: '1 / a'}, c: [1, 2]}, constraints: ['a > 0', 'c > 1 or b < 2']",
        "b: {expr: '1 / a', when: 'a > 0'}, c: [1, 2]}",
        "b: {expr: '1 / a', when: 'a * c > 0'}, c: [1, 2]}",
        "b: {expr: '1 / a if a > 0 else 1'}, c: [1, 2]}",
    ],
)
def test_an_expression_may_fail_where_no_point_is(
    monkeypatch: pytest.MonkeyPatch, guard: str, stop: int, patience: int
) -> None:
    """Conditions and constraints come first."""
    monkeypatch.setattr(grid, "_BUDGET", patience)
    axes = f"{{parameter_space: {{a: {{range: {{start: 0, stop: {stop}, step: 1}}}}, "
    plan_ = parsed(axes + guard + "}")
    assert space.exact_count(plan_).points == len(list(space.points(plan_))) > 0


PARTIAL = ["1 / a < 5", "1 / (b - 1) > 0", "1 / (a - b) < 2", "1 / (c * a) > 0", "d / b > 0", "1 / e < 3", "e > 0"]
GUARDS = ["a > 0", "b != 1", "a != b", "a * c > 0", "a * b * c > 1", "d > 0", "c > 0 or a == 1", "e < 9"]
FAILS = "fails"


def _worked_out(text: str, values: dict[str, Any]) -> Any:
    """What an expression comes to; FAILS where it, or something that it names, has no value."""
    named = [name for name in values if name in text]
    if any(values[name] == FAILS for name in named):
        return FAILS
    try:
        return eval(text, {}, values)
    except ZeroDivisionError:
        return FAILS


def _all_tried(order: list[str], when: str | None, derived: str, constraints: list[str]) -> list[JSON] | str:
    """The points the slow way; FAILS if something has no value at a combination that no constraint leaves out."""
    lists: dict[str, list[JSON]] = {"a": [0, 1, 2], "b": [1, 0], "c": [0, 3], "d": [0, 2]}
    found: dict[str, JSON] = {}
    for combination in itertools.product(*(lists[name] for name in order)):
        values: dict[str, Any] = dict(zip(order, combination, strict=True))
        shown = True if when is None else _worked_out(when, {name: values[name] for name in "abc"})
        point = {name: values[name] for name in order if name != "d" or shown is True}
        if shown is not True:
            values["d"] = FAILS if shown == FAILS else 0
        values["e"] = point["e"] = _worked_out(derived, values)
        verdicts = [_worked_out(constraint, values) for constraint in constraints]
        if False in verdicts:
            continue
        if FAILS in (*verdicts, values["d"], values["e"]):
            return FAILS
        found.setdefault(canonical.text(point), {name: point[name] for name in (*order, "e") if name in point})
    return list(found.values())


@settings(max_examples=300)
@given(
    order=st.permutations(["a", "b", "c", "d"]),
    when=st.sampled_from([None, *(text for text in PARTIAL + GUARDS if not {*"de"} & {*text.replace("or", "")})]),
    derived=st.sampled_from(["1", "a + d", "1 / a", "1 / (b - 1)", "1 / (a - b)", "c / d", "1 / (a * c)"]),
    constraints=st.lists(st.sampled_from(PARTIAL + GUARDS + GUARDS), max_size=4),
    patience=st.sampled_from([grid._BUDGET, 0, 100, 400]),
)
def test_constraints_guard_whatever_has_no_value(
    order: list[str], when: str | None, derived: str, constraints: list[str], patience: int
) -> None:
    """In whatever order, wherever their parameters are in the plan's: only what fails at a point is an error.

    Where there is no point at all, either may be told.
    """
    lists = {"a": [0, 1, 2], "b": [1, 0], "c": [0, 3], "d": [0, 2]}
    space_: dict[str, object] = {name: {"values": lists[name]} for name in order}
    if when is not None:
        space_["d"] = {"values": lists["d"], "when": when}
    data = {"experiment_name": "x", "base_config": BASE, "parameter_space": {**space_, "e": {"expr": derived}}}
    expected = _all_tried(order, when, derived, constraints)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "_BUDGET", patience)
        if expected == FAILS or not expected:
            with pytest.raises(errors.PlanRejected) as rejected:
                space.exact_count(plan.parse({**data, "constraints": constraints}))
            codes = {problem.code for problem in rejected.value.problems}
            assert "expression_fails" in codes if expected == FAILS else codes <= {"expression_fails", "no_points"}
            return
        made = plan.parse({**data, "constraints": constraints})
    assert space.exact_count(made).points == len(expected)
    assert [point.params for point in space.points(made)] == expected


def test_a_condition_that_names_more_guards_at_all_of_it() -> None:
    """A derived value whose `when` names another parameter is tried at the values of both."""
    text = "{parameter_space: {a: [1, 0], c: [1, 2], b: {expr: 1 / a, when: c > 1}}}"
    with pytest.raises(errors.PlanRejected, match="'1 / a' with a = 0"):
        parsed(text)


def test_a_search_for_a_point_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expression counts as failing then: a condition of its own helps."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    monkeypatch.setattr(grid, "_LOOKED", 3)
    text = "{parameter_space: {a: [0, 1], b: {expr: 1 / a}, c: [1, 2, 3, 4, 5, 6]}, constraints: ['a * c > 0']}"
    made = parsed(text)
    assert not made.grid.settled
    assert space.exact_count(made).points == 6
    monkeypatch.setattr(grid, "_LOOKED_LONG", 3)
    assert refused(text)[0][0] == "expression_fails"


def test_derived_values_of_too_much_are_refused() -> None:
    """They would have to be worked out at more combinations than there is time for."""
    wide = "{range: {start: 1, stop: 9000, step: 1}}"
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(f"{{parameter_space: {{a: {wide}, b: {wide}, c: {{expr: a / b}}}}}}")
    assert [problem.code for problem in rejected.value.problems] == ["too_many_combinations"]


def test_a_limit_of_jobs_is_judged_by_the_exact_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound over it refuses nothing; counting ends as soon as there are too many."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    monkeypatch.setattr(grid, "_STEP", 10)
    text = """{{parameter_space: {{a: {{range: {{start: 1, stop: 100, step: 1}}}}, b: [1, 2, 3, 4]}},
    constraints: ['a * b <= {limit}'], num_replicates_per_run: 2, design: {{max_jobs: 100}}}}"""
    few = parsed(text.format(limit=20))
    assert space.count(few) == space.Count(400, 800, exact=False)
    assert space.exact_count(few) == space.Count(41, 82)
    many = parsed(text.format(limit=300))
    steps: list[int] = []
    with pytest.raises(errors.PlanRejected, match=r"jobs or more \(800 at most\), and this plan allows 100"):
        steps.extend(so_far.points for so_far in space.settling(many))
    assert 0 < max(steps) <= 50
    with pytest.raises(errors.PlanRejected, match=r"this worker takes 70 at most \(EMS_MAX_JOBS\)"):
        list(space.settling(few, most_jobs=70))


def test_points_that_are_tried_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search is left after so many tries and goes on where it was, also from the middle anew."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    text = "{parameter_space: {a: {range: {start: 1, stop: 30, step: 1}}, b: [1, 2]}, constraints: ['a * b == 30']}"
    for begin in (0, 1):
        made = parsed(text)
        found: list[dict[str, JSON]] = []
        for _ in range(12):
            found += [point.params for point in space.points(made, begin + len(found), tries=5)]
        assert found == [{"a": 15, "b": 2}, {"a": 30, "b": 1}][begin:]


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton", "lhs"])
def test_samples_are_a_pure_function_of_the_plan(sampler: str) -> None:
    """The same plan gives the same samples, another seed others; each is within its distribution."""
    text = f"""
    parameter_space:
      a: {{dist: uniform, low: -1, high: 1}}
      b: {{dist: int, low: 1, high: 3}}
      c: {{dist: normal, mean: 10, std: 2}}
      d: {{dist: choice, values: [x, [y], null]}}
      e: {{dist: loguniform, low: 1, high: 1000}}
    design: {{sampler: {sampler}, samples: 128}}
    """
    found = params(text)
    assert found == params(text)
    assert found != params(text.replace("samples: 128", "samples: 128, seed: 1"))
    assert params(text.replace("samples: 128", "samples: 128, seed: 5")) == params(f"{text}\n    seeds: {{root: 5}}")
    columns = {name: [point[name] for point in found] for name in "abcde"}
    assert all(isinstance(value, float) and -1 <= value <= 1 for value in columns["a"])
    assert set(map(canonical.text, columns["b"])) == {"1", "2", "3"}
    assert 9 < sum(columns["c"]) / 128 < 11  # type: ignore[arg-type]  # they are numbers
    assert set(map(canonical.text, columns["d"])) == {'"x"', '["y"]', "null"}
    assert 40 <= sum(value < 31.6 for value in columns["e"]) <= 88  # type: ignore[operator]  # they are numbers
    if sampler != "lhs":  # the strata of a latin hypercube are as many as its samples
        assert params(text.replace("samples: 128", "samples: 130"))[:128] == found


def test_random_samples_depend_on_their_own_parameter_alone() -> None:
    """Another sampled parameter, or more samples, change none."""
    one = params("{parameter_space: {a: {dist: uniform, low: 0, high: 1}}, design: {samples: 5}}")
    axes = "{b: {dist: uniform, low: 0, high: 1}, a: {dist: uniform, low: 0, high: 1}}"
    two = params(f"{{parameter_space: {axes}, design: {{samples: 7}}}}")
    assert [point["a"] for point in one] == [point["a"] for point in two][:5]
    assert [point["a"] for point in two] != [point["b"] for point in two]


def test_samples_are_sequences() -> None:
    """A slice of random coordinates is what its elements are."""
    (column,) = samples.columns("random", ["a"], 9, 7)
    assert column[2:6:2] == [column[2], column[4]]
    assert len(column) == 9


def test_constraints_name_what_does_not_vary_too() -> None:
    """Values of the base configuration are constants in them."""
    assert params("{parameter_space: {a: [1, 2, 3]}, constraints: ['a + list.0 < 4', 'b == 0']}") == [
        {"a": 1},
        {"a": 2},
    ]


def test_a_conditional_sample_is_one_point_where_it_is_left_out() -> None:
    """Without it the samples don't differ."""
    text = "{parameter_space: {on: [true, false], a: {dist: uniform, low: 0, high: 1, when: on}}, design: {samples: 8}}"
    assert len(params(text)) == 9
    assert params(text)[-1] == {"on": False}


def test_left_out_samples_are_one_point_wherever_they_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much to compare at once is compared in steps, and the points are the same, from any of them on."""
    text = """
    parameter_space:
      on: [true, false]
      a: {dist: int, low: 0, high: 9, when: on}
      b: {dist: int, low: 0, high: 9}
      c: {expr: "1 / a", when: "on and a > 0"}
    design: {samples: 40}
    """
    at_once = list(space.points(parsed(text)))
    assert 40 < len(at_once) <= 50
    monkeypatch.setattr(grid, "_BUDGET", 200)
    counts = list(space.settling(parsed(text)))
    assert counts[-1] == space.Count(len(at_once), len(at_once))
    assert len(counts) > 256
    assert list(space.points(parsed(text))) == at_once
    assert list(space.points(parsed(text), 42)) == at_once[42:]
    monkeypatch.setattr(grid, "_MOST_COMPARED", 30)
    assert refused(text)[0][0] == "too_many_combinations"


def test_costly_constraints_are_tried_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of them is as short, and fewer combinations are taken at all."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    axes = "a: {range: {start: 1, stop: 100, step: 1}}, b: {range: {start: 1, stop: 10, step: 1}}"
    text = f"{{parameter_space: {{{axes}}}, constraints: ['a * b + {'0 * a + ' * 30}0 > 0']}}"
    assert len(list(space.settling(parsed(text)))) < 10
    monkeypatch.setattr(grid, "_LONGEST_STEP", 5_000)
    assert len(list(space.settling(parsed(text)))) > 40
    monkeypatch.setattr(grid, "_MOST_TRYING", 100_000)
    with pytest.raises(errors.PlanRejected, match=r"1,000 combinations would have to be tried, [0-9]{3} at most are"):
        parsed(text)
