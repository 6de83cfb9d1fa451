"""Points: how many there are, which, and in which order."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import grid, plan, space
from tests.support.small_plans import BASE, JSON, params, parsed

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


@pytest.mark.parametrize(("side", "points"), [(40, 4), pytest.param(400, 8, marks=pytest.mark.long)])
def test_a_bound_says_that_it_is_one(side: int, points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many axes are coupled to work all out, the count is marked, and points are found all the same."""
    monkeypatch.setattr(grid, "_BUDGET", grid._BUDGET * side**2 // 400**2)
    axis = f"{{range: {{start: 1, stop: {side}, num: {side}}}}}"
    bounded = parsed(f"{{parameter_space: {{a: {axis}, b: {axis}}}, constraints: ['a * b == {side - 1}']}}")
    assert space.count(bounded) == space.Count(side**2, side**2, exact=False)
    assert space.exact_count(bounded) == space.Count(points, points)
    first = next(space.points(bounded))
    assert first.params == {"a": 1, "b": side - 1}
    # The next chunk begins where the last one ended.
    assert next(space.points(bounded, 1)).params == {"a": 3, "b": (side - 1) // 3}
    assert next(space.points(bounded, 0)).params == {"a": 1, "b": side - 1}
