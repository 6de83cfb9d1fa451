"""Samples that are drawn again: those that constraints leave out, with `refill`, and repeated values, with `unique`."""

import pytest

from ems_worker.core.language import samples
from ems_worker.core.points import extension, space
from ems_worker.core.points.extension import Version
from ems_worker.core.points.work_limits import WorkLimits
from tests.support.small_plans import JSON, params, parsed, refused

SAMPLERS = ["random", "sobol", "halton", "lhs"]
DISC = """
    parameter_space:
      a: {dist: uniform, low: -1, high: 1}
      b: {dist: uniform, low: -1, high: 1}
    design: {sampler: %s, samples: %s, refill: true}
    constraints: ["a * a + b * b < 0.25"]
"""


def column(text: str, name: str) -> list[JSON]:
    """The values of a parameter at all points."""
    return [point[name] for point in params(text)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_refill_draws_samples_until_enough_satisfy_the_constraints(sampler: str) -> None:
    """There are as many as the plan asks for, and they are the same whenever it is read."""
    found = params(DISC % (sampler, 64))
    assert len(found) == 64
    assert all(point["a"] ** 2 + point["b"] ** 2 < 0.25 for point in found)  # type: ignore[operator]  # numbers
    assert found == params(DISC % (sampler, 64))
    assert len({point["a"] for point in found}) == 64


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton"])
def test_more_samples_keep_the_earlier_ones_when_refilled(sampler: str) -> None:
    """A sample is replaced by the next one of the same sequence that satisfies."""
    few, many = (params(DISC % (sampler, count)) for count in (32, 64))
    assert many[:32] == few
    drawn = params((DISC % (sampler, 1024)).replace(", refill: true", ""))
    assert drawn[:64] == many


def test_further_samples_of_a_latin_hypercube_are_hypercubes_of_their_own() -> None:
    """The first ones are those of the design without `refill`."""
    one, more = (samples.columns("lhs", ["a", "b"], 8, 7, times=times) for times in (1, 3))
    for first, longer in zip(one, more, strict=True):
        assert list(longer[:8]) == list(first)
        for part in range(3):
            assert sorted(int(u * 8) for u in longer[8 * part : 8 * part + 8]) == list(range(8))


def test_constraints_on_other_axes_filter_afterwards() -> None:
    """Every combination of the other axes gets the same samples, so that these can't depend on it."""
    text = """
    parameter_space:
      a: [1, 2]
      b: {dist: int, low: 1, high: 9}
      c: {value: 4}
      d: {range: {start: 3, stop: 3, num: 1}}
    design: {samples: 50, refill: true}
    constraints: ["b > c", "b + d + e < 12", "a < 2 or b > 6"]
    """
    found = params(text)
    drawn = [point["b"] for point in found if point["a"] == 1]
    assert len(drawn) == 50
    assert set(drawn) == {5, 6, 7, 8}
    assert [point["b"] for point in found if point["a"] == 2] == [b for b in drawn if b in (7, 8)]


def test_derived_values_and_conditions_of_samples_are_judged() -> None:
    """An expression that only depends on samples is as good as one of them."""
    text = """
    parameter_space:
      a: {dist: int, low: 1, high: 9}
      b: {dist: int, low: 1, high: 9, when: "a > 3"}
      c: {expr: "a + b", when: "a > 2"}
    design: {samples: 20, refill: true}
    constraints: ["c % 2 == 0"]
    """
    found = params(text)
    # Samples without `b` that are equal in `a` are one point; where `c` is left out it is 0.
    assert all(point.get("c", 0) % 2 == 0 for point in found)  # type: ignore[operator]  # they are numbers
    assert sum("b" in point for point in found) + sum("b" not in point for point in found) == len(found) <= 20
    assert {"b" in point for point in found} == {True, False}


def test_values_that_entries_of_runs_override_are_not_judged() -> None:
    """They differ from run to run, and all runs get the same samples."""
    text = """
    parameter_space: {a: {dist: int, low: 1, high: 9}}
    runs: [{params_override: {b: 1}}, {params_override: {b: 5}}]
    design: {samples: 10, refill: true}
    constraints: ["a > b", "a > 2"]
    """
    found = params(text)
    assert len([point for point in found if point["b"] == 1]) == 10
    assert len([point for point in found if point["b"] == 5]) < 10


def test_refill_without_a_constraint_on_samples_causes_a_warning() -> None:
    """It replaces nothing then."""
    text = """
    parameter_space: {a: {dist: int, low: 1, high: 9}, b: [1, 2]}
    design: {samples: 10, refill: %s}
    constraints: ["a > b", "b < 5"]
    """
    [warning] = parsed(text % "true").warnings
    assert (warning.code, warning.path) == ("nothing_to_refill", "design.refill")
    assert params(text % "true") == params(text % "false")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_unique_samples_have_no_value_twice(sampler: str) -> None:
    """All of them are drawn if as many are wanted."""
    text = f"""
    parameter_space:
      a: {{dist: int, low: 1, high: 8, unique: true}}
      b: {{dist: uniform, low: 0, high: 1}}
    design: {{sampler: {sampler}, samples: 8}}
    """
    assert sorted(column(text, "a")) == [1, 2, 3, 4, 5, 6, 7, 8]  # type: ignore[type-var]  # they are numbers
    assert column(text, "a") == column(text, "a")
    if sampler != "lhs":
        assert column(text.replace("samples: 8", "samples: 4"), "a") == column(text, "a")[:4]


def test_unique_and_refill_go_together() -> None:
    """A sample that a constraint leaves out doesn't use up its value."""
    text = """
    parameter_space:
      a: {dist: choice, values: [1, 2, 3, [4]], unique: true}
      b: {dist: int, low: 1, high: 4}
    design: {samples: 3, refill: true}
    constraints: ["a != 3", "b == 2"]
    """
    assert sorted(map(str, column(text, "a"))) == ["1", "2", "[4]"]
    impossible = text.replace("samples: 3", "samples: 4")
    assert refused(impossible) == [
        (
            "too_few_samples",
            "only 3 of 10,000 samples satisfy the constraints and differ, and 4 are needed: ask for fewer, or make the "
            "distributions fit the constraints",
        )
    ]


def test_more_unique_samples_than_values_are_refused() -> None:
    """Nothing is drawn for that."""
    text = "{parameter_space: {a: {dist: int, low: 1, high: 3, unique: true}}, design: {samples: 4}}"
    message = "'a' has 3 values, which are too few for 4 samples without a repetition"
    assert refused(text) == [("too_few_samples", message)]


def test_values_that_are_hardly_ever_drawn_end_the_search() -> None:
    """A hundred draws for each sample, and ten thousand for a few of them."""
    choice = "{dist: choice, values: [1, 2], weights: [1, 1.0e-9], unique: true}"
    text = f"{{parameter_space: {{a: {choice}}}, design: {{samples: 2}}}}"
    [(code, message)] = refused(text)
    assert code == "too_few_samples"
    assert message == "only 1 of 10,000 samples differ, and 2 are needed: ask for fewer, or allow more values"


@pytest.mark.parametrize(("sampler", "drawn"), [("random", "10,000"), ("halton", "10,000"), ("lhs", "10,000")])
def test_constraints_that_are_never_satisfied_end_the_search(sampler: str, drawn: str) -> None:
    """The error has the numbers."""
    [(code, message)] = refused((DISC % (sampler, 5)).replace("0.25", "0"))
    assert code == "too_few_samples"
    assert message.startswith(f"only 0 of {drawn} samples satisfy the constraints, and 5 are needed")


def test_the_work_of_drawing_again_is_limited() -> None:
    """Long expressions leave less of it for each sample."""
    limits = WorkLimits(redraw_steps=5000)
    assert len(list(space.points(parsed(DISC % ("random", 10), limits=limits)))) == 10
    drawn = [
        refused((DISC % ("random", 40)).replace("< 0.25", end), limits)[0][1]
        for end in ("< -99", f"{'+ a' * 30} < -99")
    ]
    numbers = [int(message.split(" samples")[0].split()[-1]) for message in drawn]
    assert 80 < numbers[0] < 120
    assert numbers[1] < 30
    text = (DISC % ("halton", 400_000)).replace("low: -1", "low: 0")
    [(code, _)] = refused(text.replace("0.25", "0"), WorkLimits(redraw_steps=50_000))
    assert code == "too_few_samples"


@pytest.mark.parametrize("more", ["refill: true", "refill: false"])
def test_samples_that_are_chosen_are_limited_in_number(more: str) -> None:
    """They are in memory."""
    axis = "{dist: int, low: 1, high: 90000000, unique: true}"
    text = f"{{parameter_space: {{a: {axis}}}, design: {{samples: 2000000, {more}}}}}"
    [(code, message)] = refused(text)
    assert code == "out_of_range"
    assert "random with 'refill' or 'unique' draws at most 1,048,576 numbers" in message


def test_a_constraint_without_a_value_is_an_error_of_the_plan() -> None:
    """Unless another constraint guards it: such samples are replaced."""
    text = """
    parameter_space: {a: {dist: int, low: 0, high: 3}, c: {expr: "5 / (3 - a)"}}
    design: {samples: 20, refill: true}
    constraints: ["1 / a < 9"%s]
    """
    failed = {message.split(":")[0] for _, message in refused(text % "")}
    assert failed == {"'1 / a < 9' with a = 0", "'5 / (3 - a)' with a = 3"}
    found = column(text % ", 'a > 0', 'a < 3'", "a")
    assert (len(found), set(found)) == (20, {1, 2})
    [(_, message)] = refused(text % ", 'a > 0', 'c > 0'")
    assert message.startswith("'5 / (3 - a)' with a = 3")


def test_refill_needs_samples() -> None:
    """It is about nothing else."""
    assert refused("{parameter_space: {a: [1]}, design: {refill: true}}") == [
        ("nothing_to_sample", "no axis has a 'dist' to draw samples from")
    ]
    assert refused("{parameter_space: {a: [1]}, design: {refill: 1}}")[0][0] == "wrong_type"


def _compared(old: str, new: str) -> list[str]:
    versions = [Version({"experiment_name": "x", "design": {"samples": 20}}, parsed(text)) for text in (old, new)]
    found = extension.compare(*versions, experiment_id="x", parameters={"a": "a", "b": "b"}, withdraw=False)
    return [problem.message for problem in found]


def test_other_constraints_that_replace_other_samples_do_not_extend_an_experiment() -> None:
    """The points that are there would have other values; with more samples alone they keep theirs."""
    old = DISC % ("random", 20)
    assert _compared(old, DISC % ("random", 30)) == []
    assert _compared(old, old.replace("0.25", "0.2500001")) == []
    [message] = _compared(old, old.replace("0.25", "0.2"))
    assert message.startswith("'refill' replaces other samples than in the experiment's plan")
    [message] = _compared(old, old.replace(", refill: true", ""))
    assert message.startswith("'refill' replaces other samples")
    unique = old.replace("a: {dist: uniform,", "a: {dist: uniform, unique: true,")
    [message] = _compared(old, unique)
    assert message.startswith("'a' has another distribution than in the experiment's plan")
