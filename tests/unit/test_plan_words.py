"""Words of other tools, short names and common mistakes: they are understood, or answered with ours."""

import json

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.language import aliases
from ems_worker.core.points import edits, extension, plan, space
from tests.support.reef_plans import JSON, parsed

BASE: dict[str, JSON] = {
    "fish": {"count": 10, "speed": 1.5},
    "growth": 0.1,
    "kind": "cod",
    "optimizer": {"learning_rate": 0.1},
    "species": [{"speed": 1.0}, {"speed": 2.0}],
}


def problems(given: str | dict[str, JSON], base: dict[str, JSON] = BASE) -> list[errors.Problem]:
    """The problems of a plan that has a name."""
    text = given if isinstance(given, str) else json.dumps(given)
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text, base)
    return list(rejected.value.problems)


def test_short_names_are_understood() -> None:
    """They stand for the long names, and problems are located where the plan has them."""
    short = """
name: reef
base: base.yaml
parameters: {fish.count: [1, 2]}
replicates: 3
metrics: [population]
"""
    read = yaml_reader.read_plan(short.encode())
    assert plan.base_reference(read.data) == "base.yaml"
    made = plan.parse(read.data, BASE)
    assert (made.experiment_name, space.count(made).jobs, [metric.name for metric in made.metrics]) == (
        "reef", 6, ["population"],
    )  # fmt: skip
    wrong = yaml_reader.read_plan(short.replace("fish.count", "fish.cuont").encode())
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(wrong.data, BASE)
    [problem] = yaml_reader.with_positions(rejected.value.problems, wrong)
    assert (problem.path, problem.line, problem.column) == ("parameters.fish.cuont", 4, 14)


@pytest.mark.parametrize(("short", "long"), aliases.LONG_NAMES.items())
def test_both_names_of_a_key_are_an_error(short: str, long: str) -> None:
    """It isn't known which one is meant."""
    value = {"experiment_name": "x", "num_replicates_per_run": 1}.get(long, {} if "space" in long else [])
    with pytest.raises(errors.PlanRejected, match=f"'{short}' and '{long}' are two names of the same key"):
        plan.parse({"experiment_name": "x", short: value, long: value, "base_config": {}})


def test_base_is_the_name_of_a_file() -> None:
    """Beside another name it is an error, and a mapping belongs under base_config."""
    with pytest.raises(errors.PlanRejected, match="'base' is another name of base_config_file_path"):
        plan.parse({"experiment_name": "x", "base": "a", "base_config_file_path": "a"}, BASE)
    with pytest.raises(errors.PlanRejected, match="its content is written under 'base_config'"):
        plan.parse({"experiment_name": "x", "base": {"a": 1}})


def test_a_plan_with_short_names_can_be_extended() -> None:
    """By edits, and by a plan with long names."""
    short = {"name": "x", "parameters": {"growth": [1, 2]}, "replicates": 2, "base_config": {"growth": 0}}
    made = plan.parse(short)
    edited = edits.edited(short, made, edits.Edits(replicates=3, add={"growth": [5]}))
    assert edited["num_replicates_per_run"] == 3
    assert edited["parameter_space"] == {"growth": [1, 2, 5]}
    versions = extension.Version(short, made), extension.Version(edited, plan.parse(edited))
    assert extension.compare(*versions, experiment_id="x", parameters={"growth": "growth"}, withdraw=False) == ()


