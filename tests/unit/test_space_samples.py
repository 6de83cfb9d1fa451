"""Sampled points."""

import pytest

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import samples
from ems_worker.core.points import space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support.small_plans import NO_TREES, params, parsed, refused


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


def test_samples_are_compared_in_steps_if_they_are_too_many_at_once() -> None:
    """The points are the same, from any of them on; too many comparisons are refused."""
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
    limits = WorkLimits(tree_steps=200)
    counts = list(space.settle(parsed(text, limits=limits)))
    assert counts[-1] == space.SpaceSize(len(at_once), len(at_once))
    assert len(counts) > 256
    assert list(space.points(parsed(text, limits=limits))) == at_once
    assert list(space.points(parsed(text, limits=limits), 42)) == at_once[42:]
    assert refused(text, WorkLimits(tree_steps=200, comparisons=30))[0][0] == "too_many_combinations"


def test_costly_constraints_are_evaluated_at_fewer_combinations() -> None:
    """Their steps are shorter, and fewer combinations are accepted."""
    axes = "a: {range: {start: 1, stop: 100, step: 1}}, b: {range: {start: 1, stop: 10, step: 1}}"
    text = f"{{parameter_space: {{{axes}}}, constraints: ['a * b + {'0 * a + ' * 30}0 > 0']}}"
    assert len(list(space.settle(parsed(text, limits=NO_TREES)))) < 10
    short = WorkLimits(tree_steps=0, steps_per_yield=5_000)
    assert len(list(space.settle(parsed(text, limits=short)))) > 40
    few = WorkLimits(tree_steps=0, combination_steps=100_000)
    with pytest.raises(errors.PlanRejected, match=r"1,000 combinations .* evaluated; at most [0-9]{3} can be"):
        parsed(text, limits=few)
