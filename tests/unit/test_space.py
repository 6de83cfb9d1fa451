"""The points of a plan: their number, their parameters and their order."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import plan, space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import settled
from tests.support.small_plans import BASE, JSON, UNCOUNTED, params, parsed

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


def test_a_mixed_design_has_6720_jobs() -> None:
    """Of 32 combinations, conditions leave 24 and the constraint 21; 64 samples and 5 replicates make 6,720 jobs."""
    reef = parsed(REEF)
    assert space.count(reef) == space.SpaceSize(21 * 64, 6720, exact=True)
    assert space.count(
        parsed(REEF.replace("constraints", "labels").replace('["fish.count * env.temp < 2400"]', "{}"))
    ) == (space.SpaceSize(24 * 64, 24 * 64 * 5))
    points = list(space.points(reef))
    cells = {canonical.text({k: v for k, v in point.params.items() if k != "growth"}) for point in points}
    assert len(cells) == 21
    samples = {point.params["growth"] for point in points}
    assert len(samples) == 64
    assert all(isinstance(value, float) and 1e-4 <= value <= 0.1 for value in samples)
    for point in points:
        assert point.params["fish.count"] * point.params["env.temp"] < 2400  # type: ignore[operator]  # they are numbers
        assert ("shark.speed" in point.params) == point.params["shark.present"]
    # Every cell of the grid has the same samples in the same order.
    assert [point.params["growth"] for point in points[:64]] == [point.params["growth"] for point in points[-64:]]


def test_the_last_axis_varies_fastest() -> None:
    """Points are in row-major order of the plan's axes, whether their paths are nested or dotted."""
    assert params("parameter_space: {b: [1, 2], f: {g: [5]}, a: [3, 4]}") == [
        {"b": 1, "f.g": 5, "a": 3},
        {"b": 1, "f.g": 5, "a": 4},
        {"b": 2, "f.g": 5, "a": 3},
        {"b": 2, "f.g": 5, "a": 4},
    ]


def test_each_entry_of_runs_is_combined_with_the_whole_grid() -> None:
    """Entries of `runs` vary slowest, and equal entries are separate points."""
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
    """The point has no parameters, so that its run gets the base configuration unchanged."""
    assert params("description: only the base") == [{}]


