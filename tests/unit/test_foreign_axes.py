"""Axes and expressions in the words of other tools and languages are answered with ours."""

import pytest

from tests.support.foreign_plans import messages, parsed

AXIS = "parameter_space: {growth: {%s}}"


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
