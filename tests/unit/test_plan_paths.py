"""Paths: list elements in nested form, new paths, and keys with dots."""

import pytest

from ems_worker import errors
from ems_worker.core.points import space
from tests.support.reef_plans import JSON, parsed

BASE: dict[str, JSON] = {"fish": {"count": 10, "speed": 1.5}, "species": [{"speed": 1.0}, {"speed": 2.0}]}


def problems(text: str, base: dict[str, JSON] = BASE) -> list[errors.Problem]:
    """The problems of a plan that has a name."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text, base)
    return list(rejected.value.problems)


def test_list_elements_can_be_named_by_their_index_in_nested_form() -> None:
    """A mapping over a list is nested if it has an index; other mappings are axes of the whole list."""
    made = parsed("parameter_space: {species: {0: {speed: [5, 6]}, 1.speed: [7]}}", BASE)
    assert [parameter.name for parameter in made.parameters] == ["species.0.speed", "species.1.speed"]
    assert [*space.points(made)][1].params == {"species.0.speed": 6, "species.1.speed": 7}
    whole = parsed("parameter_space: {species: {value: []}}", BASE)
    assert [parameter.name for parameter in whole.parameters] == ["species"]
    runs = parsed("runs: [{params_override: {species: {1: {speed: 3}}}}]", BASE)
    assert next(space.points(runs)).params == {"species.1.speed": 3}


def test_a_path_does_not_make_a_list() -> None:
    """A number in a new path would become the key of a mapping."""
    new = "allow_new_paths: true\n"
    for text in (f"{new}parameter_space: {{new.0: [1]}}", f"{new}runs: [{{params_override: {{new: {{0: 5}}}}}}]"):
        [problem] = problems(text)
        assert problem.code == "bad_path"
        assert "write the list as the value of that path" in problem.message
    [problem] = problems("runs: [{params_override: {note: {0: 5}}}]", {"note": None})
    assert "{value: {'0': ...}, replace: true}" in problem.message
    numbered: dict[str, JSON] = {"classes": {"0": "a"}}
    assert parsed(f"{new}parameter_space: {{classes.1: [b]}}", numbered).parameters[0].path == ("classes", "1")


def test_a_new_path_that_resembles_one_of_the_base_causes_a_warning() -> None:
    """It is probably misspelt."""
    text = "{allow_new_paths: true, parameter_space: {fish.cuont: [1], fish.age: [2]}, inject: {seed: fish.sped}}"
    [warning] = parsed(text, BASE).warnings
    assert (warning.code, warning.path, warning.on_key) == ("new_path", "parameter_space.fish.cuont", True)
    assert warning.message == (
        "the base configuration has no 'fish.cuont', so that this is a new path; did you mean fish.count?"
    )


DOTS: dict[str, JSON] = {"c.x": 1, "c": {"x": 2, "y.z": 3, "y": {"z": 4}}, "n": 0}


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("parameter_space: {'c\\.x': [5]}", {"c\\.x": 5}),
        ("parameter_space: {c: {x: [5]}}", {"c.x": 5}),
        ("parameter_space: {'c.y\\.z': [5]}", {"c.y\\.z": 5}),
        ("runs: [{params_override: {'c\\.x': 5}}]", {"c\\.x": 5}),
        ("runs: [{params_override: {c: {x: 5}}}]", {"c.x": 5}),
        ("runs: [{params_override: {c: {y: {z: 5}}}}]", {"c.y.z": 5}),
    ],
)
def test_both_values_that_a_dotted_path_could_mean_can_be_named(text: str, params: dict[str, JSON]) -> None:
    """A dot after a backslash is part of a key, and nested keys are keys as they are."""
    assert next(space.points(parsed(text, DOTS))).params == params


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("parameter_space: {c.x: [5]}", "either c: {x: ...} or c\\.x"),
        ("parameter_space: {c: {y.z: [5]}}", "either c: {y: {z: ...}} or c.y\\.z"),
        ("runs: [{params_override: {c.x: 5}}]", "either c: {x: ...} or c\\.x"),
        ("constraints: ['c.x > 1']", "make the one that is meant an axis with 'as'"),
    ],
)
def test_a_path_that_means_two_values_is_refused(text: str, code: str) -> None:
    """The error says how to write either."""
    [problem] = problems(text, DOTS)
    assert problem.code == "ambiguous_path"
    assert code in problem.message
