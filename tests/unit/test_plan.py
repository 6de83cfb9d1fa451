"""A plan's parts: what is read, what its defaults are, and how errors are gathered."""

from fractions import Fraction

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.language import design, expressions, options, paths, problems, samples
from ems_worker.core.points import plan, space

JSON = canonical.JSON
BASE: dict[str, JSON] = {
    "fish": {"count": 10, "speed": 1.5},
    "layers": [1, 2, {"deep": [5]}],
    "dotted.key": {"in.side": 1},
    "note": None,
}


def parsed(text: str, base: dict[str, JSON] = BASE) -> plan.Plan:
    return plan.parse({"experiment_name": "reef", **yaml_reader.read_plan(text.encode()).data}, base)


def refused(text: str) -> list[tuple[str, str]]:
    """Code and path of everything that is wrong."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text)
    return [(problem.code, problem.path) for problem in rejected.value.problems]


def test_defaults() -> None:
    """What a plan doesn't say is as the contract has it."""
    small = parsed("description: the smallest plan")
    assert (small.experiment_id, small.experiment_name, small.description) == (None, "reef", "the smallest plan")
    assert small.replicates == 1
    assert small.seeds == plan.Seeds("common", 0)
    assert small.inject == plan.Inject(None, None)
    assert small.metrics == ()
    assert small.limits == plan.Limits(None, None, 3, frozenset({"infrastructure", "timeout", "lost"}))
    assert small.limits.max_failed.allowed(1000) == 0
    assert not small.limits.fail_fast
    assert (small.group, small.tags, small.labels, small.warnings, small.parameters) == (None, (), {}, (), ())
    assert small.base == BASE


def test_everything_that_a_plan_says_is_kept() -> None:
    """Each key once."""
    text = """
    $schema: plan.json
    experiment_id: reef-7
    num_replicates_per_run: 3
    seeds: {root: 42, policy: independent}
    inject: {seed: run.seed, simulation_id: run.id}
    metrics_to_track: [population, {name: energy, goal: minimize, from: run}, {name: age}]
    limits:
      max_concurrent: 5
      run_timeout_seconds: 1.5
      max_attempts: 7
      retry_on: [simulation, lost]
      max_failed: 12.5%
      fail_fast: true
      priority: -7
    group: study
    tags: [a, b, a]
    labels: {wave: "3"}
    parameter_space: {fish.count: {values: [1, 2], as: n}, layers.2.deep.0: [6]}
    runs: [{params_override: {note: x}}, {params_override: {fish: {speed: 2.0}}}]
    """
    full = parsed(text)
    assert full.experiment_id == "reef-7"
    assert full.replicates == 3
    assert full.seeds.of(1, 2) != full.seeds.of(2, 2)
    assert full.inject == plan.Inject(("run", "seed"), ("run", "id"))
    assert full.metrics == (
        plan.TrackedMetric("population"),
        plan.TrackedMetric("energy", "minimize"),
        plan.TrackedMetric("age"),
    )
    assert full.limits == plan.Limits(
        5,
        1.5,
        7,
        frozenset({"simulation", "lost"}),
        plan.MaxFailed(percent=Fraction(25, 2)),
        fail_fast=True,
        priority=-7,
    )
    assert full.limits.max_failed.allowed(100) == 12
    assert (full.group, full.tags, full.labels) == ("study", ("a", "b"), {"wave": "3"})
    assert full.parameters == (
        plan.Parameter(("note",), "note"),
        plan.Parameter(("fish", "speed"), "fish.speed"),
        plan.Parameter(("fish", "count"), "n"),
        plan.Parameter(("layers", 2, "deep", 0), "layers.2.deep.0"),
    )
    assert parsed("limits: {max_failed: 3, retry_on: []}").limits.max_failed.allowed(100) == 3
    assert parsed("limits: {retry_on: []}").limits.retry_on == frozenset()


@pytest.mark.parametrize(("percent", "jobs", "allowed"), [("64.1", 1000, 641), ("1.1", 1000, 11), ("0.07", 9999, 6)])
def test_percentages_are_exact(percent: str, jobs: int, allowed: int) -> None:
    """64.1 % of 1000 jobs are 641, though 64.1 as a float is a little less; parts of a job are none."""
    assert parsed(f"limits: {{max_failed: {percent}%}}").limits.max_failed.allowed(jobs) == allowed


def test_metrics_may_come_after_the_run() -> None:
    """From an event of the analysis layer, waited for as long as the plan says."""
    text = "metrics_to_track: [{name: late, from: event, timeout_seconds: 90}, {name: other, from: event}]"
    late, other = parsed(text).metrics
    assert (late.source, late.timeout_seconds) == ("event", 90.0)
    assert other.timeout_seconds == options.DEFAULT_METRIC_TIMEOUT_SECONDS


