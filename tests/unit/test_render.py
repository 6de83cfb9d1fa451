"""A run's configuration: what it says, and how it is written."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.language import paths, quotes
from ems_worker.core.points import plan, render, scalars, space
from tests.support import steps

JSON = canonical.JSON
ID = "reef-p000000-r000-a1"

# Texts that readers of either YAML version may take for something else.
AWKWARD = [
    "", " ", "no", "Yes", "ON", "off", "y", "N", "null", "~", "true", "False", ".inf", "-.INF", ".nan", "NaN", "<<",
    "=", "010", "0o7", "0x1F", "0b1", "1_000", "12:30", "12:30:00", "1e3", "1e-3", "1.", ".5", "-.5", "+1", "1.0e5",
    "1.0e+5", "2024-01-01", "2024-01-01T00:00:00Z", "- a", "? a", ": a", "a: b", "a #b", "#a", "&a", "*a", "!a", "%a",
    "@a", "`a", "|", ">",
    "'", '"', "\\", "{a}", "[a]", ",", "---", "...", "--- a", "a\nb", "a\n\n  b\n", "\ta", "a\t", " a", "a ",
    "\u0085", "\u2028", "\u2029", "\ufeff", "\x00", "\x07", "\x7f", "\u200b", "\xa0", "é", "魚", "\U0001f41f", "\ud7ff",
    "\ue000", "\ufffd", "a:", "a:b", "http://x/y#z", "e5", "E+5", "inf", "Infinity", "0", "-0", "1,5", "x" * 2000,
]  # fmt: skip

TEXT = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
KEYS = TEXT.filter(lambda text: len(text) <= 1000)
VALUES: st.SearchStrategy[JSON] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
# Overrides can't name keys with dots, which are paths of several steps, or empty keys.
CONFIGS: st.SearchStrategy[dict[str, JSON]] = st.dictionaries(KEYS, VALUES, max_size=5)


def parsed(base: dict[str, JSON], **more: object) -> plan.Plan:
    return plan.parse({"experiment_name": "x", **more}, base)


def settable(config: JSON) -> list[paths.Path]:
    """Paths that a plan can name: without empty keys, keys with dots, and backslashes before a dot."""
    named = (path for path in paths.walk(config) if all(str(step) and "." not in str(step) for step in path))
    return [path for path in named if "\\." not in quotes.dotted(path)]


@given(CONFIGS)
@example({text: text for text in AWKWARD if len(text) <= 1000})
@example({"k" * 999 + "\U0001f41f": {"deep": [[], {}, [[1, {"a": [None]}]]]}})
def test_readers_of_both_yaml_versions_load_the_configuration(config: dict[str, JSON]) -> None:
    """PyYAML (1.1), in C and in Python, and the worker's reader (1.2) load the same values in the same order."""
    text = render.Template(parsed(config)).render({}, 0, ID)
    for loaded in (
        yaml.safe_load(text),
        yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)),
        yaml_reader.read_base(text).data,
        yaml_reader.read_plan(text).data,
    ):
        assert canonical.canonical_json(loaded) == canonical.canonical_json(config)
        assert list(loaded) == list(config)


@given(st.data())
def test_a_run_differs_from_the_base_only_in_its_overrides(data: st.DataObject) -> None:
    """Whatever a value replaces; injected values count as overrides. Text, data and digest of a configuration agree."""
    base = data.draw(CONFIGS)
    free = settable(base)
    chosen: list[paths.Path] = []
    for path in data.draw(st.lists(st.sampled_from(free), max_size=4, unique=True)) if free else []:
        if not any(paths.overlapping(path, other) for other in chosen):
            chosen.append(path)
    values = {path: data.draw(VALUES) for path in chosen}
    overrides = {quotes.dotted(path): {"value": value, "replace": True} for path, value in values.items()}
    inject = {"seed": "ems.injected.seed", "simulation_id": "ems.injected.id"} if data.draw(st.booleans()) else {}
    if "ems" in base:
        inject = {}
    given_plan = parsed(base, runs=[{"params_override": overrides}], inject=inject)
    params = next(space.points(given_plan)).params
    template = render.Template(given_plan)

    config = template.config(params, 7, ID)
    text = template.render(params, 7, ID)
    assert canonical.canonical_json(yaml.safe_load(text)) == canonical.canonical_json(config)
    assert canonical.canonical_json(yaml_reader.read_base(text).data) == canonical.canonical_json(config)

    if inject:
        assert config.pop("ems") == {"injected": {"seed": 7, "id": ID}}
    assert template.config_sha(params, 7) == canonical.digest({"config": config, "seed": 7})
    expected: object = paths.copied(base)
    for path in chosen:
        expected = paths.put(expected, path, paths.copied(values[path]))
    assert [*canonical.differences(config, expected)] == []


