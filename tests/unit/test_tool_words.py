"""Users of OpenMOLE, Dakota, NetLogo, GAMA and Determined who write their word are told ours."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.language import axes, distributions, options, tool_words
from ems_worker.core.points import plan

BASE = {"fish": {"count": 10, "speed": 1.5}, "growth": 0.1}


def messages(text: str) -> list[str]:
    """What is said about a plan."""
    document = yaml_reader.read_plan(f"{text}\nexperiment_id: reef\n".encode())
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse({**document.data, "base_config": BASE})
    return [problem.message for problem in rejected.value.problems]


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("hyperparameters: {growth: [1]}", "parameter_space"),
        ("searcher: {name: grid}", "design: {sampler: ..., samples: ...}"),
        ("design: {max_trials: 5}", "samples"),
        ("max_restarts: 5", "limits: {max_attempts: ...}, one more than restarts"),
        ("limits: {max_restarts: 5}", "max_attempts (one more than restarts)"),
        ("repetitions: 5", "num_replicates_per_run"),
        ("sampling: lhs", "design: {sampler: ..., samples: ...}"),
        ("design: {sampler: hypercube}", "lhs"),
        ("parameter_space: {growth: {stepped-value-set: {first: 1, step: 1, last: 2}}}", "range: {start, stop, step}"),
        ("parameter_space: {growth: {first: 1}}", "range: {start, stop, step}"),
        ("parameter_space: {growth: {enumeratedValueSet: [1, 2]}}", "values"),
        ("parameter_space: {growth: {among: [1, 2]}}", "values"),
        ("parameter_space: {growth: {dist: uniform_uncertain, lower_bounds: 1}}", "uniform"),
        ("parameter_space: {growth: {dist: int, minval: 1, high: 2}}", "low"),
        (
            "parameter_space: {growth: {range: {start: 1, stop: 2, partitions: 4}}}",
            "num (one more than partitions)",
        ),
        ("keep_seed: true", "seeds: {policy: common}"),
        ("seeds: {experiment_seed: 7}", "root"),
    ],
)
def test_a_word_of_another_tool_gets_ours(text: str, ours: str) -> None:
    """Whatever words are similar to it."""
    assert any(message.endswith(f"; did you mean {ours}?") for message in messages(text)), messages(text)


def test_a_word_that_has_no_meaning_where_it_stands_gets_the_most_similar_key() -> None:
    """`sample` is a key of no mapping of limits."""
    assert messages("limits: {sample: 5, max_atempts: 2}") == [
        "unknown key 'sample'",
        "unknown key 'max_atempts'; did you mean max_attempts?",
    ]


def test_every_suggestion_begins_with_a_word_of_the_language() -> None:
    """A key that is renamed has to be renamed here."""
    known = {*plan.KEYS, *axes.KEYS, *(form.name for form in distributions.FORMS), *options.CHANGEABLE}
    known |= {"start", "stop", "num", "step", "sampler", "samples", "grid", "lhs", "goal", "root", "max_attempts"}
    for word, suggestions in tool_words.WORDS.items():
        assert suggestions
        for suggestion in suggestions:
            assert tool_words.begins(suggestion) in known, (word, suggestion)


def test_no_word_of_the_language_is_taken_for_one_of_another_tool() -> None:
    """Such an entry would never be used, or would replace the suggestion of a similar key."""
    assert tool_words.WORDS.keys().isdisjoint({*plan.KEYS, *axes.KEYS})
