"""How an experiment starts, settles and ends, and the limits that `set` changes while it runs."""

from fractions import Fraction
from typing import Any

import pytest

from ems_worker.core.language import options
from ems_worker.core.language.problems import Problems
from tests.support.reef_plans import BASE, JSON, parsed


def test_a_plan_may_hold_stay_open_and_settle_early() -> None:
    """By default it does none of that: it settles with its last job."""
    plain = parsed("description: x")
    assert (plain.hold, plain.keep_open, plain.settle) == (False, False, options.Settle())
    assert plain.settle.quorum.needed(7) == 7
    assert (plain.settle.grace_seconds, plain.settle.stragglers) == (0.0, "keep")
    full = parsed("{hold: true, keep_open: true, settle: {quorum: 90%, grace_seconds: 1.5, stragglers: cancel}}")
    assert (full.hold, full.keep_open) == (True, True)
    assert full.settle == options.Settle(options.Quorum(percent=Fraction(90)), 1.5, "cancel")
    assert full.warnings == ()


@pytest.mark.parametrize(
    ("quorum", "jobs", "needed"),
    [("90%", 10, 9), ("90%", 11, 10), ("0.1%", 10, 1), ("64.1%", 1000, 641), ("100%", 3, 3), (4, 10, 4), (4, 3, 3)],
)
def test_a_quorum_is_rounded_up_and_at_most_all_jobs(quorum: object, jobs: int, needed: int) -> None:
    """Percentages are exact."""
    assert parsed(f"settle: {{quorum: {quorum}}}").settle.quorum.needed(jobs) == needed


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("settle: {}", []),
        ("settle: {quorum: 100%}", []),
        ("settle: {grace_seconds: 5}", [("no_stragglers", "settle")]),
        ("settle: {quorum: 100%, stragglers: cancel}", [("no_stragglers", "settle")]),
        (
            "{settle: {quorum: 3, grace_seconds: 0}, num_replicates_per_run: 2}",
            [("quorum_above_jobs", "settle.quorum")],
        ),
        ("{settle: {quorum: 2}, num_replicates_per_run: 2}", []),
    ],
)
def test_a_settle_that_has_no_effect_causes_a_warning(text: str, warnings: list[tuple[str, str]]) -> None:
    """With a quorum of all jobs there is nobody left to wait for."""
    assert [(each.code, each.path) for each in parsed(text).warnings] == warnings


def test_a_parameter_that_a_where_cannot_refer_to_causes_a_warning() -> None:
    """It has the name of a fact or label of jobs; with another name there is no warning."""
    base: dict[str, JSON] = {**BASE, "state": {"a": 1}, "host": 1, "label": {"x": 1}}
    text = """
    parameter_space: {label.x: [1, 2], host: {values: [1, 2], as: port}}
    runs: [{params_override: {state.a: 1}}]
    """
    assert [(each.code, each.path) for each in parsed(text, base).warnings] == [
        ("reserved_name", "parameter_space.label.x")
    ]
    named = parsed("runs: [{params_override: {host: 1}}, {params_override: {host: 2}}]", base)
    assert [(each.code, each.path) for each in named.warnings] == [("reserved_name", "runs.0.params_override.host")]


def parse(**data: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    problems = Problems()
    return options.parse_overrides(data, problems), [(each.code, each.path) for each in problems.collected()]


def test_set_takes_limits_as_plans_write_them() -> None:
    """Null returns to the plan's limit."""
    given = {"priority": 5, "max_concurrent": 7, "max_failed": "12.5%"}
    assert parse(**given) == (given, [])
    assert parse(max_failed=3) == ({"max_failed": 3}, [])
    assert parse(priority=None, max_failed=None) == ({"priority": None, "max_failed": None}, [])


@pytest.mark.parametrize(
    ("data", "code", "path"),
    [
        ({}, "missing_key", ""),
        ({"priority": 101}, "out_of_range", "priority"),
        ({"priority": "5"}, "wrong_type", "priority"),
        ({"max_concurrent": 0}, "out_of_range", "max_concurrent"),
        ({"max_failed": "5"}, "bad_format", "max_failed"),
        ({"max_failed": 0.5}, "wrong_type", "max_failed"),
        ({"budget": {"runs": 1}}, "not_supported_yet", "budget"),
        ({"prioriti": 1}, "unknown_key", "prioriti"),
        ({"max_attempts": 1}, "unknown_key", "max_attempts"),
    ],
)
def test_set_is_checked_as_plans_are(data: dict[str, Any], code: str, path: str) -> None:
    """Each problem has its code and path, and what is wrong is left out."""
    assert parse(**data) == ({}, [(code, path)])


def test_overrides_replace_the_limits_of_the_plan_until_they_are_removed() -> None:
    """Later ones win, and null removes one."""
    limits = parsed("limits: {priority: 1, max_failed: 2, max_attempts: 9}").limits
    first = options.merged({}, {"priority": -5, "max_concurrent": 3, "max_failed": "50%"})
    changed = options.overridden(limits, first)
    assert (changed.priority, changed.max_concurrent, changed.max_attempts) == (-5, 3, 9)
    assert changed.max_failed.allowed(10) == 5
    second = options.merged(first, {"priority": None, "max_concurrent": 4})
    assert second == {"max_concurrent": 4, "max_failed": "50%"}
    assert options.overridden(limits, second).priority == 1
    assert options.overridden(limits, {}) == limits
