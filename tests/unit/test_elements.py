"""Paths with a `*`: one parameter for the same value of every element of a list."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.language import config_paths, elements, paths
from ems_worker.core.points import largest, plan, render, space
from tests.support import steps

JSON = canonical.JSON
BASE: dict[str, JSON] = {
    "species": [{"name": "cod", "speed": 1.0, "food": 1}, {"name": "pike", "speed": 2.0, "food": 1}],
    "groups": [{"fish": [{"age": 1}, {"age": 2}]}, {"fish": [{"age": 3}]}],
    "empty": [],
    "mixed": [{"a": 1, "t": {"x": 1}}, {"a": {"b": 1}, "t": 5, "new": {"x": 1}}],
    "rows": [[1, 2], [3]],
    "dots": [{"c.x": 1}, {"c": {"x": 2}}],
    "nulls": [{"n": None, "m": None}, {"n": None, "m": {"x": 1}}],
    "star": {"*": {"k": 1}},
    "k": 0,
}


def parsed(text: str, base: dict[str, JSON] = BASE) -> plan.Plan:
    """The plan of this text."""
    return plan.parse({"experiment_name": "x", **yaml_reader.read_plan(text.encode()).data}, base)


def configs(text: str) -> list[dict[str, JSON]]:
    """The configuration of each point, which is the same rendered and as data."""
    one = parsed(text)
    template = render.Template(one)
    found = []
    for point in space.points(one):
        found.append(template.config(point.params, 1, "id"))
        text = template.render(point.params, 1, "id").decode()
        assert yaml_reader.read_base(text.encode()).data == found[-1]
        assert template.size(point.params, 1, "id", render.size) == len(text.encode())
    return found


def speeds(config: dict[str, JSON]) -> list[JSON]:
    """The speeds of all species."""
    return [paths.get(config, ("species", number, "speed")) for number in (0, 1)]


def params(text: str) -> list[dict[str, JSON]]:
    """The parameters of each point."""
    return [point.params for point in space.points(parsed(text))]


def problems(text: str, base: dict[str, JSON] = BASE) -> list[tuple[str, str, str]]:
    """The code, path and message of each problem."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text, base)
    return [(each.code, each.path, each.message) for each in rejected.value.problems]


@pytest.mark.parametrize(
    "axis",
    ["species.*.speed: [3.0, 4.0]", "species: {'*': {speed: [3.0, 4.0]}}", "species.*: {speed: {values: [3.0, 4.0]}}"],
)
def test_an_axis_may_be_over_every_element_of_a_list(axis: str) -> None:
    """All elements get its value, and it is one parameter."""
    text = f"parameter_space: {{{axis}}}"
    assert params(text) == [{"species.*.speed": 3.0}, {"species.*.speed": 4.0}]
    assert [speeds(config) for config in configs(text)] == [[3.0, 3.0], [4.0, 4.0]]


def test_a_single_element_is_named_by_its_index() -> None:
    """That is possible nested as well."""
    text = "parameter_space: {species: {0: {speed: [3.0, 4.0]}}}"
    assert [speeds(config) for config in configs(text)] == [[3.0, 2.0], [4.0, 2.0]]


def test_a_path_may_lead_through_several_lists() -> None:
    """It stands for the elements of all of them."""
    [config] = configs("parameter_space: {groups.*.fish.*.age: [7], rows.*.0: [5]}")
    assert config["groups"] == [{"fish": [{"age": 7}, {"age": 7}]}, {"fish": [{"age": 7}]}]
    assert config["rows"] == [[5, 2], [5]]
    [config] = configs("parameter_space: {rows.*.*: [5]}")
    assert config["rows"] == [[5, 5], [5]]


def test_entries_of_runs_may_set_every_element() -> None:
    """Dotted or nested."""
    entries = "[{params_override: {species.*.speed: 7.0}}, {params_override: {species: {'*': {speed: 8.0, food: 2}}}}]"
    text = f"runs: {entries}"
    assert params(text) == [{"species.*.speed": 7.0}, {"species.*.speed": 8.0, "species.*.food": 2}]
    assert [speeds(config) for config in configs(text)] == [[7.0, 7.0], [8.0, 8.0]]


