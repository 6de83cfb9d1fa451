"""Warnings about plans: values of another type than the base's, and other likely mistakes."""

import pytest

from ems_worker import errors
from ems_worker.core.points import space
from tests.support.reef_plans import BASE, JSON, parsed


def test_a_plan_with_likely_mistakes_is_accepted_with_warnings() -> None:
    """Duplicate values, lists of single values and unbalanced samples cause a warning each."""
    text = """
    parameter_space:
      fish.count: [1, 1, 2]
      fish.speed: {dist: uniform, low: 0, high: 1}
    design: {sampler: sobol, samples: 12}
    """
    accepted = parsed(text)
    assert [(problem.code, problem.path) for problem in accepted.warnings] == [
        ("sobol_samples", "design.samples"),
        ("duplicate_value", "parameter_space.fish.count.1"),
    ]
    assert "8 and 16 are" in accepted.warnings[0].message
    assert space.count(accepted).points == 2 * 12


def type_warnings(text: str, base: dict[str, JSON] = BASE) -> list[tuple[str, str]]:
    """The path and message of each warning about the type of a value."""
    return [(problem.path, problem.message) for problem in parsed(text, base).warnings if problem.code == "other_kind"]


TYPES: dict[str, JSON] = {
    "on": False,
    "count": 10,
    "speed": 1.5,
    "name": "cod",
    "note": None,
    "list": [1],
    "map": {"a": 1},
}