def test_a_replaced_mapping_stays_one_when_a_plan_is_extended() -> None:
    """Otherwise the points that are there would get another configuration."""
    base = {"fish": {"count": 1}}
    documents = [
        {"name": "x", "parameters": {"fish": {"values": [{}], "replace": replace}}, "base_config": base}
        for replace in (True, False)
    ]
    old, new = (extension.Version(document, plan.parse(document)) for document in documents)
    for before, after in ((old, new), (new, old)):
        [problem] = extension.compare(before, after, experiment_id="x", parameters={"fish": "fish"}, withdraw=False)
        assert "'replace: true'" in problem.message
    assert extension.compare(new, old, experiment_id="x", parameters={}, withdraw=False) == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("1.5h", 5400)],
)
def test_times_may_have_a_unit(text: str, seconds: float) -> None:
    """`run_timeout`, `grace` and `timeout` stand beside the keys with `_seconds`."""
    made = parsed(f"""
    limits: {{run_timeout: {text}}}
    settle: {{quorum: 90%, grace: {text}}}
    metrics_to_track: [{{name: late, from: event, timeout: {text}}}]
    """)
    assert made.limits.run_timeout_seconds == seconds
    assert made.settle.grace_seconds == seconds
    assert made.metrics[0].timeout_seconds == seconds


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("limits: {run_timeout: 600}", "wrong_type", "600 has no unit: write 600s, or run_timeout_seconds"),
        ("limits: {run_timeout: true}", "wrong_type", "expected text"),
        ("limits: {run_timeout: 15 min}", "bad_format", "such as 90s, 15m or 12h"),
        ("limits: {run_timeout: 0s}", "out_of_range", "greater than 0"),
        ("limits: {run_timeout_seconds: 15m}", "wrong_type", "write run_timeout: 15m"),
        ("settle: {grace_seconds: 15m}", "wrong_type", "write grace: 15m"),
        ("limits: {run_timeout_seconds: 5, run_timeout: 5s}", "conflicting_keys", "two names of the same key"),
        ("metrics_to_track: [{name: a, timeout: 5s}]", "contradiction", "'timeout' is how long to wait"),
    ],
)
def test_a_time_that_is_no_time_has_a_remedy(text: str, code: str, part: str) -> None:
    """A number without a unit might be minutes."""
    [problem] = problems(text)
    assert problem.code == code
    assert part in problem.message


AXIS = "parameter_space: {growth: {%s}}"
DIST = "parameter_space: {growth: {dist: %s}}\ndesign: {samples: 2}"