def test_a_name_makes_it_usable_in_expressions() -> None:
    """So is the path of each element; with `*` it would be a product."""
    text = """
    parameter_space: {species.*.speed: {values: [1, 2, 3], as: speed}, k: {expr: "10 * speed + species.1.speed"}}
    constraints: ["species.0.speed < 3"]
    """
    assert params(text) == [{"speed": 1, "k": 11}, {"speed": 2, "k": 22}]
    listed = "{runs: [{params_override: {species.*.speed: 7}}, {}], parameter_space: {k: {expr: species.1.speed}}}"
    assert params(listed) == [{"species.*.speed": 7, "k": 7}, {"k": 2.0}]
    [(code, _, message)] = problems("{parameter_space: {species.*.speed: [1]}, constraints: ['species.*.speed > 0']}")
    assert code == "bad_expression"
    assert message.endswith("a path with a '*' has no name here; give its axis one with 'as'")


def test_where_it_is_left_out_it_has_the_value_that_all_elements_have() -> None:
    """If they differ, it has none, and a constraint doesn't apply."""
    text = """
    parameter_space:
      k: [0, 1]
      species.*.%s: {values: [7], as: it, when: "k == 1"}
    constraints: ["it > 5"]
    """
    assert params(text % "food") == [{"k": 1, "it": 7}]
    assert params(text % "speed") == [{"k": 0}, {"k": 1, "it": 7}]


def test_it_can_be_sampled_zipped_and_replaced() -> None:
    """It is an axis like any other."""
    text = """
    parameter_space:
      species.*.speed: {dist: uniform, low: 1, high: 2}
      species.*.food: [1, 2]
      k: [5, 6]
      rows.*: {values: [9, {a: 1}], replace: true}
    design: {samples: 2, zip: [[species.*.food, k]]}
    """
    found = configs(text)
    assert len(found) == 2 * 2 * 2
    assert {config["k"] for config in found} == {5, 6}
    assert [config["rows"] for config in found[:4:2]] == [[9, 9], [{"a": 1}, {"a": 1}]]


@pytest.mark.parametrize(
    ("space", "code", "part"),
    [
        ("species.*.sped: [1]", "unknown_path", "'species.0' has no 'sped'; did you mean species.*.speed?"),
        ("'species[*].speed': [1]", "unknown_path", "did you mean species.*.speed?"),
        ("mixed.*.new: [1]", "unknown_path", "'mixed.0' has no 'new' (allow_new_paths: true permits new paths)"),
        ("mixed.*.a.b: [1]", "unknown_path", "'mixed.0.a' is the number 1, which has no keys"),
        ("empty.*.speed: [1]", "unknown_path", "'empty' is a list of 0 elements"),
        ("k.*: [1]", "unknown_path", "'k' is the number 0, which has no keys"),
        ("star.*.j: [1]", "unknown_path", "'star.*' has no 'j'"),
        ("species.0.*: [1]", "unknown_path", "'species.0' has no '*'; '*' stands for the elements of a list"),
        ("dots.*.c.x: [1]", "unknown_path", "in different ways, because keys have dots: name each by its index"),
        ("groups.*.fish.1.age: [1]", "unknown_path", "'groups.1.fish' is a list of 1 elements"),
        ("species.*: [1]", "needs_replace", "has a mapping here, and the number 1"),
        ("species.*: [{speed: 1}]", "needs_replace", "don't merge into those of every element: name a path inside it"),
        ("mixed.*.t: [5]", "needs_replace", "has a mapping here, and the number 5"),
        ("rows.*: {expr: k}", "needs_replace", "has a list here, and the result of an expression"),
    ],
)
def test_what_not_every_element_has_is_an_error(space: str, code: str, part: str) -> None:
    """It names the first element that lacks it."""
    [(found, _, message)] = problems(f"parameter_space: {{{space}}}")
    assert found == code
    assert part in message


