"""Users of other tools who write their word are told ours, and what they are told is accepted."""

import re

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.language import foreign, foreign_plan, schema
from ems_worker.core.points import plan

BASE = {
    "fish": {"count": 10, "speed": 1.5, "kind": "cod"},
    "growth": 0.1,
    "rate": 0.1,
    "optimizer": {"learning_rate": 0.1},
    "species": [{"speed": 1.0}, {"speed": 2.0}],
}


def parsed(text: str) -> plan.Plan:
    """A plan that has an id and a base configuration."""
    document = yaml_reader.read_plan(f"{text}\nexperiment_id: reef\n".encode())
    return plan.parse({"base_config": BASE, **document.data})


def messages(text: str) -> list[str]:
    """What is said about a plan."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text)
    return [problem.message for problem in rejected.value.problems]


AXIS = "parameter_space: {growth: {%s}}"
DIST = "parameter_space: {growth: {dist: %s}}\ndesign: {samples: 2}"


@pytest.mark.parametrize(
    ("text", "ours", "right"),
    [
        ("constraints: [fish.kind == cod]", "'cod'", "constraints: [\"fish.kind == 'cod'\"]"),
        (AXIS % "range: [0, 1, 0.1]", "{start: 0, stop: 1, step: 0.1}", AXIS % "range: {start: 0, stop: 1, step: 0.1}"),
        (
            "parameter_space: {growth: [1, 2], rate: [3, 4]}\ndesign: {zip: [growth, rate]}",
            "write [['growth', 'rate']]",
            "parameter_space: {growth: [1, 2], rate: [3, 4]}\ndesign: {zip: [['growth', 'rate']]}",
        ),
        ("runs: [{fish.count: 5}]", "params_override: {fish.count: ...}", "runs: [{params_override: {fish.count: 5}}]"),
        ("sampler: grid", "design.sampler", "design: {sampler: grid}"),
        (
            "samples: 5\nparameter_space: {growth: {dist: uniform, low: 0, high: 1}}",
            "design.samples",
            "design: {samples: 5}\nparameter_space: {growth: {dist: uniform, low: 0, high: 1}}",
        ),
        (
            "parameter_space: {growth: {dist: uniform, low: 0, high: 1}}",
            "write design: {sampler: random, samples: ...}",
            "parameter_space: {growth: {dist: uniform, low: 0, high: 1}}\ndesign: {sampler: random, samples: 2}",
        ),
        (
            "seeds: [1, 2]\nnum_replicates_per_run: 2",
            "write {policy: list, values: [1, 2]}",
            "seeds: {policy: list, values: [1, 2]}\nnum_replicates_per_run: 2",
        ),
        (
            "metric: a",
            "write metrics_to_track: [{name: ..., goal: minimize}]",
            "metrics_to_track: [{name: a, goal: minimize}]",
        ),
        (
            "metrics_to_track: [{name: a, goal: max}]",
            "did you mean maximize?",
            "metrics_to_track: [{name: a, goal: maximize}]",
        ),
        ("limits: {timeout: 15m}", "did you mean run_timeout?", "limits: {run_timeout: 15m}"),
        ("limits: {timeout: 15}", "did you mean run_timeout?", "limits: {run_timeout_seconds: 15}"),
        ("limits: {retries: 2}", "2 retries are max_attempts: 3", "limits: {max_attempts: 3}"),
        ("retries: 2", "write limits: {max_attempts: ...}", "limits: {max_attempts: 3}"),
        (
            DIST % "uniform, low: 0, high: 1, sampler: lhs}, rate: {dist: uniform, low: 0, high: 1",
            "unknown key 'sampler'",
            DIST % "uniform, low: 0, high: 1}, rate: {dist: uniform, low: 0, high: 1",
        ),
        (
            "parameter_space: {species: {0: {sped: [1]}}}",
            "did you mean species.0.speed?",
            "parameter_space: {species: {0: {speed: [1]}}}",
        ),
        ("parameter_space: {species/0/speed: [1]}", "species.0.speed", "parameter_space: {species.0.speed: [1]}"),
        ("parameter_space: {'species[0].speed': [1]}", "species.0.speed", "parameter_space: {species.0.speed: [1]}"),
        (AXIS % "min: 0, max: 1", "{dist: uniform, low: ..., high: ...}", DIST % "uniform, low: 0, high: 1"),
        (DIST % "uniform, min: 0, max: 1", "did you mean low?", DIST % "uniform, low: 0, high: 1"),
        (DIST % "normal, mu: 0, sigma: 1", "did you mean mean?", DIST % "normal, mean: 0, std: 1"),
        (
            AXIS % "range: {start: 0, stop: 1, steps: 5}",
            "did you mean num?",
            AXIS % "range: {start: 0, stop: 1, num: 5}",
        ),
        (AXIS % "expr: 'pow(rate, 2)'", "**", AXIS % "expr: 'rate ** 2'"),
        (AXIS % "expr: 'rate ^ 2'", "**", AXIS % "expr: 'rate ** 2'"),
        (AXIS % "expr: '2 * pi'", "3.141592653589793", AXIS % "expr: '2 * 3.141592653589793'"),
        (AXIS % "expr: 'rate && true'", "and", AXIS % "expr: 'rate and true'"),
        (
            "parameter_space: {optimizer: {parameters: {learning_rate: [1]}}}",
            "without 'parameters' between them",
            "parameter_space: {optimizer: {learning_rate: [1]}}",
        ),
        ("runs: {growth: 1}", "params_override", "runs: [{params_override: {growth: 1}}]"),
        (
            "parameter_space: {fish: [1, 2]}",
            "replace: true",
            "parameter_space: {fish: {values: [1, 2], replace: true}}",
        ),
        ("parameter_space: {growth: 5}", "write {value: 5}", "parameter_space: {growth: {value: 5}}"),
        ("base: {a: 1}", "'base_config'", "base_config: {a: 1}"),
    ],
)
def test_a_remedy_is_accepted_in_place_of_what_it_answers(text: str, ours: str, right: str) -> None:
    """It is in the first message, so that nobody has to look for it among others."""
    assert ours in messages(text)[0], messages(text)
    parsed(right)


@pytest.mark.parametrize(
    ("axis", "ours"),
    [
        ("distribution: uniform, min: 0, max: 1", "{dist: uniform, low: 0, high: 1}"),
        ("distribution: int_uniform, min: 1, max: 9, as: n", "{dist: int, low: 1, high: 9}"),
        ("distribution: log_uniform_values, min: 0.1, max: 1", "{dist: loguniform, low: 0.1, high: 1}"),
        ("distribution: normal, mu: 0, sigma: 1", "{dist: normal, mean: 0, std: 1}"),
        ("distribution: q_uniform, min: 0, max: 1, q: 0.1", "{range: {start: 0, stop: 1, step: 0.1}}"),
        ("distribution: categorical, values: [1, 2]", "{values: [1, 2]}"),
        ("distribution: constant, value: 5", "{value: 5}"),
        ("type: float, low: 0.1, high: 1, log: true", "{dist: loguniform, low: 0.1, high: 1}"),
        ("type: categorical, choices: [cod, pike]", "{values: ['cod', 'pike']}"),
        ("type: int, minval: 5, maxval: 15, count: 3", "{range: {start: 5, stop: 15, num: 3}}"),
        ("type: const, val: x", "{value: x}"),
        ("min: 5, max: 15, step: 5", "{range: {start: 5, stop: 15, step: 5}}"),
        ("first: 5, step: 5, last: 15", "{range: {start: 5, step: 5, stop: 15}}"),
        ("from: 0, to: 1, by: 0.5", "{range: {start: 0, stop: 1, step: 0.5}}"),
        ("lower_bounds: 0, upper_bounds: 1, partitions: 2", "{range: {start: 0, stop: 1, num: 3}}"),
    ],
)
def test_an_axis_of_another_tool_is_answered_with_ours(axis: str, ours: str) -> None:
    """As a whole and once, with its own numbers; expressions may name it."""
    [message] = messages(f"{AXIS % axis}\nconstraints: ['{'n' if 'as: n' in axis else 'growth'} > 0']")
    assert message == f"write this as {ours}"
    design = "design: {samples: 2}" if "dist:" in ours else ""
    parsed(f"parameter_space: {{growth: {ours}}}\n{design}")


@pytest.mark.parametrize(
    "axis",
    [
        "min: 5, max: 15, step: a",
        "min: 5, start: 5, max: 15, step: 1",
        "type: 5, low: 1, high: 2",
        "type: log, base: 10, minval: -4, maxval: -1",
        "distribution: beta, alpha: 1",
        "type: uniform, low: 1",
        "range: {start: 1, stop: 2, num: 2}, type: int",
    ],
)
def test_an_axis_that_may_mean_several_things_is_answered_word_by_word(axis: str) -> None:
    """Nothing is guessed."""
    found = messages(AXIS % axis)
    assert all("unknown key" in message or "axis" in message for message in found), found


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("'1,2,3'", "for several values a list: [..., ...]"),
        ("'${rate}'", "for the value of another parameter {expr: ...}"),
        ("'range(1, 10)'", "for a range {range: {start: ..., stop: ..., step: ...}}"),
        ("5 to 15 by 5", "for a range {range: {start: ..., stop: ..., step: ...}}"),
        ("'1:10'", "for a range {range: {start: ..., stop: ..., step: ...}}"),
        ("cod", "for a constant write {value: 'cod'}"),
    ],
)
def test_a_text_in_place_of_an_axis_has_the_remedy_for_what_it_looks_like(text: str, remedy: str) -> None:
    """Hydra, OpenMOLE and shells have lists and ranges in texts."""
    [message] = messages(f"parameter_space: {{growth: {text}}}")
    assert message.endswith(remedy)


@pytest.mark.parametrize(
    ("expression", "remedy"),
    [
        ("growth is null", "compare two values with =="),
        ("growth <> 1", "unequal is !="),
        ("growth =< 1", "write <="),
        ("growth => 1", "write >="),
        ("growth between 1 and 2", "write 1 <= x <= 5"),
        ("if growth > 1 then rate > 1", "write a if condition else b"),
        ("growth > 1 ? rate : 2", "write a if condition else b"),
        ("growth > 1 AND rate > 1", "write it in small letters"),
        ("growth mod 2 == 1", "the remainder is %"),
        ("${growth} > 1", "a name stands alone"),
        ("species[0].speed > 1", "an element is part of the path: species.0.speed"),
        ("species[0] > 1", "an element is part of the path: species.0.speed"),
    ],
)
def test_an_operator_of_another_language_is_answered_with_ours(expression: str, remedy: str) -> None:
    """Of SQL, C, MATLAB, OmegaConf, ..."""
    [message] = messages(f"constraints: ['{expression}']")
    assert message.endswith(remedy)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("constraints: growth > 1", "write ['growth > 1']"),
        ("tags: heat", "write ['heat']"),
        ("parameter_space: {growth: {values: 5}}", "write [5]"),
        ("design: lhs", "write {sampler: ..., samples: ...}"),
        ("design: {sampler: TPESampler}", "publish the points of each generation as runs"),
        ("resources: {mem: 4GiB}", "did you mean memory?"),
        ("resources: {memory: 4096}", "write 4096MB, or MiB"),
        ("metrics: [{population: minimize}]", "write {name: ..., goal: minimize}"),
        ("seeds: {values: [1]}", "add policy: list"),
        ("runs: [growth=1]", "write {params_override: {path: value}}"),
        ("inject: seed", "write {seed: path}"),
    ],
)
def test_a_value_of_another_kind_has_a_remedy(text: str, remedy: str) -> None:
    """A single value is a list of one."""
    assert any(message.endswith(remedy) for message in messages(text))


def test_a_word_that_means_a_required_key_is_reported_alone() -> None:
    """The key isn't missing too."""
    dist = "parameter_space: {growth: {dist: uniform, low: 0, high: 1}}"
    [message] = messages(f"{dist}\ndesign: {{sampler: lhs, n_trials: 5}}")
    assert message.endswith("did you mean samples?")
    [message] = messages("metrics: [{metric: population}]")
    assert message.endswith("did you mean name?")
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse({"study_name": "reef", "base_config": BASE})
    [problem] = rejected.value.problems
    assert problem.message.endswith("did you mean experiment_name?")


