"""Points that expressions decide about: constraints, conditions and derived values, tried before a plan is accepted."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import grid, plan, space
from tests.support.small_plans import BASE, JSON, parsed, refused

FAILING = "{parameter_space: {a: {range: {start: 400, stop: 0, num: 401}}, b: {expr: '1 / a'}}}"


def test_an_expression_that_has_no_value_at_some_point_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever that point is: what is too much to be tried while the plan is read is tried before it is accepted."""
    [(code, message)] = refused(FAILING)
    assert (code, message) == ("expression_fails", "'1 / a' with a = 0: it has no value: division by zero")
    monkeypatch.setattr(grid, "_BUDGET", 0)
    open_axes = "a: {range: {start: 9, stop: 0, num: 10}}, b: {range: {start: 9, stop: 0, num: 10}}"
    [(code, message)] = refused(f"{{parameter_space: {{{open_axes}}}, constraints: ['1 / a + 1 / b > 1.4']}}")
    assert (code, message.partition(":")[0]) == ("expression_fails", "'1 / a + 1 / b > 1.4' with a = 9, b = 0")
    [(code, message)] = refused(
        f"{{parameter_space: {{{open_axes}, c: {{expr: 1 / (a - b)}}}}, constraints: ['a > 1']}}"
    )
    assert (code, message.partition(":")[0]) == ("expression_fails", "'1 / (a - b)' with a = 9, b = 9")


@pytest.mark.parametrize("patience", [grid._BUDGET, 0])
@pytest.mark.parametrize("stop", [3, 400])
@pytest.mark.parametrize(
    "guard",
    [
        "b: {expr: '1 / a'}, c: [1, 2]}, constraints: ['a * c > 0']",
        "b: {expr: '1 / a'}, c: [1, 2]}, constraints: ['a > 0', 'c > 1 or b < 2']",
        "b: {expr: '1 / a', when: 'a > 0'}, c: [1, 2]}",
        "b: {expr: '1 / a', when: 'a * c > 0'}, c: [1, 2]}",
        "b: {expr: '1 / a if a > 0 else 1'}, c: [1, 2]}",
    ],
)
def test_an_expression_may_fail_where_no_point_is(
    monkeypatch: pytest.MonkeyPatch, guard: str, stop: int, patience: int
) -> None:
    """Conditions and constraints come first."""
    monkeypatch.setattr(grid, "_BUDGET", patience)
    axes = f"{{parameter_space: {{a: {{range: {{start: 0, stop: {stop}, step: 1}}}}, "
    plan_ = parsed(axes + guard + "}")
    assert space.exact_count(plan_).points == len(list(space.points(plan_))) > 0


PARTIAL = ["1 / a < 5", "1 / (b - 1) > 0", "1 / (a - b) < 2", "1 / (c * a) > 0", "d / b > 0", "1 / e < 3", "e > 0"]
GUARDS = ["a > 0", "b != 1", "a != b", "a * c > 0", "a * b * c > 1", "d > 0", "c > 0 or a == 1", "e < 9"]
FAILS = "fails"


def _worked_out(text: str, values: dict[str, Any]) -> Any:
    """What an expression comes to; FAILS where it, or something that it names, has no value."""
    named = [name for name in values if name in text]
    if any(values[name] == FAILS for name in named):
        return FAILS
    try:
        return eval(text, {}, values)
    except ZeroDivisionError:
        return FAILS


def _all_tried(order: list[str], when: str | None, derived: str, constraints: list[str]) -> list[JSON] | str:
    """The points the slow way; FAILS if something has no value at a combination that no constraint leaves out."""
    lists: dict[str, list[JSON]] = {"a": [0, 1, 2], "b": [1, 0], "c": [0, 3], "d": [0, 2]}
    found: dict[str, JSON] = {}
    for combination in itertools.product(*(lists[name] for name in order)):
        values: dict[str, Any] = dict(zip(order, combination, strict=True))
        shown = True if when is None else _worked_out(when, {name: values[name] for name in "abc"})
        point = {name: values[name] for name in order if name != "d" or shown is True}
        if shown is not True:
            values["d"] = FAILS if shown == FAILS else 0
        values["e"] = point["e"] = _worked_out(derived, values)
        verdicts = [_worked_out(constraint, values) for constraint in constraints]
        if False in verdicts:
            continue
        if FAILS in (*verdicts, values["d"], values["e"]):
            return FAILS
        found.setdefault(canonical.text(point), {name: point[name] for name in (*order, "e") if name in point})
    return list(found.values())


