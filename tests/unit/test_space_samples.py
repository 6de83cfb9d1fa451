"""Sampled points."""

import pytest

from ems_worker.core import canonical
from ems_worker.core.language import samples
from ems_worker.core.points import space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support.small_plans import UNCOUNTED, params, parsed, refused


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton", "lhs"])
def test_samples_are_a_pure_function_of_the_plan(sampler: str) -> None:
    """The same plan has the same samples, another seed gives other samples, and all are within their distributions."""
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
    if sampler != "lhs":  # a latin hypercube has as many strata as samples
        assert params(text.replace("samples: 128", "samples: 130"))[:128] == found


def test_random_samples_depend_only_on_their_own_parameter() -> None:
    """Neither another sampled parameter nor more samples change them."""
    one = params("{parameter_space: {a: {dist: uniform, low: 0, high: 1}}, design: {samples: 5}}")
    axes = "{b: {dist: uniform, low: 0, high: 1}, a: {dist: uniform, low: 0, high: 1}}"
    two = params(f"{{parameter_space: {axes}, design: {{samples: 7}}}}")
    assert [point["a"] for point in one] == [point["a"] for point in two][:5]
    assert [point["a"] for point in two] != [point["b"] for point in two]


def test_a_column_of_coordinates_is_a_sequence() -> None:
    """A slice of it has the same elements as indexing."""
    (column,) = samples.columns("random", ["a"], 9, 7)
    assert column[2:6:2] == [column[2], column[4]]
    assert len(column) == 9


def test_constraints_may_name_values_that_do_not_vary() -> None:
    """Values of the base configuration are constants in expressions."""
    assert params("{parameter_space: {a: [1, 2, 3]}, constraints: ['a + list.0 < 4', 'b == 0']}") == [
        {"a": 1},
        {"a": 2},
    ]


def test_samples_that_are_left_out_are_one_point() -> None:
    """Without the sampled parameter, the samples don't differ."""
    text = "{parameter_space: {on: [true, false], a: {dist: uniform, low: 0, high: 1, when: on}}, design: {samples: 8}}"
    assert len(params(text)) == 9
    assert params(text)[-1] == {"on": False}


def test_samples_that_a_condition_makes_equal_are_one_point() -> None:
    """Of these the first counts, at each combination of the other axes; comparing too many of them is refused."""
    text = """
    parameter_space:
      on: [true, false]
      a: {dist: int, low: 0, high: 9, when: on}
      b: {dist: int, low: 0, high: 9}
      c: {expr: "1 / a", when: "on and a > 0"}
    design: {samples: 40}
    """
    at_once = list(space.points(parsed(text)))
    shown = [point.params["b"] for point in at_once if point.params["on"]]
    assert [point.params["b"] for point in at_once if not point.params["on"]] == list(dict.fromkeys(shown))
    assert list(space.points(parsed(text, limits=UNCOUNTED))) == at_once
    assert list(space.points(parsed(text, limits=UNCOUNTED), 42)) == at_once[42:]
    assert refused(text, WorkLimits(early_steps=0, steps=500))[0][0] == "too_many_combinations"


def test_conditions_among_samples_may_leave_out_any_of_them() -> None:
    """A sample is compared with those that leave out the same parameters."""
    text = """
    parameter_space:
      e: {dist: choice, values: [x, y, z]}
      a: {dist: int, low: 0, high: 2, when: "e == 'x'"}
      b: {dist: int, low: 0, high: 2, when: "e != 'z'"}
    design: {samples: 2000}
    """
    found = params(text)
    left_out = [point for point in found if "a" not in point]
    assert len(left_out) == 3 + 1
    assert len({canonical.text(point) for point in left_out}) == len(left_out)
    assert 600 < len(found) < 700