@pytest.mark.parametrize(
    ("text", "remedies"),
    [
        ("parameter_space: {growth: {range: [0, 1, 0.1]}}", ["write {start: 0, stop: 1, step: 0.1}"]),
        ("parameter_space: {growth: {logrange: [1, 9, 3]}}", ["write {start: 1, stop: 9, num: 3}"]),
        ("parameter_space: {growth: {range: [0, 1]}}", ["write {start: ..., stop: ..., step: ...}"]),
        ("parameter_space: {growth: {range: 5}}", ["write {start: ..., stop: ..., step: ...}"]),
        ("parameter_space: {growth: [1], kind: [a]}\ndesign: {zip: [growth, kind]}", ["write [['growth', 'kind']]"]),
        ("design: {zip: growth}", ["write [[name, name, ...], ...]"]),
        ("runs: [{fish.count: 5}]", ["params_override: {fish.count: ...}"]),
        ("runs: [{params: {fish.count: 5}}]", ["did you mean params_override?"]),
        ("sampler: sobol", ["did you mean design.sampler?"]),
        ("samples: 5", ["did you mean design.samples?"]),
        ("run_cap: 5", ["did you mean design.samples?"]),
        ("count: 5", ["did you mean design.samples?"]),
        ("num_samples: 5", ["did you mean design.samples?"]),
        ("zip: [[a, b]]", ["did you mean design.zip?"]),
        ("seeds: [1, 2]", ["write {policy: list, values: [1, 2]}"]),
        ("seeds: 7", ["write {root: 7}"]),
        ("seeds: many", ["write {root: 0}"]),
        ("metric: {name: a}", ["write metrics_to_track: [{name: ..., goal: minimize}]"]),
        ("metrics_to_track: [{name: a, goal: max}]", ["did you mean maximize?"]),
        ("metrics_to_track: {name: a}", ["write [{name: ..., goal: ...}]"]),
        ("metrics_to_track: a", ["write [name, ...]"]),
        ("limits: {timeout: 5}", ["did you mean run_timeout?"]),
        ("limits: {retries: 2}", ["2 retries are max_attempts: 3"]),
        ("settle: {timeout: 5s}", ["did you mean grace?"]),
        ("design: {sampler: latin_hypercube}", ["did you mean lhs?"]),
        ("design: {method: random}", ["did you mean sampler?"]),
        (AXIS % "range: {min: 0, max: 1, steps: 5}", ["mean start?", "mean stop?", "mean num?"]),
        (AXIS % "min: 0, max: 1", ["dist: uniform, low: ..., high: ...", "dist: uniform"]),
        (AXIS % "choice: [1, 2]", ["did you mean values?"]),
        (AXIS % "suggest_float: [0, 1]", ["write {dist: uniform, low: ..., high: ...}"]),
        (AXIS % "distribution: beta, min: 0, max: 1", ["did you mean dist?", "low: ...", "low: ..."]),
        (DIST % "uniform, min: 0, max: 1", ["did you mean low?", "did you mean high?"]),
        (DIST % "normal, mu: 0, sigma: 1", ["did you mean mean?", "did you mean std?"]),
        (DIST % "uniform, low: 1, high: 2, log: true", ["write dist: loguniform"]),
        (DIST % "uniform, low: 1, high: 2, q: 1", ["did you mean step?"]),
        (DIST % "uniform, a: 1, b: 2", ["did you mean low?", "did you mean high?"]),
        (DIST % "lognormal, loc: 1, scale: 2", ["did you mean mean?", "did you mean std?"]),
        (DIST % "triangular, lower: 1, c: 2, upper: 3", ["did you mean low?", "did you mean mode?", "mean high?"]),
        (DIST % "choice, values: [1, 2], probabilities: [1, 1]", ["did you mean weights?"]),
        (DIST % "quniform, low: 1, high: 2", ["write uniform, with a 'step'"]),
        (DIST % "qlognormal, mean: 1, std: 2", ["write lognormal, with a 'step'"]),
        (DIST % "randint, low: 1, high: 2", ["did you mean int?"]),
        (DIST % "lograndint, low: 1, high: 2", ["did you mean logint?"]),
        (DIST % "truncnorm, low: 1, high: 2", ["did you mean truncnormal?"]),
        (AXIS % "quniform: [0, 1, 0.1]", ["write {dist: uniform, low: ..., high: ..., step: ...}"]),
        (AXIS % "randint: [0, 9]", ["write {dist: int, low: ..., high: ...}"]),
        (DIST % "log_uniform_values, low: 1, high: 2", ["did you mean loguniform?"]),
        (DIST % "categorical, values: [1]", ["did you mean choice?"]),
        (AXIS % "values: [1], low: 2", ["write {dist: uniform"]),
        ("method: grid", ["lists and ranges always form a grid"]),
        ("hydra.sweep: {}", ["lists and ranges always form a grid"]),
        ("sweeper: {}", ["lists and ranges always form a grid"]),
        ("program: a.py", ["the orchestrator decides which program runs"]),
        ("command: [a]", ["the orchestrator decides which program runs"]),
        ("early_terminate: {}", ["ems cancel --where"]),
        (
            "constraints: [rate > 0]\n"
            "parameter_space: {optimizer: {parameters: {learning_rate: {values: [1], as: rate}}}}",
            ["without 'parameters' between them"],
        ),
        ("parameter_space: {parameters: {growth: [1]}}", ["without 'parameters' between them"]),
        ("parameter_space: {species/0/speed: [1]}", ["did you mean species.0.speed?"]),
        ("parameter_space: {'species[0].speed': [1]}", ["did you mean species.0.speed?"]),
        ("{parameter_space: {growht: {dist: uniform, low: 0, high: 1}}, design: {samples: 5}}", ["mean growth?"]),
    ],
)
def test_a_common_mistake_is_reported_once_with_its_remedy(text: str, remedies: list[str]) -> None:
    """The remedy is ours for the word that was written."""
    reported = [problem.message for problem in problems(text)]
    assert len(reported) == len(remedies), reported
    for message, remedy in zip(reported, remedies, strict=True):
        assert remedy in message