def test_combinations_that_a_condition_makes_equal_are_one_point() -> None:
    """Rows of a zip group that differ only in parameters which are left out count once."""
    text = """
    parameter_space:
      on: [true, false]
      a: [1, 2, 3]
      b: {values: [5, 5.0, 5.5], when: "on"}
      c: {values: [7, 7.5, 8], when: "on"}
    design: {zip: [[a, b, c]]}
    """
    assert params(text) == [
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


def test_a_derived_value_is_computed_from_the_values_that_it_names() -> None:
    """It may name parameters by path or name, the base configuration and entries of `runs`.

    Points that leave out one of these leave out the derived value as well.
    """
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


def test_in_expressions_a_parameter_that_is_left_out_has_the_base_s_value() -> None:
    """If the base configuration has no value either, conditions are false and constraints don't apply."""
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


def test_constraints_apply_to_entries_of_runs() -> None:
    """A constraint reads the values that an entry overrides, including values inside lists and mappings."""
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


def test_a_name_inside_a_value_may_have_no_value_at_some_points() -> None:
    """If the values of an axis differ in structure, points without the named part leave out derived values."""
    text = (
        "{parameter_space: {f: {values: [{g: 1}, {}, 5], replace: true}, b: {expr: 'f.g + 1'}}, allow_new_paths: true}"
    )
    assert params(text) == [{"f": {"g": 1}, "b": 2}, {"f": {}}, {"f": 5}]


def test_points_can_be_made_from_any_number_on() -> None:
    """An interrupted expansion continues with the same points, whatever features the plan uses."""
    reef = parsed(REEF)
    points = list(space.points(reef))
    for start in (0, 1, 63, 64, 500, 1343, 1344, 2000):
        assert list(space.points(reef, start)) == points[start:]


def test_a_billion_points_are_counted_and_the_last_is_found_without_the_others() -> None:
    """Counting and finding a point are arithmetic, so that this test ends at all."""
    text = """
    parameter_space: {a: {range: {start: 0, stop: 999999, step: 1}}, b: {range: {start: 0, stop: 1, num: 1000}}}
    num_replicates_per_run: 3
    """
    large = parsed(text)
    assert space.count(large) == space.SpaceSize(10**9, 3 * 10**9)
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
    """The points by brute force: all combinations, conditions one after another, equal points once."""
    found: dict[str, dict[str, JSON]] = {}
    for values in itertools.product(*(AXES[name] for name in order)):
        full = dict(zip(order, values, strict=True))
        seen = {**BASE}
        left: dict[str, JSON] = {}
        for name in "abcd":  # a condition only names axes before its own in this order
            if name in full and (name not in whens or CONDITIONS[whens[name]](seen)):
                seen[name] = left[name] = full[name]
        if all(CONDITIONS[constraint](seen) for constraint in constraints):
            point = {name: left[name] for name in order if name in left}
            found.setdefault(canonical.text(point), point)
    return list(found.values())


@given(
    order=st.permutations(list(AXES)),
    when_b=st.sampled_from([None, "a > 1", "true"]),
    when_c=st.sampled_from([None, "b == 1", "a > 1"]),
    when_d=st.sampled_from([None, "a + c < 6", "b == 1"]),
    constraints=st.lists(st.sampled_from(list(CONDITIONS)), max_size=3),
    limits=st.sampled_from([WorkLimits(), UNCOUNTED, WorkLimits(early_steps=40)]),
)
def test_points_are_those_of_a_naive_expansion(
    order: list[str],
    when_b: str | None,
    when_c: str | None,
    when_d: str | None,
    constraints: list[str],
    limits: WorkLimits,
) -> None:
    """Points and order are the same, however much work counting may do; a count is exact or an upper bound."""
    whens = {name: when for name, when in (("b", when_b), ("c", when_c), ("d", when_d)) if when is not None}
    axes: dict[str, object] = {name: {"values": AXES[name]} for name in order}
    axes |= {name: {"values": AXES[name], "when": when} for name, when in whens.items()}
    data = {"experiment_name": "x", "base_config": BASE, "parameter_space": axes, "constraints": constraints}
    expected = _naively(whens, constraints, order)
    if not expected:
        with contextlib.suppress(errors.PlanRejected):
            assert not list(space.points(plan.parse(data, limits=limits)))
        return
    made = plan.parse(data, limits=limits)
    count = space.count(made)
    points = list(space.points(made))
    assert [point.params for point in points] == expected
    assert [point.index for point in points] == list(range(len(points)))
    assert count.points == len(points) if count.exact else count.points >= len(points)
    assert settled.size(made) == space.SpaceSize(len(points), len(points))
    for start in range(len(points) + 1):
        assert list(space.points(made, start)) == points[start:]
    for start in reversed(range(len(points) + 1)):
        assert list(itertools.islice(space.points(made, start), 2)) == points[start : start + 2]


def test_a_count_that_is_an_upper_bound_is_marked() -> None:
    """If counting takes too long for parsing, the points are counted when they are needed."""
    text = """
    parameter_space: {a: {range: {start: 1, stop: 400, num: 400}}, b: {range: {start: 1, stop: 400, num: 400}}}
    constraints: ["a * b == 399"]
    """
    bounded = parsed(text, limits=UNCOUNTED)
    assert space.count(bounded) == space.SpaceSize(160_000, 160_000, exact=False)
    assert not bounded.grid.exact
    assert settled.size(bounded) == space.SpaceSize(8, 8)
    bounded = parsed(text, limits=UNCOUNTED)
    assert next(space.points(bounded, 1)).params == {"a": 3, "b": 133}
    assert next(space.points(bounded, 0)).params == {"a": 1, "b": 399}
    assert len(list(space.points(bounded))) == 8
    assert bounded.grid.exact