@pytest.mark.parametrize(
    ("text", "remedies"),
    [
        ("hyperparameters: {growth: [1]}", ["did you mean parameter_space?"]),
        ("searcher: {name: grid}", ["write design: {sampler: ..., samples: ...}"]),
        ("max_restarts: 5", ["write limits: {max_attempts: ...}"]),
        ("limits: {max_restarts: 5}", ["2 retries are max_attempts: 3"]),
        ("repetitions: 5", ["did you mean num_replicates_per_run?"]),
        ("design: {max_trials: 5}", ["did you mean samples?"]),
        ("design: {sampler: hypercube}", ["did you mean lhs?"]),
        (
            AXIS % "stepped-value-set: {first: 1, step: 1, last: 2}",
            ["write {range: {start: ..., stop: ..., step: ...}}"],
        ),
        (AXIS % "first: 1", ["write {range: {start: ..., stop: ..., step: ...}}"]),
        (AXIS % "enumeratedValueSet: [1, 2]", ["did you mean values?"]),
        (DIST % "uniform_uncertain, lower_bounds: 1", ["did you mean low?", "did you mean uniform?"]),
        (DIST % "int, minval: 1, high: 2", ["did you mean low?"]),
        (AXIS % "range: {start: 1, stop: 2, partitions: 4}", ["write num, one more than partitions"]),
        ("keep_seed: true", ["write seeds: {policy: common}"]),
        ("seeds: {experiment_seed: 7}", ["did you mean root?"]),
    ],
)
def test_a_word_of_another_tool_is_answered_once_with_ours(text: str, remedies: list[str]) -> None:
    """Whatever words are similar to it."""
    found = messages(text)
    assert len(found) == len(remedies), found
    for message, remedy in zip(found, remedies, strict=True):
        assert remedy in message