def test_seeds_may_be_listed() -> None:
    """Replicate r has the r-th of the plan's own seeds at every point."""
    listed = parsed("{num_replicates_per_run: 2, seeds: {policy: list, values: [7, 9, 11]}}")
    assert [listed.seeds.of(point, replicate) for point in (0, 5) for replicate in (0, 1)] == [7, 9, 7, 9]


def test_the_base_configuration_comes_in_three_forms() -> None:
    """By either path, or inline; content wins over a path, which then only says where it was from."""
    assert plan.base_reference({"base_config_file_path": "a.yaml"}) == "a.yaml"
    assert plan.base_reference({"base_config_path": "b.yaml"}) == "b.yaml"
    assert plan.base_reference({"base_config_path": "b.yaml", "base_config": {}}) is None
    assert plan.base_reference({"base_config_file_path": 5}) is None
    both = {"experiment_name": "x", "base_config_path": "b.yaml", "base_config": {"a": 1}}
    assert plan.parse(both, {"other": 1}).base == {"a": 1}
    same = {"experiment_name": "x", "base_config_path": "b.yaml", "base_config_file_path": "b.yaml"}
    assert plan.parse(same, {"a": 1}).base == {"a": 1}
    with pytest.raises(errors.PlanRejected, match=r"'b\.yaml' was not read; send its content") as rejected:
        plan.parse(same)
    assert rejected.value.problems[0].code == "base_unavailable"


def test_paths_lead_through_lists_and_keys_with_dots() -> None:
    """Elements by number, nested or dotted; a key that has dots itself is found."""
    text = """
    parameter_space:
      layers.0: [5]
      layers.2.deep: [[1], [2]]
      dotted.key: {in.side: [3]}
    """
    assert [axis.path for axis in parsed(text).parameters] == [
        ("layers", 0),
        ("layers", 2, "deep"),
        ("dotted.key", "in.side"),
    ]
    run = "runs: [{params_override: {layers.1: 5, 'dotted.key.in.side': 7}}]"
    assert [parameter.path for parameter in parsed(run).parameters] == [("layers", 1), ("dotted.key", "in.side")]


def test_new_paths_are_permitted_by_the_plan() -> None:
    """Where nothing, null or a single value is in the way; lists don't grow."""
    text = "{allow_new_paths: true, parameter_space: {fish.age: [1], note.deep: [2], new.er: [3], fish.count.x: [4]}}"
    assert [axis.path for axis in parsed(text).parameters] == [
        ("fish", "age"),
        ("note", "deep"),
        ("new", "er"),
        ("fish", "count", "x"),
    ]
    assert refused("{allow_new_paths: true, parameter_space: {layers.3: [1]}}") == [
        ("unknown_path", "parameter_space.layers.3")
    ]


def test_mappings_as_values_are_checked_to_their_leaves() -> None:
    """A value that is a mapping merges into the base's, so that what it names must be there."""
    base: dict[str, JSON] = {"a": {"b": {"c": 1, "d": 2}, "e": 3}}
    assert parsed("parameter_space: {a: [{b: {c: 5}}, {e: 4, b: {d: 1}}]}", base).parameters[0].path == ("a",)
    for text, place in [
        ("parameter_space: {a: [{b: {c: 5}}, {b: {x: 1}}]}", "parameter_space.a.1.b.x"),
        ("{parameter_space: {a: [{e: 5}, {x: 1}], a.b: {values: []}}}", "parameter_space.a.1.x"),
    ]:
        with pytest.raises(errors.PlanRejected) as rejected:
            parsed(text, base)
        assert ("unknown_path", place) in [(problem.code, problem.path) for problem in rejected.value.problems]
    new = "{allow_new_paths: true, parameter_space: {note: {values: [{a: 1}, {b: 2}]}, n: {value: {c: 1}}}}"
    assert space.count(parsed(new)).points == 2


def test_each_wrong_part_is_reported_once() -> None:
    """What is broken already brings no errors in what relies on it."""
    text = """
    parameter_space:
      fish.count: {values: [], as: n}
      fish.speed: [1, 2]
      layers.2.dep: [1]
      note: {logrange: {start: 0, stop: 0, num: 0}}
      layers.0: {logrange: 5}
    design: {zip: [[n, fish.speed]]}
    constraints: ["n < 5"]
    """
    assert refused(text) == [
        ("empty", "parameter_space.fish.count.values"),
        ("unknown_path", "parameter_space.layers.2.dep"),
        ("out_of_range", "parameter_space.note.logrange.num"),
        ("wrong_type", "parameter_space.layers.0.logrange"),
    ]


