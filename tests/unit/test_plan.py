"""The parts of a plan: their meaning, their defaults, and the problems that parsing reports."""

from fractions import Fraction

import pytest

from ems_worker import errors
from ems_worker.core.language import design, expressions, inject, options, paths, problems, quantiles, quotes, tracked
from ems_worker.core.points import plan, space
from tests.support.reef_plans import BASE, JSON, parsed, refused


def test_a_plan_without_options_has_the_defaults_of_the_contract() -> None:
    """Only a name and a base configuration are required."""
    small = parsed("description: the smallest plan")
    assert (small.experiment_id, small.experiment_name, small.description) == (None, "reef", "the smallest plan")
    assert small.replicates == 1
    assert small.seeds == options.Seeds("common", 0)
    assert small.inject == inject.Inject(None, None)
    assert small.metrics == ()
    assert small.limits == options.ExperimentLimits(None, None, 3, frozenset({"infrastructure", "timeout", "lost"}))
    assert small.limits.max_failed.allowed(1000) == 0
    assert not small.limits.fail_fast
    assert (small.group, small.tags, small.labels, small.warnings, small.parameters) == (None, (), {}, (), ())
    assert small.base == BASE


def test_a_parsed_plan_has_the_values_of_all_keys() -> None:
    """Each key of a plan sets the field of its name."""
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
    assert full.inject == inject.Inject(("run", "seed"), ("run", "id"))
    assert full.metrics == (
        tracked.TrackedMetric("population"),
        tracked.TrackedMetric("energy", "minimize"),
        tracked.TrackedMetric("age"),
    )
    assert full.limits == options.ExperimentLimits(
        5,
        1.5,
        7,
        frozenset({"simulation", "lost"}),
        options.MaxFailed(percent=Fraction(25, 2)),
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
    """64.1 % of 1,000 jobs are 641, although the float 64.1 is slightly less; fractions of a job are rounded down."""
    assert parsed(f"limits: {{max_failed: {percent}%}}").limits.max_failed.allowed(jobs) == allowed


def test_a_metric_may_arrive_after_the_run() -> None:
    """A plan can set how long the worker waits for the event of a metric."""
    text = "metrics_to_track: [{name: late, from: event, timeout_seconds: 90}, {name: other, from: event}]"
    late, other = parsed(text).metrics
    assert (late.source, late.timeout_seconds) == ("event", 90.0)
    assert other.timeout_seconds == tracked.DEFAULT_METRIC_TIMEOUT_SECONDS


def test_a_plan_may_list_its_seeds() -> None:
    """Replicate r has the seed number r of the list at every point."""
    listed = parsed("{num_replicates_per_run: 2, seeds: {policy: list, values: [7, 9, 11]}}")
    assert [listed.seeds.of(point, replicate) for point in (0, 5) for replicate in (0, 1)] == [7, 9, 7, 9]


def test_the_base_configuration_may_be_a_path_or_inline() -> None:
    """Two keys name a path; if the plan has the content as well, the content counts."""
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
    """List elements are numbers, paths may be nested or dotted, and a key may contain dots itself."""
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
    runs = "runs: [{params_override: {layers.1: 5, 'dotted.key.in.side': 7}}]"
    assert [parameter.path for parameter in parsed(runs).parameters] == [("layers", 1), ("dotted.key", "in.side")]


def test_allow_new_paths_permits_new_paths() -> None:
    """A mapping may replace null or a scalar; lists don't get new elements."""
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


def test_the_paths_in_a_value_that_is_a_mapping_must_exist() -> None:
    """The value merges into a mapping of the base configuration."""
    base: dict[str, JSON] = {"a": {"b": {"c": 1, "d": 2}, "e": 3}}
    assert parsed("parameter_space: {a: [{b: {c: 5}}, {e: 4, b: {d: 1}}]}", base).parameters[0].path == ("a",)
    for text, path in [
        ("parameter_space: {a: [{b: {c: 5}}, {b: {x: 1}}]}", "parameter_space.a.1.b.x"),
        ("{parameter_space: {a: [{e: 5}, {x: 1}], a.b: {values: []}}}", "parameter_space.a.1.x"),
    ]:
        with pytest.raises(errors.PlanRejected) as rejected:
            parsed(text, base)
        assert ("unknown_path", path) in [(problem.code, problem.path) for problem in rejected.value.problems]
    new = "{allow_new_paths: true, parameter_space: {note: {values: [{a: 1}, {b: 2}]}, n: {value: {c: 1}}}}"
    assert space.count(parsed(new)).points == 2


def test_an_invalid_axis_is_reported_once() -> None:
    """Neither its own condition nor the zip groups and constraints that use it are reported as well."""
    text = """
    parameter_space:
      fish.count: {values: [], as: n, when: "nothing > n"}
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


def test_a_plan_has_at_most_500_conditions_and_derived_values() -> None:
    """More of them would take long to read."""
    base: dict[str, JSON] = {f"p{number}": 0 for number in range(501)}
    axes = ", ".join(f"p{number}: {{expr: '1'}}" for number in range(500))
    assert space.count(parsed(f"parameter_space: {{{axes}}}", base)).points == 1
    with pytest.raises(errors.PlanRejected, match="at most 500 conditions"):
        parsed(f"parameter_space: {{{axes}, p500: {{expr: '1'}}}}", base)


@pytest.mark.parametrize("word", ["true", "None", "in", "not", "else", "And", "max", "trueish"])
def test_a_keyword_of_expressions_is_not_a_name(word: str) -> None:
    """All other words are names, including those of functions."""
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


def test_the_problem_of_an_unknown_path_mentions_allow_new_paths() -> None:
    """It does not if the path is probably misspelt, or would be a new list element.

    A path above the unknown one is not a suggestion for it.
    """
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed("parameter_space: {fish.age: [1], fish.cuont: [1], layers.3: [1], note.text: [1]}")
    hints = [("allow_new_paths" in problem.message, problem.suggestion) for problem in rejected.value.problems]
    assert hints == [(True, "fish.speed"), (False, "fish.count"), (False, "layers.2"), (True, None)]


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ("{seed: fish.count.seed}", "'fish.count' is the number 10, which a mapping would replace"),
        ("{simulation_id: fish}", "has a mapping here, which would be lost"),
        ("{seed: layers}", "has a list here, which would be lost"),
    ],
)
def test_an_injected_value_never_replaces_a_mapping_or_list(injected: str, message: str) -> None:
    """The problem asks for a separate path."""
    with pytest.raises(errors.PlanRejected, match=f"{message}.*such as run.seed"):
        parsed(f"inject: {injected}")
    fine = parsed("inject: {seed: note.seed, simulation_id: layers.0}")
    assert fine.inject == inject.Inject(("note", "seed"), ("layers", 0))


def test_a_sampler_without_its_package_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler `random` works without scipy."""
    text = "{parameter_space: {fish.speed: {dist: uniform, low: 0, high: 1}}, design: {sampler: halton, samples: 4}}"
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(errors.PlanRejected, match=r"pip install 'ems-worker\[design\]'"):
        parsed(text)
    assert space.count(parsed(text.replace("halton", "random"))).points == 4


def test_only_the_first_hundred_problems_are_listed() -> None:
    """The others are counted, because a decision has to fit into one message."""
    text = "runs:\n" + "".join(
        f"  - {{params_override: {{fish.cuont{number}: 1}}, lables: {{}}}}\n" for number in range(400)
    )
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text + "zzz: 1\n")
    listed = rejected.value.problems
    assert len(listed) == problems.MAX_PROBLEMS + 1
    assert listed[-1].code == "too_many_problems"
    assert "701 more" in listed[-1].message


_VALUES: list[JSON] = [None, True, 5, 1.5, "x", {}, []]


def test_messages_describe_values_in_the_words_of_plans() -> None:
    """They use neither the names nor the notation of Python's types."""
    described = [quotes.describe(value) for value in _VALUES]
    assert described == ["null", "true", "the number 5", "the number 1.5", "the text 'x'", "a mapping", "a list"]
    assert quotes.brief(10**100) == "a number of many digits"
    assert quotes.brief("x" * 100).endswith("...")


def test_the_text_of_a_problem_has_its_position_path_message_and_code() -> None:
    """Publishers see this text."""
    problem = errors.Problem("unknown_key", "limits.x", "unknown key 'x'", 3, 5)
    assert str(problem) == "line 3, column 5: limits.x: unknown key 'x' [unknown_key]"


def test_values_are_read_and_removed_by_path() -> None:
    """A missing value differs from null, and the elements of a list keep their indexes."""
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


def test_equal_parts_of_plans_compare_equal() -> None:
    """Parts of plans are values."""
    assert design.Design() == parsed("description: x").spaces[0].design
    assert options.ExperimentLimits() == parsed("limits: {}").limits
    assert quantiles.Uniform(0, 1) == quantiles.Uniform(0, 1)
