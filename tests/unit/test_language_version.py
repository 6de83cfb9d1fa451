"""What a later version of the plan language may read in another way."""

import pytest

from ems_worker.adapters import yaml_reader
from ems_worker.core.language import version

PRESENT = version.VERSION
BIG = "{range: {start: 0, stop: 9007199254740993, step: 2}}"


def changed(text: str, since: int = 1) -> str | None:
    """What version 2 may read in another way."""
    return version.changed(yaml_reader.read_plan(text.encode()).data, since)


@pytest.fixture(autouse=True)
def version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "VERSION", 2)


def test_every_version_says_what_it_changed() -> None:
    """A version without an entry would let a half-expanded plan of an earlier one be mixed."""
    assert {*range(2, PRESENT + 1)} <= version.CHANGES.keys()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("constraints: [a < 2]", "constraints"),
        ("parameter_space: {a: {expr: 2 * b}}", "parameter_space.a.expr"),
        ("parameter_space: {a: {b: {values: [1], when: c}}}", "parameter_space.a.b.when"),
        ("parameter_space: {a: {range: {start: 0, stop: 1, step: 0.3}}}", "parameter_space.a.range"),
        ("parameter_space: {a: {range: {start: 0, stop: 1, step: 0.3333333333}}}", "parameter_space.a.range"),
        (f"parameter_space: {{a: {BIG}}}", "parameter_space.a.range"),
    ],
)
def test_version_2_computes_expressions_and_ends_ranges_in_another_way(text: str, path: str) -> None:
    """A range ends in another way only if its steps don't meet its stop."""
    assert changed(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "constraints: []",
        "runs: [{params_override: {expr: 1, when: x}}]",
        "parameter_space: {a: [1, 2], b: {dist: uniform, low: 0, high: 1}, c: {range: {start: 0, stop: 1, num: 4}}}",
        "parameter_space: {a: {range: {start: 0, stop: 0.3, step: 0.1}}, b: {range: {start: 3, stop: 1, step: -1}}}",
        "parameter_space: {a: {expr: [1, 2], when: {value: 1}}, range: {start: [1], stop: [true], step: [2]}}",
        "parameter_space: {range: {start: 1, stop: true, step: 2}}",
    ],
)
def test_other_plans_mean_the_same_in_version_2(text: str) -> None:
    """Also those with paths of the same names as keys of axes."""
    assert changed(text) is None


def test_a_plan_of_the_present_version_means_what_it_meant() -> None:
    """Nothing is looked for."""
    assert changed("constraints: [a < 2]", 2) is None


def test_expressions_compute_in_another_way_since_version_1() -> None:
    """Conditions that choose jobs are expressions too."""
    assert version.changes_expressions(1)
    assert not version.changes_expressions(version.VERSION)