def test_so_many_expressions_are_allowed() -> None:
    """Five hundred conditions and derived values: reading them takes time."""
    base: dict[str, JSON] = {f"p{number}": 0 for number in range(501)}
    axes = ", ".join(f"p{number}: {{expr: '1'}}" for number in range(500))
    assert space.count(parsed(f"parameter_space: {{{axes}}}", base)).points == 1
    with pytest.raises(errors.PlanRejected, match="500 are allowed"):
        parsed(f"parameter_space: {{{axes}, p500: {{expr: '1'}}}}", base)


def test_what_is_odd_is_a_warning() -> None:
    """It is accepted, and said."""
    text = """
    parameter_space:
      fish.count: [1, 1, 2]
      layers: [1, 2]
      fish.speed: {dist: uniform, low: 0, high: 1}
    design: {sampler: sobol, samples: 12}
    """
    odd = parsed(text)
    assert [(problem.code, problem.path) for problem in odd.warnings] == [
        ("list_of_values", "parameter_space.layers"),
        ("sobol_samples", "design.samples"),
        ("duplicate_value", "parameter_space.fish.count.1"),
    ]
    assert "8 or 16 are" in odd.warnings[1].message
    assert space.count(odd).points == 2 * 2 * 12


def warnings(text: str, base: dict[str, JSON] = BASE) -> list[tuple[str, str]]:
    """Path and words of what is told of values of another kind than the base's."""
    return [(problem.path, problem.message) for problem in parsed(text, base).warnings if problem.code == "other_kind"]


KINDS: dict[str, JSON] = {
    "on": False,
    "count": 10,
    "speed": 1.5,
    "name": "cod",
    "note": None,
    "list": [1],
    "map": {"a": 1},
}


@pytest.mark.parametrize(
    ("axis", "place", "words"),
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
        ("on: {dist: int, low: 0, high: 1}", "on.dist", "has false here, and this gives the number 1: see whether"),
        ("count: {expr: speed * 2}", "count.expr", "the whole number 10 here, and this gives the number 3.0"),
        ("name: [cod, 5]", "name.1", "the text 'cod' here, and this is the number 5: if text is meant, put it"),
    ],
)  # fmt: skip
def test_values_of_another_kind_than_the_base_s_are_a_warning(axis: str, place: str, words: str) -> None:
    """One an axis, at the first such value, with what is there and what to write."""
    design = "design: {samples: 2}" if "dist" in axis else ""
    [(path, message)] = warnings(f"parameter_space: {{{axis}}}\n{design}", KINDS)
    assert path == f"parameter_space.{place}"
    assert words in message


def test_values_of_the_base_s_kind_are_fine() -> None:
    """Whole numbers are numbers; null is of no kind, on either side; neither are lists, mappings and new paths."""
    text = """
    allow_new_paths: true
    parameter_space:
      on: [true, null]
      count: {dist: int, low: 1, high: 5}
      speed: [1, 2.5]
      name: {expr: "'x'"}
      note: [1, x, {a: 1}]
      list: [[1.5], 5]
      map.a: {value: 7}
      map.b: {expr: "'x'"}
    design: {samples: 2}
    """
    assert warnings(text, KINDS) == []
    left_out = "parameter_space: {on: {value: false}, count: {expr: speed, when: on}}"
    assert warnings(left_out, KINDS) == []


@pytest.mark.parametrize("word", ["true", "None", "in", "not", "else", "And", "max", "trueish"])
def test_a_name_is_no_word_of_expressions(word: str) -> None:
    """What expressions read as something else can't name a parameter; names of functions are told apart."""
    text = f"parameter_space: {{fish.count: {{values: [1, 2], as: '{word}'}}}}"
    if _is_name(word):
        assert [point.params[word] for point in space.points(parsed(f"{text}\nconstraints: ['{word} < 2']"))] == [1]
    else:
        assert refused(text) == [("bad_format", "parameter_space.fish.count.as")]


def _is_name(word: str) -> bool:
    try:
        return expressions.read(word).names == (word,)
    except expressions.ExpressionError:
        return False


def test_entries_of_runs_are_warned_of_once_a_parameter() -> None:
    """At the first entry that gives a value of another kind."""
    entries = ["{speed: 1}", "{speed: x, count: 1.5}", "{speed: y}"]
    text = f"runs: [{', '.join(f'{{params_override: {entry}}}' for entry in entries)}]"
    paths_of = [path for path, _ in warnings(text, KINDS)]
    assert paths_of == ["runs.1.params_override.speed", "runs.1.params_override.count"]