def test_overrides_merge_mappings_replace_lists_and_keep_null() -> None:
    """A mapping that overrides a mapping changes only the keys that it names."""
    base: dict[str, JSON] = {"a": {"x": 1, "y": {"z": 2}}, "list": [1, 2, 3], "n": 1, "empty": {}}
    entry = {"params_override": {"a": {"y": {"z": 5}}, "list": [9], "n": None, "empty": {}}}
    made = parsed(base, runs=[entry])
    params = next(space.points(made)).params
    assert params == {"a.y.z": 5, "list": [9], "n": None, "empty": {}}
    expected = {"a": {"x": 1, "y": {"z": 5}}, "list": [9], "n": None, "empty": {}}
    template = render.Template(made)
    assert template.config(params, 0, ID) == expected
    assert yaml.safe_load(template.render(params, 0, ID)) == expected


def test_a_value_of_an_axis_that_is_a_mapping_merges() -> None:
    """Each value may set different keys."""
    base: dict[str, JSON] = {"a": {"x": 1, "y": 2}, "species": [{"speed": 1.0}, {"speed": 2.0}]}
    varied = parsed(base, parameter_space={"a": [{"x": 5}, {"y": 6}], "species.1.speed": [3.0]})
    template = render.Template(varied)
    rendered = [yaml.safe_load(template.render(point.params, 0, ID)) for point in space.points(varied)]
    assert [config["a"] for config in rendered] == [{"x": 5, "y": 2}, {"x": 1, "y": 6}]
    assert all(config["species"] == [{"speed": 1.0}, {"speed": 3.0}] for config in rendered)
    assert rendered == [template.config(point.params, 0, ID) for point in space.points(varied)]


def test_new_paths_come_after_existing_ones() -> None:
    """Injected paths may be new, and other paths with allow_new_paths; a mapping replaces a null above them."""
    base: dict[str, JSON] = {"a": {"x": 1}, "m": None}
    entry = {"params_override": {"a.new.deep": 1, "m.inside": [1.5, 2.5e-7]}}
    made = parsed(base, runs=[entry], inject={"seed": "a.seed"}, allow_new_paths=True)
    template = render.Template(made)
    params = next(space.points(made)).params
    assert template.render(params, 3, ID).decode() == (
        "a:\n  x: 1\n  new:\n    deep: 1\n  seed: 3\nm:\n  inside:\n    - 1.5\n    - 2.5e-07\n"
    )


def test_the_digest_of_a_configuration_has_no_injected_paths() -> None:
    """The values of the base at these paths, also in lists, don't change it; the seed does."""
    base: dict[str, JSON] = {"seed": 1, "ids": ["a", "b"], "fish": 5}
    inject = {"seed": "seed", "simulation_id": "ids.0"}
    first = render.Template(parsed(base, inject=inject))
    second = render.Template(parsed({**base, "seed": 99, "ids": ["z", "b"]}, inject=inject))
    assert first.config_sha({}, 7) == second.config_sha({}, 7)
    assert first.config_sha({}, 7) != first.config_sha({}, 8)
    assert first.config_sha({}, 7) == canonical.digest({"config": {"ids": [None, "b"], "fish": 5}, "seed": 7})
    varied = render.Template(parsed({"fish": 1.0}, parameter_space={"fish": [0.1]}))
    assert varied.config_sha({"fish": 0.1}, 7) == canonical.digest({"config": {"fish": 0.1}, "seed": 7})
    missing = render.Template(parsed({"fish": None}, inject={"seed": "a.b", "simulation_id": "fish.id"}))
    assert missing.config_sha({}, 7) == canonical.digest({"config": {"fish": None}, "seed": 7})