def test_a_new_value_of_every_element_needs_allow_new_paths() -> None:
    """Lists get no new elements, and no new key is `*`."""
    [config] = configs("{allow_new_paths: true, parameter_space: {species.*.age: [3]}}")
    assert [paths.get(config, ("species", number, "age")) for number in (0, 1)] == [3, 3]
    for path in ("empty.*.age", "k.*", "species.0.*", "species.*.x.*"):
        [(code, _, _)] = problems(f"{{allow_new_paths: true, parameter_space: {{'{path}': [1]}}}}")
        assert code == "unknown_path"
    [(code, _, _)] = problems("{allow_new_paths: true, parameter_space: {mixed.*.new: [1]}}")
    assert code == "needs_replace"


def test_a_mapping_may_have_the_key_star() -> None:
    """It is a key like any other there."""
    [config] = configs("parameter_space: {star.*.k: [5]}")
    assert config["star"] == {"*": {"k": 5}}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("parameter_space: {species.*.speed: [1], species.0.speed: [2]}", "parameter_space.species.0.speed"),
        ("parameter_space: {species.1.speed: [1], species.*.speed: [2]}", "parameter_space.species.*.speed"),
        ("parameter_space: {species.*.speed: [1], species: {value: []}}", "parameter_space.species"),
        ("parameter_space: {rows.*: {value: 1, replace: true}, rows.*.0: [1]}", "parameter_space.rows.*.0"),
        ("parameter_space: {rows.*.*: [1], rows.1.0: [1]}", "parameter_space.rows.1.0"),
        (
            "{parameter_space: {rows.*.0: [1]}, runs: [{params_override: {rows.0.0: 1}}]}",
            "runs.0.params_override.rows.0.0",
        ),
        ("{parameter_space: {species.*.speed: [1]}, inject: {seed: species.0.speed}}", "inject.seed"),
        ("runs: [{params_override: {species.*.speed: 1, species.0.speed: 1}}]", "runs.0.params_override"),
        ("runs: [{}, {params_override: {species.*.speed: 1, species: []}}]", "runs.1.params_override"),
    ],
)  # fmt: skip
def test_a_value_that_is_set_twice_is_an_error(text: str, path: str) -> None:
    """Also if one of the two sets it for all elements."""
    assert [(code, where) for code, where, _ in problems(text)] == [("overlapping_paths", path)]


def test_paths_that_share_no_element_are_no_conflict() -> None:
    """Different entries of `runs` may set the same value, too."""
    assert len(params("parameter_space: {groups.*.fish.0.age: [1], groups.0.fish.1.age: [1]}")) == 1
    entries = ["{species.*.speed: 1, k: 2}", "{species.0.speed: 1}", "{k: 3, species.*.speed: 5}"]
    assert len(params(f"runs: [{', '.join(f'{{params_override: {entry}}}' for entry in entries)}]")) == 3


def test_overrides_are_checked_against_all_elements() -> None:
    """A warning comes once, and errors name what would be replaced."""
    [(code, _, _)] = problems("runs: [{params_override: {mixed.*.t: 5}}]")
    assert code == "needs_replace"
    entries = "[{params_override: {mixed.*.a: {value: x, replace: true}}}, {params_override: {species.*.food: x}}]"
    one = parsed(f"runs: {entries}")
    assert [(warning.code, warning.path) for warning in one.warnings] == [
        ("other_kind", "runs.0.params_override.mixed.*.a.value"),
        ("other_kind", "runs.1.params_override.species.*.food"),
    ]
    assert params("runs: [{params_override: {nulls.*.n: {z: 1}}}]") == [{"nulls.*.n": {"z": 1}}]
    [(code, _, message)] = problems("runs: [{params_override: {nulls.*.m: {x: 1}}}]")
    assert (code, "'nulls.0.m' is null" in message) == ("unknown_path", True)