def test_an_axis_may_be_a_mapping_of_the_base() -> None:
    """Whole mappings vary with name and condition; the base's own keys are paths still, and axis words never new."""
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
            errors.PlanRejected, match="'light' has no 'values', and an axis has no other keys"
        ) as rejected:
            parsed(f"{new}parameter_space: {{light: {{day: [5], values: [4]}}}}", base)
        assert ("written dotted: light.values" in str(rejected.value)) == bool(new)
    assert (
        parsed("allow_new_paths: true\nparameter_space: {light.values: [4]}", base).parameters[0].name == "light.values"
    )


def test_a_mapping_takes_the_place_of_a_null_in_runs() -> None:
    """As it does in a parameter_space; where new paths are allowed its keys are paths of their own."""
    text = "runs: [{params_override: {note: {text: {deep: 1}}}}]"
    assert next(space.points(parsed(text))).params == {"note": {"text": {"deep": 1}}}
    assert next(space.points(parsed(f"allow_new_paths: true\n{text}"))).params == {"note.text.deep": 1}


def test_a_path_that_may_be_new_is_told_how() -> None:
    """Unless it looks misspelt, or a list would have to grow; the way to a path is no suggestion for it."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed("parameter_space: {fish.age: [1], fish.cuont: [1], layers.3: [1], note.text: [1]}")
    told = [("allow_new_paths" in problem.message, problem.suggestion) for problem in rejected.value.problems]
    assert told == [(True, "fish.speed"), (False, "fish.count"), (False, "layers.2"), (True, None)]


@pytest.mark.parametrize(
    ("inject", "words"),
    [
        ("{seed: fish.count.seed}", "'fish.count' is the number 10, and would give way to a mapping"),
        ("{simulation_id: fish}", "this is a mapping in the base configuration, and would be lost"),
        ("{seed: layers}", "this is a list in the base configuration"),
    ],
)
def test_inject_takes_nothing_away(inject: str, words: str) -> None:
    """Where it would, a path of its own is asked for."""
    with pytest.raises(errors.PlanRejected, match=f"{words}.*such as run.seed"):
        parsed(f"inject: {inject}")
    fine = parsed("inject: {seed: note.seed, simulation_id: layers.0}")
    assert fine.inject == plan.Inject(("note", "seed"), ("layers", 0))


def test_a_missing_extra_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scipy the random sampler still works."""
    text = "{parameter_space: {fish.speed: {dist: uniform, low: 0, high: 1}}, design: {sampler: halton, samples: 4}}"
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(errors.PlanRejected, match=r"pip install 'ems-worker\[design\]'"):
        parsed(text)
    assert space.count(parsed(text.replace("halton", "random"))).points == 4


def test_many_problems_are_counted_not_listed() -> None:
    """A decision has to fit into one message, and to search what was meant a thousand times takes too long."""
    text = "runs:\n" + "".join(
        f"  - {{params_override: {{fish.cuont{number}: 1}}, lables: {{}}}}\n" for number in range(400)
    )
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text + "zzz: 1\n")
    found = rejected.value.problems
    assert len(found) == problems.MOST + 1
    assert found[-1].code == "too_many_problems"
    assert "701 more" in found[-1].message


_VALUES: list[JSON] = [None, True, 5, 1.5, "x", {}, []]


def test_values_are_named_in_a_plan_writer_s_words() -> None:
    """Not in Python's."""
    words = [problems.kind(value) for value in _VALUES]
    assert words == ["null", "true", "the number 5", "the number 1.5", "the text 'x'", "a mapping", "a list"]
    assert problems.brief(10**100) == "a number of many digits"
    assert problems.brief("x" * 100).endswith("...")


def test_a_problem_says_its_place() -> None:
    """Line and column where they are known, the path, the words, the code."""
    problem = errors.Problem("unknown_key", "limits.x", "unknown key 'x'", 3, 5)
    assert str(problem) == "line 3, column 5: limits.x: unknown key 'x' [unknown_key]"


def test_paths_are_read_and_taken_out() -> None:
    """What has no value is told apart from null; lists keep their numbering."""
    config: dict[str, JSON] = {"a": [1, {"b": None}], "c": {"d": 5}}
    assert paths.has(config, ("a", 1, "b"))
    assert not paths.has(config, ("a", 5))
    assert not paths.has(config, ("c", "d", "e"))
    assert paths.get(config, ("c", "x")) is None
    for path in (("a", 0), ("a", 1, "x"), ("c", "d"), ("c", "x"), ("x", "y"), ("c", "d", "e")):
        paths.drop(config, path)
    assert config == {"a": [None, {"b": None}], "c": {}}
    assert paths.put(5, (), 6) == 6
    assert paths.resolve(config, ()) == ()


def test_parts_are_frozen_values() -> None:
    """They compare by what they say."""
    assert design.Design() == parsed("description: x").design
    assert options.Limits() == plan.Limits()
    assert samples.Uniform(0, 1) == samples.Uniform(0, 1)
