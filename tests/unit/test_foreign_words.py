"""Users of other tools who write their word are told ours, and what they are told is accepted."""

import re

import pytest

from ems_worker import errors
from ems_worker.core.language import foreign, foreign_plan, schema
from ems_worker.core.points import plan
from tests.support.foreign_plans import BASE, messages, parsed

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
