"""Constraints, conditions and derived values: they are evaluated at all points before a plan is accepted."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import plan, space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import settled
from tests.support.small_plans import BASE, JSON, UNCOUNTED, parsed, refused

FAILING = "{parameter_space: {a: {range: {start: 400, stop: 0, num: 401}}, b: {expr: '1 / a'}}}"


def test_an_expression_without_a_value_at_some_point_is_an_error() -> None:
    """The error gives the values at that point, even if the point is found only by evaluating all combinations."""
    [(code, message)] = refused(FAILING)
    assert (code, message) == ("expression_fails", "'1 / a' with a = 0: it has no value: division by zero")
    open_axes = "a: {range: {start: 9, stop: 0, num: 10}}, b: {range: {start: 9, stop: 0, num: 10}}"
    [(code, message)] = refused(
        f"{{parameter_space: {{{open_axes}}}, constraints: ['1 / a + 1 / b > 1.4']}}", UNCOUNTED
    )
    assert (code, message.partition(":")[0]) == ("expression_fails", "'1 / a + 1 / b > 1.4' with a = 9, b = 0")
    [(code, message)] = refused(
        f"{{parameter_space: {{{open_axes}, c: {{expr: 1 / (a - b)}}}}, constraints: ['a > 1']}}", UNCOUNTED
    )
    assert (code, message.partition(":")[0]) == ("expression_fails", "'1 / (a - b)' with a = 9, b = 9")


@pytest.mark.parametrize("limits", [WorkLimits(), UNCOUNTED], ids=["at once", "later"])
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
def test_an_expression_may_fail_at_combinations_that_are_not_points(guard: str, stop: int, limits: WorkLimits) -> None:
    """Conditions and constraints that exclude a combination guard derived values there."""
    axes = f"{{parameter_space: {{a: {{range: {{start: 0, stop: {stop}, step: 1}}}}, "
    guarded = parsed(axes + guard + "}", limits=limits)
    assert settled.size(guarded).points == len(list(space.points(guarded))) > 0


PARTIAL = ["1 / a < 5", "1 / (b - 1) > 0", "1 / (a - b) < 2", "1 / (c * a) > 0", "d / b > 0", "1 / e < 3", "e > 0"]
GUARDS = ["a > 0", "b != 1", "a != b", "a * c > 0", "a * b * c > 1", "d > 0", "c > 0 or a == 1", "e < 9"]
FAILS = "fails"


def _evaluated(text: str, values: dict[str, Any]) -> Any:
    """The value of an expression; FAILS if the expression, or a parameter that it names, has no value."""
    named = [name for name in values if name in text]
    if any(values[name] == FAILS for name in named):
        return FAILS
    try:
        return eval(text, {}, values)
    except ZeroDivisionError:
        return FAILS


def _brute_force(order: list[str], when: str | None, derived: str, constraints: list[str]) -> list[JSON] | str:
    """The points by brute force; FAILS if an expression has no value at a combination that no constraint excludes."""
    lists: dict[str, list[JSON]] = {"a": [0, 1, 2], "b": [1, 0], "c": [0, 3], "d": [0, 2]}
    found: dict[str, JSON] = {}
    for combination in itertools.product(*(lists[name] for name in order)):
        values: dict[str, Any] = dict(zip(order, combination, strict=True))
        shown = True if when is None else _evaluated(when, {name: values[name] for name in "abc"})
        point = {name: values[name] for name in order if name != "d" or shown is True}
        if shown is not True:
            values["d"] = FAILS if shown == FAILS else 0
        values["e"] = point["e"] = _evaluated(derived, values)
        verdicts = [_evaluated(constraint, values) for constraint in constraints]
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
    limits=st.sampled_from([WorkLimits(), *(WorkLimits(early_steps=steps) for steps in (0, 100, 400))]),
)
def test_constraints_guard_all_other_expressions(
    order: list[str], when: str | None, derived: str, constraints: list[str], limits: WorkLimits
) -> None:
    """Whatever the order of constraints and parameters, an expression must have a value only at points.

    If the plan has no points, the problem may be that or an expression without a value.
    """
    lists = {"a": [0, 1, 2], "b": [1, 0], "c": [0, 3], "d": [0, 2]}
    space_: dict[str, object] = {name: {"values": lists[name]} for name in order}
    if when is not None:
        space_["d"] = {"values": lists["d"], "when": when}
    data = {"experiment_name": "x", "base_config": BASE, "parameter_space": {**space_, "e": {"expr": derived}}}
    expected = _brute_force(order, when, derived, constraints)
    if expected == FAILS or not expected:
        with pytest.raises(errors.PlanRejected) as rejected:
            settled.size(plan.parse({**data, "constraints": constraints}, limits=limits))
        codes = {problem.code for problem in rejected.value.problems}
        assert "expression_fails" in codes if expected == FAILS else codes <= {"expression_fails", "no_points"}
        return
    made = plan.parse({**data, "constraints": constraints}, limits=limits)
    assert settled.size(made).points == len(expected)
    assert [point.params for point in space.points(made)] == expected


def test_a_derived_value_is_evaluated_at_all_values_that_its_condition_names() -> None:
    """A `when` that names another parameter only guards where it is false."""
    text = "{parameter_space: {a: [1, 0], c: [1, 2], b: {expr: 1 / a, when: c > 1}}}"
    with pytest.raises(errors.PlanRejected, match="'1 / a' with a = 0"):
        parsed(text)


def test_a_derived_value_that_depends_on_too_many_combinations_is_refused() -> None:
    """Evaluating it at all of them would take too long."""
    wide = "{range: {start: 1, stop: 9000, step: 1}}"
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(f"{{parameter_space: {{a: {wide}, b: {wide}, c: {{expr: a / b}}}}}}")
    assert [problem.code for problem in rejected.value.problems] == ["too_many_combinations"]


def test_a_limit_of_jobs_applies_to_the_exact_number() -> None:
    """An upper bound above the limit is accepted until the points are counted."""
    text = """{{parameter_space: {{a: {{range: {{start: 1, stop: 100, step: 1}}}}, b: [1, 2, 3, 4]}},
    constraints: ['a * b <= {limit}'], num_replicates_per_run: 2, design: {{max_jobs: 100}}}}"""
    few = parsed(text.format(limit=20), limits=UNCOUNTED)
    assert space.count(few) == space.SpaceSize(400, 800, exact=False)
    assert settled.size(few) == space.SpaceSize(41, 82)
    for limits in (WorkLimits(), UNCOUNTED):
        [(code, message)] = refused(text.format(limit=300), limits)
        assert (code, message) == ("too_many_jobs", "the plan has 750 jobs, and its max_jobs is 100")
    with pytest.raises(errors.PlanRejected, match=r"this worker accepts at most 70 \(EMS_MAX_JOBS\)"):
        list(space.settle(few, max_jobs=70))


def test_counting_can_be_interrupted() -> None:
    """It ends after the given number of steps and continues there; until it is complete there are no points."""
    text = "{parameter_space: {a: {range: {start: 1, stop: 30, step: 1}}, b: [1, 2]}, constraints: ['a * b == 30']}"
    for begin in (0, 1):
        made = parsed(text, limits=UNCOUNTED)
        found: list[dict[str, JSON]] = []
        calls = 0
        while not found:
            found = [point.params for point in space.points(made, begin, max_steps=20)]
            calls += 1
        assert found == [{"a": 15, "b": 2}, {"a": 30, "b": 1}][begin:]
        assert calls > 1


@pytest.mark.parametrize(
    "text",
    [
        "{parameter_space: {b: [0], c: [1, 2]}, constraints: ['b != 0', 'c % b == 0']}",
        "{parameter_space: {b: [0], c: [1, 2]}, constraints: ['c % b == 0', 'b != 0']}",
        "{parameter_space: {b: [0], c: [1, 2]}, constraints: ['1 % b == 0', 'c > 2']}",
        "{parameter_space: {b: [0, 1], c: [1, 2]}, constraints: ['1 / b > 0', 'c > 2']}",
        "{parameter_space: {b: [0, 1], c: [1, 2], a: {values: [1, 2], when: '1 / b > 0'}}, constraints: ['c > 2']}",
        "{parameter_space: {b: [0, 1], c: [1, 2], a: {expr: '1 / b'}}, constraints: ['c > 2']}",
    ],
)
def test_constraints_that_leave_no_points_guard_all_other_expressions(text: str) -> None:
    """Whatever is varied and in whatever order: the plan has no points, and nothing else is wrong with it."""
    assert refused(text) == [("no_points", "no combination satisfies the constraints")]


@pytest.mark.parametrize("limits", [WorkLimits(), UNCOUNTED], ids=["at once", "later"])
def test_a_condition_is_true_or_false(limits: WorkLimits) -> None:
    """A number is neither, in a `when`, in a constraint, or as one of two choices."""
    [(code, message)] = refused("{parameter_space: {a: [1, 2], b: {values: [1, 2], when: a + 1}}}", limits)
    assert (code, message.partition(":")[0]) == ("expression_fails", "'a + 1' with a = 1")
    [(code, message)] = refused("{parameter_space: {a: [1, 2]}, constraints: ['a > 1 if a < 2 else a']}", limits)
    assert (code, message.partition(":")[0]) == ("expression_fails", "'a > 1 if a < 2 else a' with a = 2")


def test_a_message_shows_the_first_names_of_an_expression() -> None:
    """However many there are."""
    names = [f"p{number}" for number in range(12)]
    text = f"{{parameter_space: {{a: [0, 1]}}, constraints: ['{' + '.join(names)} + 1 / a > 0']}}"
    with pytest.raises(errors.PlanRejected, match=r"p8 = 0, p9 = 0, \.\.\.: it has no value: division by zero"):
        settled.size(parsed(text, {"a": 0, **dict.fromkeys(names, 0)}))


def test_a_list_in_an_expression_has_negative_numbers() -> None:
    """With their signs, whole or not."""
    found = parsed("{parameter_space: {a: [-1, 0, 1, -0.5], b: [1, 2]}, constraints: ['a * b in [-1, -0.5, +2]']}")
    assert [(point.params["a"], point.params["b"]) for point in space.points(found)] == [
        (-1, 1),
        (1, 2),
        (-0.5, 1),
        (-0.5, 2),
    ]