@pytest.mark.parametrize(
    ("axis", "location", "message"),
    [
        ("on: [yes, no]", "on.0", "has false here, and this is the text 'yes': write true or false (and 1 more)"),
        ("on: [true, 1]", "on.1", "has false here, and this is the number 1: write true or false"),
        ('count: [5, "5"]', "count.1", "and this is the text '5': write a number, in digits and without quotes"),
        ("count: {values: [5, 1_000]}", "count.values.1", "this is the text '1_000': write a number"),
        ("count: [true]", "count.0", "has the number 10 here, and this is true: write a number"),
        ("count: [5, 7.5]", "count.1", "and this is the number 7.5: if fractions are meant, write 10.0 there"),
        ("count: {value: {a: 1}}", "count.value", "and this is a mapping"),
        ("count: {range: {start: 0, stop: 1, num: 3}}", "count.range", "and this gives the number 0.5: if fractions"),
        ("count: {logrange: {start: 1, stop: 10, num: 3}}", "count.logrange", "the whole number 10 here, and"),
        ("count: {dist: normal, mean: 0, std: 1}", "count.dist", "the whole number 10 here, and this gives"),
        ("speed: {dist: choice, values: [fast]}", "speed.values.0", "the number 1.5 here, and this is the text 'fast'"),
        ("on: {dist: int, low: 0, high: 1}", "on.dist", "has false here, and this gives the number 1: check that"),
        ("count: {expr: speed * 2}", "count.expr", "the whole number 10 here, and this gives the number 3.0"),
        ("name: [cod, 5]", "name.1", "the text 'cod' here, and this is the number 5: if text is meant, put it"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_than_the_base_s_causes_a_warning(axis: str, location: str, message: str) -> None:
    """An axis has one such warning, at its first value of another type, with the remedy."""
    design = "design: {samples: 2}" if "dist" in axis else ""
    [(path, warning)] = type_warnings(f"parameter_space: {{{axis}}}\n{design}", TYPES)
    assert path == f"parameter_space.{location}"
    assert message in warning


def test_a_value_of_the_base_s_type_causes_no_warning() -> None:
    """A float accepts whole numbers, and every value accepts null; null, elements of lists and new paths accept all."""
    text = """
    allow_new_paths: true
    parameter_space:
      on: [true, null]
      count: {dist: int, low: 1, high: 5}
      speed: [1, 2.5]
      name: {expr: "'x'"}
      note: [1, x, {a: 1}]
      list: [[1.5], [x]]
      map.a: {value: 7}
      map.b: {expr: "'x'"}
    design: {samples: 2}
    """
    assert type_warnings(text, TYPES) == []
    left_out = "parameter_space: {on: {value: false}, count: {expr: speed, when: on}}"
    assert type_warnings(left_out, TYPES) == []


def test_runs_have_one_type_warning_per_parameter() -> None:
    """The warning is at the first entry with a value of another type."""
    entries = ["{speed: 1}", "{speed: x, count: 1.5}", "{speed: y}"]
    text = f"runs: [{', '.join(f'{{params_override: {entry}}}' for entry in entries)}]"
    locations = [path for path, _ in type_warnings(text, TYPES)]
    assert locations == ["runs.1.params_override.speed", "runs.1.params_override.count"]


def test_an_axis_may_vary_a_mapping_of_the_base() -> None:
    """Keys of the base configuration remain paths, and the key of an axis is never a new path."""
    base: dict[str, JSON] = {"light": {"day": 12, "night": 12}, "sensor": {"range": 5, "low": 1}, "on": True}
    for spec in ("{light: {values: [{day: 8}], as: regime, when: on}}", "{light: {dist: choice, values: [{day: 8}]}}"):
        design = "{samples: 1}" if "dist" in spec else "{}"
        [point] = space.points(parsed(f"allow_new_paths: true\nparameter_space: {spec}\ndesign: {design}", base))
        assert [*point.params.values()] == [{"day": 8}]
    own = parsed("parameter_space: {sensor: {range: [4, 5], low: {value: 2}}}", base)
    assert [parameter.path for parameter in own.parameters] == [("sensor", "range"), ("sensor", "low")]
    whole = parsed("parameter_space: {sensor: {values: [{range: 4}]}}", base)
    assert [parameter.path for parameter in whole.parameters] == [("sensor",)]
    for new in ("", "allow_new_paths: true\n"):
        with pytest.raises(
            errors.PlanRejected, match="'light' has no 'values', and the keys of an axis are only"
        ) as rejected:
            parsed(f"{new}parameter_space: {{light: {{day: [5], values: [4]}}}}", base)
        assert ("dotted: light.values" in str(rejected.value)) == bool(new)
    assert (
        parsed("allow_new_paths: true\nparameter_space: {light.values: [4]}", base).parameters[0].name == "light.values"
    )


def test_a_mapping_in_runs_replaces_a_null() -> None:
    """With allow_new_paths, the keys of the mapping are new paths instead."""
    text = "runs: [{params_override: {note: {text: {deep: 1}}}}]"
    assert next(space.points(parsed(text))).params == {"note": {"text": {"deep": 1}}}
    assert next(space.points(parsed(f"allow_new_paths: true\n{text}"))).params == {"note.text.deep": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("start: 0, stop: 1, step: 0.3", "steps of 0.3 from 0 miss this stop by 0.1: the last value is 0.9;"),
        ("start: 1, stop: -10, step: -10", "steps of -10 from 1 miss this stop by 1: the last value is -9;"),
        ("start: 0, stop: 1.5, step: 1", "steps of 1 from 0 miss this stop by 0.5: the last value is 1;"),
    ],
)
def test_a_range_that_misses_its_stop_says_by_how_much(given: str, message: str) -> None:
    """Somebody who gives a stop expects it among the values."""
    [warning] = parsed(f"{{parameter_space: {{speed: {{range: {{{given}}}}}}}}}", TYPES).warnings
    assert (warning.code, warning.path) == ("misses_stop", "parameter_space.speed.range.stop")
    assert warning.message == f"{message} for a range that includes it write 'num' in place of 'step'"


@pytest.mark.parametrize("reached", ["stop: 1, step: 0.1", "stop: 1, step: 0.3333333333333334", "stop: 0, step: 1"])
def test_a_range_that_reaches_its_stop_causes_no_warning(reached: str) -> None:
    """Apart from the rounding of floats."""
    assert not parsed(f"{{parameter_space: {{speed: {{range: {{start: 0.0, {reached}}}}}}}}}", TYPES).warnings
    large = "{range: {start: 0.0, stop: 1152921504606846977, step: 1152921504606846977}}"
    assert not parsed(f"{{parameter_space: {{speed: {large}}}}}", TYPES).warnings
