"""`replace: true`: what takes the place of a mapping or list, and what is refused without it."""

import pytest

from ems_worker import errors
from ems_worker.core.points import render, space
from tests.support.reef_plans import JSON, parsed

BASE: dict[str, JSON] = {
    "fish": {"count": 10, "speed": 1.5},
    "weights": [0.5, 0.25],
    "growth": 0.1,
    "empty": {},
    "sensor": {"value": 1, "replace": False},
}


def refusal(text: str) -> errors.Problem:
    """The only problem of a plan."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text, BASE)
    [problem] = rejected.value.problems
    return problem


def configs(text: str) -> list[dict[str, JSON]]:
    """The configuration of each point, without the values of the base that never change here."""
    made = parsed(text, BASE)
    template = render.Template(made)
    return [
        {key: value for key, value in template.config(point.params, 0, "id").items() if value != BASE[key]}
        for point in space.points(made)
    ]


@pytest.mark.parametrize(
    ("axis", "location"),
    [
        ("fish: [1, 2]", "fish.0"),
        ("fish: [{count: 5}, 2]", "fish.1"),
        ("fish: {values: [[1]]}", "fish.values.0"),
        ("fish: {value: null}", "fish.value"),
        ("fish: {expr: growth}", "fish.expr"),
        ("fish: {range: {start: 0, stop: 1, num: 2}}", "fish.range"),
        ("fish: {dist: uniform, low: 0, high: 1}", "fish.dist"),
        ("fish: {dist: choice, values: [{count: 5}, 2]}", "fish.values.1"),
        ("weights: [1, 2]", "weights.0"),
        ("weights: {values: [1, 2]}", "weights.values.0"),
        ("weights: {value: {a: 1}}", "weights.value"),
        ("weights: {expr: growth}", "weights.expr"),
        ("weights: {logrange: {start: 1, stop: 2, num: 2}}", "weights.logrange"),
    ],
)
def test_an_axis_that_would_replace_a_mapping_or_list_needs_replace(axis: str, location: str) -> None:
    """The error names the remedy, and the plan is accepted with it."""
    design = "\ndesign: {samples: 2}" if "dist" in axis else ""
    problem = refusal(f"parameter_space: {{{axis}}}{design}")
    assert (problem.code, problem.path) == ("needs_replace", f"parameter_space.{location}")
    assert "replace: true" in problem.message
    key, spec = axis.split(": ", 1)
    whole = f"{{values: {spec}, replace: true}}" if spec.startswith("[") else f"{spec[:-1]}, replace: true}}"
    assert space.count(parsed(f"parameter_space: {{{key}: {whole}}}{design}", BASE)).points


@pytest.mark.parametrize(
    ("override", "location"),
    [
        ("fish: 5", "fish"),
        ("fish: null", "fish"),
        ("fish: [1]", "fish"),
        ("fish: {}", "fish"),
        ("weights: 5", "weights"),
    ],
)
def test_an_override_that_would_replace_a_mapping_or_list_needs_replace(override: str, location: str) -> None:
    """An empty mapping would change nothing, which is hardly meant."""
    problem = refusal(f"runs: [{{params_override: {{{override}}}}}]")
    assert (problem.code, problem.path) == ("needs_replace", f"runs.0.params_override.{location}")
    assert "replace: true" in problem.message


def test_a_mapping_merges_and_replaces_only_with_replace() -> None:
    """Keys of the base configuration that the mapping doesn't have stay, or go."""
    merged, replaced = "parameter_space: {fish: [{count: 5}]}", "{values: [{count: 5}, 7, []], replace: true}"
    assert configs(merged) == [{"fish": {"count": 5, "speed": 1.5}}]
    assert configs(f"parameter_space: {{fish: {replaced}}}") == [{"fish": {"count": 5}}, {"fish": 7}, {"fish": []}]
    runs = """
    runs:
      - params_override: {fish: {value: {age: 3}, replace: true}}
      - params_override: {fish: {value: 5, replace: true}, weights: {value: null, replace: true}}
      - params_override: {fish.count: 5, empty: {}, weights: []}
    """
    assert configs(runs) == [{"fish": {"age": 3}}, {"fish": 5, "weights": None}, {
        "fish": {"count": 5, "speed": 1.5}, "weights": []
    }]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "constraint", "points"),
    [
        ("[{count: 5}, {count: 8, speed: 2}]", "fish.speed != 1.5", 1),
        ("[{count: 5}, {count: 8, speed: 2}]", "fish.count + fish.speed <= 6.5", 1),
        ("[{count: 5}, {age: 8}]", "len(fish) == 3", 1),
        ("[{count: 5}, {age: 8}]", "fish.count == 10", 1),
        ("{values: [{count: 5}, {speed: 1.5}], replace: true}", "fish.speed == 2", 1),
        ("{values: [{count: 5}, {speed: 1.5}], replace: true}", "len(fish) == 1", 2),
        ("{values: [{count: 5}, {speed: 7}], when: growth > 0}", "fish.count == 10", 1),
    ],
)
def test_an_expression_sees_the_merged_mapping(values: str, constraint: str, points: int) -> None:
    """What a mapping merges into has its values in expressions, as in the run; what it replaces has none."""
    text = f"allow_new_paths: true\nparameter_space: {{fish: {values}}}\nconstraints: ['{constraint}']"
    assert space.count(parsed(text, BASE)).points == points