def test_messages_and_paths_are_short_whatever_a_plan_has() -> None:
    """Keys may have a thousand characters, and texts any number."""
    long = "x" * 1000
    texts = [
        f"{long}: 1", f"parameter_space: {{{long}: [1], fish: {{{long}: [1]}}}}", f"seeds: {{policy: {long}}}",
        f"runs: [{{params_override: {{{long}: 1}}, {long}: 2}}]", f"constraints: ['{long[:990]}']",
        f"design: {{zip: [[{long}, {long}]]}}", f"inject: {{seed: {long}, simulation_id: growth.{long[:90]}}}",
        f"limits: {{{long}: 1, run_timeout: {long}}}", f"metrics_to_track: [{{name: '{long * 9}'}}]",
        f"parameter_space: {{growth: {{values: [1], as: {long}}}}}", f"labels: {{{long}: 1}}",
    ]  # fmt: skip
    for text in texts:
        for problem in problems(text):
            assert len(problem.message) < 900
            assert len(problem.path) <= 1000


def test_metrics_have_any_visible_name_a_unit_and_a_label() -> None:
    """Simulators name their metrics as they like."""
    names = ["mean energy (J)", "count sheep with [age > 5]", "énergie", 'a "b"', "x" * 128]
    assert [metric.name for metric in parsed(json.dumps({"metrics": names})).metrics] == names
    [metric] = parsed("metrics: [{name: heat, unit: K, label: heat stress}]").metrics
    assert (metric.unit, metric.label) == ("K", "heat stress")
    [parameter] = parsed("parameters: {growth: {values: [1], unit: 1/d, label: rate}}", BASE).parameters
    assert (parameter.name, parameter.unit, parameter.label) == ("growth", "1/d", "rate")


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "\u200b", "x" * 129])
def test_a_metric_has_a_visible_name(name: str) -> None:
    """Two names never look alike in a table for a space at the end."""
    assert [problem.code for problem in problems({"metrics": [name]})] == ["bad_format"]
    assert [problem.code for problem in problems({"metrics": [{"name": "a", "unit": name}]})] == ["bad_format"]


def test_runs_carry_their_resources_and_simulator_as_labels() -> None:
    """Memory is in bytes there."""
    made = parsed("{labels: {wave: '3'}, resources: {cpus: 0.5, memory: 1.5GiB, gpus: 0}, simulator: reef-2}", BASE)
    assert made.labels == {
        "wave": "3", "ems.simulator": "reef-2", "ems.resources.cpus": "0.5", "ems.resources.memory": "1610612736",
        "ems.resources.gpus": "0",
    }  # fmt: skip
    assert parsed("resources: {memory: 500 MB}", BASE).labels == {"ems.resources.memory": "500000000"}
    assert parsed("resources: {cpus: 2, memory: 7B}", BASE).labels == {
        "ems.resources.cpus": "2", "ems.resources.memory": "7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        ("resources: 5", "wrong_type", "resources"),
        ("resources: {cpus: 0}", "out_of_range", "resources.cpus"),
        ("resources: {memory: 4}", "wrong_type", "resources.memory"),
        ("resources: {memory: 4Gi}", "bad_format", "resources.memory"),
        ("resources: {memory: 0MB}", "out_of_range", "resources.memory"),
        ("resources: {gpus: 1.5}", "wrong_type", "resources.gpus"),
        ("resources: {cpu: 1}", "unknown_key", "resources.cpu"),
        ("simulator: ./run.sh --all", "bad_format", "simulator"),
        ("labels: {ems.simulator: x}", "reserved_name", "labels.ems.simulator"),
        ("runs: [{labels: {ems.resources.cpus: '1'}}]", "reserved_name", "runs.0.labels.ems.resources.cpus"),
    ],
)
def test_resources_that_are_none_are_refused(text: str, code: str, path: str) -> None:
    """Labels of these names have only values that were checked, and a simulator is never a command."""
    assert [(problem.code, problem.path) for problem in problems(text)] == [(code, path)]