def test_a_path_beside_params_override_has_its_remedy() -> None:
    """As any other path has."""
    [(code, _, message)] = problems("runs: [{species.*.speed: 5}]")
    assert code == "unknown_key"
    assert message.endswith("params_override: {species.*.speed: ...}")


def test_an_injected_value_has_one_place() -> None:
    """The seed of a run isn't written into every element."""
    [(code, _, message)] = problems("inject: {seed: species.*.speed}")
    assert code == "bad_path"
    assert "name one by its index" in message


def test_the_largest_command_counts_the_value_of_every_element() -> None:
    """A text that each of a thousand elements gets is there a thousand times."""
    base: dict[str, JSON] = {"list": [{"text": ""} for _ in range(1000)]}
    one = parsed(f"parameter_space: {{list.*.text: [{'x' * 1000}]}}", base)
    template = render.Template(one)
    size = len(template.render({"list.*.text": "x" * 1000}, 1, "id"))
    assert size > 1_000_000
    assert largest.over(one, "x", 1_000_000) is not None
    assert largest.over(one, "x", size + 2000) is None


def test_a_run_is_rendered_as_fast_as_with_a_parameter_for_each_element() -> None:
    """What no run changes is text, made once."""
    base: dict[str, JSON] = {"list": [{"speed": 1.5, **{f"k{number}": 1 for number in range(50)}} for _ in range(20)]}
    one = parsed("parameter_space: {list.*.speed: [2.5]}", base)
    template = render.Template(one)
    template.render({"list.*.speed": 2.5}, 1, "id")
    assert steps.of(lambda: template.render({"list.*.speed": 2.5}, 1, "id")) < 20 * 20


def test_looking_for_elements_is_limited() -> None:
    """Each path visits all of a configuration at the most, and a plan may name very many."""
    base: dict[str, JSON] = {
        "list": [{"speed": 1.0, "k": {f"k{number}": 1 for number in range(99)}} for _ in range(999)]
    }
    few = config_paths.MAX_VISITED // 100_000
    assert len(parsed(f"parameter_space: {_axes(few)}", base).parameters) == few
    found = problems(f"parameter_space: {_axes(90)}", base)
    assert {(code, message.split(":")[0]) for code, _, message in found} == {
        ("out_of_range", "the paths with '*' are too many for a base configuration of 101,899 values")
    }
    misspelt = {f"list.*.k.x{number}": [1] for number in range(500)}
    assert steps.of(lambda: problems(canonical.text({"parameter_space": misspelt}), base)) < 1_500_000
    entries = [{"params_override": {"list.*.speed": 1.0, f"list.0.k.k{number}": 1}} for number in range(90)]
    assert {code for code, _, _ in problems(canonical.text({"runs": entries}), base)} == {"out_of_range"}


def _axes(count: int) -> str:
    return canonical.text({f"list.*.k.k{number}": [1] for number in range(count)})


def test_paths_stand_for_those_of_the_elements() -> None:
    """The first element stands for all where one value is needed."""
    assert elements.each(BASE, ("k",)) == [("k",)]
    assert elements.each(BASE, ("rows", "*")) == [("rows", 0), ("rows", 1)]
    assert elements.each(BASE, ("species", "*", "new", "x"))[1] == ("species", 1, "new", "x")
    assert elements.covers(("a", "*", "b"), ("a", 1, "b"))
    assert not elements.covers(("a", "*", "b"), ("a", "x", "b"))
    assert not elements.covers(("a", "*"), ("a", 1, "b"))
    assert elements.alike(BASE, ("species", "*", "food"))
    assert not elements.alike(BASE, ("species", "*", "speed"))
    assert not elements.alike(BASE, ("species", "*", "none"))
    assert paths.get(BASE, ("species", "*", "speed")) == 1.0
    assert not paths.has(BASE, ("empty", "*"))