def test_a_derived_value_sees_what_is_deep_inside_the_merged_mapping() -> None:
    """Mappings merge at any depth, and lists replace."""
    base: dict[str, JSON] = {"sea": {"light": {"day": 12, "night": 12}, "layers": [{"x": 1}]}, "n": 0}
    axis = "sea: [{light: {day: 8}}, {light: {night: 4}, layers: [{y: 2}]}]"
    made = parsed(f"parameter_space: {{{axis}, n: {{expr: sea.light.day - sea.light.night}}}}", base)
    assert [point.params["n"] for point in space.points(made)] == [-4, 8]
    made = parsed(f"parameter_space: {{{axis}, n: {{expr: sea.layers.0.x}}}}", base)
    assert [point.params.get("n") for point in space.points(made)] == [1, None]


def test_an_expression_sees_what_an_override_merges_into() -> None:
    """Overrides of `runs` merge and replace in the same way."""
    runs = (
        "runs: [{params_override: {fish: {count: 5}}}, {params_override: {fish: {value: {count: 5}, replace: true}}}]"
    )
    made = parsed(f"{runs}\nparameter_space: {{growth: {{expr: fish.speed * 2}}}}", BASE)
    assert [point.params.get("growth") for point in space.points(made)] == [3.0, None]


def test_value_and_replace_are_paths_where_the_base_has_them() -> None:
    """The same rule decides between an axis and nested paths."""
    assert configs("runs: [{params_override: {sensor: {value: 5, replace: true}}}]") == [
        {"sensor": {"value": 5, "replace": True}}
    ]
    assert configs("parameter_space: {sensor: {value: [5], replace: [true]}}") == [
        {"sensor": {"value": 5, "replace": True}}
    ]


def test_replace_is_true_or_false() -> None:
    """Anything else is an error, and `false` is the default."""
    assert refusal("parameter_space: {growth: {values: [1], replace: 'yes'}}").code == "wrong_type"
    assert refusal("parameter_space: {fish: {values: [1], replace: false}}").code == "needs_replace"


def test_a_replaced_mapping_has_its_configuration_in_text_and_size() -> None:
    """The text of a run and its computed size agree."""
    made = parsed("parameter_space: {fish: {values: [{count: 5}, {age: {deep: 1}}], replace: true}}", BASE)
    template = render.Template(made)
    for point in space.points(made):
        text = template.render(point.params, 0, "id")
        assert template.size(point.params, 0, "id", render.size) == len(text)
        assert b"speed: 1.5" not in text
