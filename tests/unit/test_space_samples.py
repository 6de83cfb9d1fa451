"""Points that are sampled."""

import pytest

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import samples
from ems_worker.core.points import grid, space
from tests.support.small_plans import params, parsed, refused


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
