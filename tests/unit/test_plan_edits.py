"""Small edits of a plan: more replicates, samples and values."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import edits, plan, space
from ems_worker.core.points.edits import Edits
from tests.support.small_plans import BASE, JSON
from tests.support.unions import axes, united

SWEEP = """
experiment_name: x
parameter_space:
  a: [1, 2]
  f: {g: {values: [0.5, 1.0], as: gain}}
  b: {range: {start: 0, stop: 1, num: 3}}
num_replicates_per_run: 3
"""
SAMPLED = "{experiment_name: x, parameter_space: {a: {dist: uniform, low: 0, high: 1}}, design: {samples: 4}}"


def edit(text: str, **changes: Any) -> dict[str, Any]:
    document = yaml_reader.read_plan(text.encode()).data
    before = canonical.text(document)
    try:
        return edits.edited(document, plan.parse(document, BASE), Edits(**changes))
    finally:
        assert canonical.text(document) == before


def refused(text: str, **changes: Any) -> list[tuple[str, str]]:
    with pytest.raises(errors.PlanRejected) as rejected:
        edit(text, **changes)
    return [(problem.code, problem.path) for problem in rejected.value.problems]


def test_replicates_and_samples_are_set_where_the_plan_has_them() -> None:
    """Everything else of the document stays as it was sent."""
    assert edit(SWEEP) == yaml_reader.read_plan(SWEEP.encode()).data
    assert edit(SWEEP, replicates=30) == {**edit(SWEEP), "num_replicates_per_run": 30}
    assert edit(SAMPLED, replicates=2)["num_replicates_per_run"] == 2
    assert edit(SAMPLED, samples=256)["design"] == {"samples": 256}


def test_nothing_is_taken_away() -> None:
    """Fewer replicates or samples are refused; the present numbers change nothing."""
    assert edit(SWEEP, replicates=3) == edit(SWEEP)
    assert edit(SAMPLED, samples=4) == edit(SAMPLED)
    assert refused(SWEEP, replicates=2) == [("fewer_replicates", "num_replicates_per_run")]
    assert refused(SAMPLED, samples=3) == [("fewer_samples", "design.samples")]
    assert refused(SWEEP, samples=5) == [("nothing_to_sample", "design.samples")]
    assert refused("{experiment_name: x, design: {max_jobs: 9}, runs: [{}]}", samples=5) == [
        ("nothing_to_sample", "design.samples")
    ]


@pytest.mark.parametrize(
    ("add", "where", "values"),
    [
        ({"a": [3, 4]}, ("a",), [1, 2, 3, 4]),
        ({"f.g": [2.0]}, ("f", "g", "values"), [0.5, 1.0, 2.0]),
        ({"gain": [2.0]}, ("f", "g", "values"), [0.5, 1.0, 2.0]),
        ({"b": [2]}, ("b", "values"), [0.0, 0.5, 1.0, 2]),
        ({"a": [2, 2.0, True, 3, 3]}, ("a",), [1, 2, True, 3]),
    ],
)
def test_values_follow_those_of_their_axis(
    add: Mapping[str, Sequence[JSON]], where: tuple[str, ...], values: Sequence[JSON]
) -> None:
    """The axis is found by its path or name; a range becomes a list; values that are there aren't added."""
    found = edit(SWEEP, add=add)["parameter_space"]
    for step in where:
        found = found[step]
    assert canonical.text(found) == canonical.text(values)


def test_a_range_that_became_a_list_has_the_same_values() -> None:
    """The points that are there are found again by their values."""
    text = "{experiment_name: x, parameter_space: {a: {logrange: {start: 0.1, stop: 7, num: 9}}}}"
    before = [point.params for point in space.points(plan.parse(edit(text), BASE))]
    after = [point.params for point in space.points(plan.parse(edit(text, add={"a": [70]}), BASE))]
    assert canonical.text(after) == canonical.text([*before, {"a": 70}])


def test_each_value_of_a_zip_group_counts() -> None:
    """Values that are zipped may repeat, because the rows differ."""
    text = "{experiment_name: x, parameter_space: {a: [1, 2], b: [1, 1]}, design: {zip: [[a, b]]}}"
    after = edit(text, add={"a": [3], "b": [1]})
    assert after["parameter_space"] == {"a": [1, 2, 3], "b": [1, 1, 1]}
    assert len([*space.points(plan.parse(after, BASE))]) == 3


@pytest.mark.parametrize(
    ("axis", "name", "code", "words"),
    [
        ("[1, 2]", "aa", "unknown_name", "did you mean a?"),
        ("[1, 2]", "f.g", "unknown_name", "to vary another path, send the whole plan"),
        ("{value: 3}", "a", "not_a_list", "has no list of values"),
        ("{expr: b + 1}", "a", "not_a_list", "has no list of values"),
        ("{dist: int, low: 1, high: 3}, design: {samples: 2}", "a", "not_a_list", "raise 'samples'"),
        ("{range: {start: 1, stop: 20000, num: 20000}}", "a", "not_a_list", "20,000 values, too many"),
    ],
)
def test_what_takes_no_more_values_is_refused(axis: str, name: str, code: str, words: str) -> None:
    """Axes without a list of values, and what is no axis: the message says what to do instead."""
    space_text, _, rest = axis.partition(", design")
    design = f", design{rest}" if rest else ""
    text = f"{{experiment_name: x, parameter_space: {{a: {space_text}}}{design}}}"
    assert refused(text, add={name: [9]}) == [(code, f"add.{name}")]
    with pytest.raises(errors.PlanRejected, match=words.replace("?", r"\?")):
        edit(text, add={name: [9]})


def test_all_problems_come_at_once() -> None:
    """As with plans."""
    assert [code for code, _ in refused(SWEEP, replicates=1, samples=1, add={"z": [1]})] == [
        "fewer_replicates",
        "nothing_to_sample",
        "unknown_name",
    ]


def test_values_are_added_to_the_axis_of_one_space() -> None:
    """An axis that several spaces have is ambiguous, and a common variable is not."""
    text = "{experiment_name: x, " + united(axes("a: [1]"), axes("b: [3], a: [1]"), more="variables: {v: [1]}, ")[1:]
    assert edit(text, add={"b": [4]})["parameter_space"][1] == {"parameter_space": {"b": [3, 4], "a": [1]}}
    assert edit(text, add={"v": [4]})["variables"] == {"v": [1, 4]}
    assert refused(text, add={"a": [4]}) == [("not_a_list", "add.a")]
    short = "{name: x, parameters: [{parameters: {a: [1]}}, {}]}"
    assert edit(short, add={"a": [4]})["parameter_space"] == [{"parameter_space": {"a": [1, 4]}}, {}]


def test_samples_are_added_to_the_common_design() -> None:
    """Samples of a space's own design are left to a whole plan."""
    dist = axes("a: {dist: uniform, low: 0, high: 1}")
    text = "{experiment_name: x, " + united(dist, "", more="design: {samples: 4}, ")[1:]
    assert edit(text, samples=9)["design"] == {"samples": 9}
    own = "{experiment_name: x, " + united(f"{dist}, design: {{samples: 4}}", "")[1:]
    assert refused(own, samples=9) == [("nothing_to_sample", "design.samples")]