@given(
    order=st.permutations(["a", "b", "c", "d"]),
    when=st.sampled_from([None, *(text for text in PARTIAL + GUARDS if not {*"de"} & {*text.replace("or", "")})]),
    derived=st.sampled_from(["1", "a + d", "1 / a", "1 / (b - 1)", "1 / (a - b)", "c / d", "1 / (a * c)"]),
    constraints=st.lists(st.sampled_from(PARTIAL + GUARDS + GUARDS), max_size=4),
    patience=st.sampled_from([grid._BUDGET, 0, 100, 400]),
)
def test_constraints_guard_whatever_has_no_value(
    order: list[str], when: str | None, derived: str, constraints: list[str], patience: int
) -> None:
    """In whatever order, wherever their parameters are in the plan's: only what fails at a point is an error.

    Where there is no point at all, either may be told.
    """
    lists = {"a": [0, 1, 2], "b": [1, 0], "c": [0, 3], "d": [0, 2]}
    space_: dict[str, object] = {name: {"values": lists[name]} for name in order}
    if when is not None:
        space_["d"] = {"values": lists["d"], "when": when}
    data = {"experiment_name": "x", "base_config": BASE, "parameter_space": {**space_, "e": {"expr": derived}}}
    expected = _all_tried(order, when, derived, constraints)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "_BUDGET", patience)
        if expected == FAILS or not expected:
            with pytest.raises(errors.PlanRejected) as rejected:
                space.exact_count(plan.parse({**data, "constraints": constraints}))
            codes = {problem.code for problem in rejected.value.problems}
            assert "expression_fails" in codes if expected == FAILS else codes <= {"expression_fails", "no_points"}
            return
        made = plan.parse({**data, "constraints": constraints})
    assert space.exact_count(made).points == len(expected)
    assert [point.params for point in space.points(made)] == expected


def test_a_condition_that_names_more_guards_at_all_of_it() -> None:
    """A derived value whose `when` names another parameter is tried at the values of both."""
    text = "{parameter_space: {a: [1, 0], c: [1, 2], b: {expr: 1 / a, when: c > 1}}}"
    with pytest.raises(errors.PlanRejected, match="'1 / a' with a = 0"):
        parsed(text)


def test_a_search_for_a_point_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expression counts as failing then: a condition of its own helps."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    monkeypatch.setattr(grid, "_LOOKED", 3)
    text = "{parameter_space: {a: [0, 1], b: {expr: 1 / a}, c: [1, 2, 3, 4, 5, 6]}, constraints: ['a * c > 0']}"
    made = parsed(text)
    assert not made.grid.settled
    assert space.exact_count(made).points == 6
    monkeypatch.setattr(grid, "_LOOKED_LONG", 3)
    assert refused(text)[0][0] == "expression_fails"


def test_derived_values_of_too_much_are_refused() -> None:
    """They would have to be worked out at more combinations than there is time for."""
    wide = "{range: {start: 1, stop: 9000, step: 1}}"
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(f"{{parameter_space: {{a: {wide}, b: {wide}, c: {{expr: a / b}}}}}}")
    assert [problem.code for problem in rejected.value.problems] == ["too_many_combinations"]


def test_a_limit_of_jobs_is_judged_by_the_exact_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound over it refuses nothing; counting ends as soon as there are too many."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    monkeypatch.setattr(grid, "_STEP", 10)
    text = """{{parameter_space: {{a: {{range: {{start: 1, stop: 100, step: 1}}}}, b: [1, 2, 3, 4]}},
    constraints: ['a * b <= {limit}'], num_replicates_per_run: 2, design: {{max_jobs: 100}}}}"""
    few = parsed(text.format(limit=20))
    assert space.count(few) == space.Count(400, 800, exact=False)
    assert space.exact_count(few) == space.Count(41, 82)
    many = parsed(text.format(limit=300))
    steps: list[int] = []
    with pytest.raises(errors.PlanRejected, match=r"jobs or more \(800 at most\), and this plan allows 100"):
        steps.extend(so_far.points for so_far in space.settling(many))
    assert 0 < max(steps) <= 50
    with pytest.raises(errors.PlanRejected, match=r"this worker takes 70 at most \(EMS_MAX_JOBS\)"):
        list(space.settling(few, most_jobs=70))


def test_points_that_are_tried_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search is left after so many tries and goes on where it was, also from the middle anew."""
    monkeypatch.setattr(grid, "_BUDGET", 0)
    text = "{parameter_space: {a: {range: {start: 1, stop: 30, step: 1}}, b: [1, 2]}, constraints: ['a * b == 30']}"
    for begin in (0, 1):
        made = parsed(text)
        found: list[dict[str, JSON]] = []
        for _ in range(12):
            found += [point.params for point in space.points(made, begin + len(found), tries=5)]
        assert found == [{"a": 15, "b": 2}, {"a": 30, "b": 1}][begin:]