def test_a_word_that_has_no_meaning_where_it_stands_gets_the_most_similar_key() -> None:
    """`sample` is a word for samples in a design only."""
    assert messages("limits: {sample: 5, max_atempts: 2}") == [
        "unknown key 'sample'",
        "unknown key 'max_atempts'; did you mean max_attempts?",
    ]


def keys(node: object) -> dict[str, set[str]]:
    """All keys and choices of a schema, by the key that they are under."""
    found: dict[str, set[str]] = {}
    waiting: list[tuple[str, object]] = [("", node)]
    while waiting:
        name, each = waiting.pop()
        if isinstance(each, dict):
            choices = each.get("enum", []) + ([each["const"]] if "const" in each else [])
            found.setdefault(name, set()).update(choices, each.get("properties", {}))
            waiting += each.get("properties", {}).items()
            waiting += [(name, inner) for key, inner in each.items() if key != "properties"]
        elif isinstance(each, list):
            waiting += [(name, inner) for inner in each]
    return found


SCHEMA = schema.PLAN
KEYS = keys(SCHEMA)
AXIS_KEYS = keys(SCHEMA["$defs"]["axis"])


@pytest.mark.parametrize(
    ("table", "ours"),
    [
        (foreign_plan.KEYS, {*SCHEMA["properties"]}),
        (foreign.RESOURCES, KEYS["resources"]),
        (foreign.AXIS, AXIS_KEYS[""]),
        (foreign.DISTRIBUTION, AXIS_KEYS[""]),
        (foreign.RANGE, AXIS_KEYS["range"]),
        (foreign.DESIGN, KEYS["design"]),
        (foreign.SEEDS, KEYS["seeds"]),
        (foreign.METRIC, keys(SCHEMA["$defs"]["tracked"])[""]),
        (foreign.LIMITS, KEYS["limits"]),
        (foreign.SETTLE, KEYS["settle"]),
        (foreign.RUN, KEYS["runs"]),
        (foreign.GOALS, keys(SCHEMA["$defs"]["tracked"])["goal"]),
        (foreign.SAMPLERS, {*KEYS["sampler"], "adaptive"}),
        (foreign.DISTRIBUTIONS, AXIS_KEYS["dist"]),
    ],
)
def test_every_name_that_is_suggested_can_be_written_there(table: foreign.Remedies, ours: set[str]) -> None:
    """A key that is renamed has to be renamed here; and no key has a remedy, which nobody would see."""
    for remedy in table.values():
        if " " not in remedy:
            first, *rest = remedy.split(".")
            assert first in ours
            assert {*rest} <= KEYS.get(first, set())
    assert ours.isdisjoint(table) or table in (foreign.AXIS, foreign.DISTRIBUTION)


def test_every_key_that_a_remedy_shows_is_one_of_the_language() -> None:
    """For example in `write {range: {start: ..., stop: ..., num: ...}}`."""
    known = set().union(*KEYS.values())
    words = {**vars(foreign), "KEYS": foreign_plan.KEYS}
    tables = [table for name, table in words.items() if name.isupper() and isinstance(table, dict)]
    remedies = [remedy for table in tables for remedy in table.values()]
    shown = {key for remedy in remedies for key in re.findall(r"(?<=[{ ])\w+(?=: [\[{])|(?<={)\w+(?=:)", remedy)}
    assert {"range", "start", "design", "sampler", "limits", "max_attempts"} <= shown <= known