def test_rendering_modifies_neither_the_base_nor_the_parameters() -> None:
    """The configuration that it returns shares no values with them."""
    base: dict[str, JSON] = {"a": {"x": [1]}}
    value: list[JSON] = [5]
    made = parsed(base, runs=[{"params_override": {"a.x": value}}])
    template = render.Template(made)
    config = template.config({"a.x": value}, 0, ID)
    template.render({"a.x": value}, 0, ID)
    assert base == {"a": {"x": [1]}}
    inner = config["a"]
    assert isinstance(inner, dict)
    assert inner["x"] is not value


def test_the_number_of_texts_in_memory_is_limited() -> None:
    """Each entry of `runs` may override other paths, which takes another text."""
    base: dict[str, JSON] = {f"k{number}": 0 for number in range(200)}
    made = parsed(base, runs=[{"params_override": {f"k{number}": 1}} for number in range(200)])
    template = render.Template(made)
    for point in space.points(made):
        (key,) = point.params
        assert template.config(point.params, 0, ID) == {**base, key: 1}
        assert f"{key}: 1\n".encode() in template.render(point.params, 0, ID)
    assert template.texts <= render.MAX_TEXTS


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e-5)
@example(1e16)
@example(-1.5e300)
@example(-0.0)
@example(5e-324)
def test_floats_are_floats_to_both_versions(value: float) -> None:
    """The text reads back exactly and has the point before an exponent that YAML 1.1 requires."""
    text = scalars.write(value)
    assert scalars.same_in_1_1("")
    assert repr(yaml.safe_load(text)) == repr(value)
    assert repr(scalars.read(text)) == repr(value)
    assert scalars.same_in_1_1(text)


@pytest.mark.usefixtures("untraced")
def test_rendering_takes_few_steps() -> None:
    """A configuration of 60 lines takes a few for each value that varies; the numbers of a list take none."""
    base: dict[str, JSON] = {f"layer{n}": {f"key{m}": m * 1.5 for m in range(9)} for n in range(6)}
    made = parsed(base, parameter_space={"layer0.key1": [1, 2], "layer3.key3": [3, 4], "layer5.key8": [5, 6]})
    template = render.Template(made)
    params = next(space.points(made)).params
    template.render(params, 5, ID)  # what is remembered between runs is in place then
    assert steps.of(lambda: template.render(params, 5, ID)) < 60
    vector: list[JSON] = [n / 7 for n in range(4000)]
    big = parsed({"weights": []}, runs=[{"params_override": {"weights": vector}}])
    template = render.Template(big)
    assert steps.of(lambda: template.render({"weights": vector}, 5, ID)) < 200
    assert yaml.load(template.render({"weights": vector}, 5, ID), Loader=yaml.CSafeLoader) == {"weights": vector}


def test_plain_data_is_block_yaml() -> None:
    """Other configurations are written in the same way as those of runs."""
    assert render.block({}) == "{}\n"
    assert render.block({"a": {"no": ["no", 1.0e-7]}}) == 'a:\n  "no":\n    - "no"\n    - 1.0e-07\n'


def test_rendering_an_unknown_parameter_is_a_programming_error() -> None:
    """Parameters come from the points of the same plan."""
    with pytest.raises(KeyError):
        render.Template(parsed({"a": 1})).render({"b": 1}, 0, ID)


def test_points_of_an_earlier_version_of_the_plan_keep_their_parameters() -> None:
    """An extension may drop a parameter: the points that have it are rendered as they were."""
    base: dict[str, JSON] = {"fish": {"count": 1}, "food": 2}
    template = render.Template(parsed(base), {"count": "fish.count", "new": "shark.speed"})
    assert template.config({"count": 5, "new": 7}, 0, ID) == {"fish": {"count": 5}, "food": 2, "shark": {"speed": 7}}
