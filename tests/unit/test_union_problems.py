"""What is wrong with a `parameter_space` that is a list, and where; and what it may have at most."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.points import plan, space
from tests.support import settled
from tests.support.small_plans import BASE, parsed, refused
from tests.support.unions import axes, grid, united


def problems(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(errors.PlanRejected) as rejected:
        settled.size(parsed(text))
    return [(problem.code, problem.path, problem.message) for problem in rejected.value.problems]


@pytest.mark.parametrize(
    ("text", "code", "path", "message"),
    [
        ("parameter_space: []", "empty", "parameter_space", "list at least one space"),
        ("parameter_space: [5]", "wrong_type", "parameter_space.0", "each entry is a space: {parameter_space: {path"),
        ("parameter_space: [{a: [1]}]", "unknown_key", "parameter_space.0.a", "write {parameter_space: {a: ...}}"),
        (
            "parameter_space: [{x.y: [1]}]",
            "unknown_key",
            "parameter_space.0.x.y",
            "write {parameter_space: {x.y: ...}}",
        ),
        ("parameter_space: [{samples: 3}]", "unknown_key", "parameter_space.0.samples", "did you mean design.samples?"),
        ("parameter_space: [{runs: []}]", "unknown_key", "parameter_space.0.runs", "write it beside parameter_space"),
        (united("design: {max_jobs: 3}"), "unknown_key", "parameter_space.0.design.max_jobs", "is about all spaces"),
        (united("variables: 3"), "wrong_type", "parameter_space.0.variables", "a mapping"),
        (united("constraints: [a, 'a =']"), "bad_expression", "parameter_space.0.constraints.1", "=="),
        (united("", "constraints: [q > 1]"), "unknown_name", "parameter_space.1.constraints.0", "'q' is neither"),
        (
            united("", axes("a: [0, 1]") + ", constraints: ['1 / a > 0']"),
            "expression_fails",
            "parameter_space.1.constraints.0",
            "with a = 0",
        ),
        (
            united(axes("f: [{g: 1}]"), axes("f.g: [1]")),
            "overlapping_paths",
            "parameter_space.1.parameter_space.f.g",
            "this and 'f' of another space",
        ),
        (
            united(axes("f.g: [1]"), axes("f: [{g: 1}]")),
            "overlapping_paths",
            "parameter_space.1.parameter_space.f",
            "name the same path in both",
        ),
        (
            united(axes("a: [1]"), axes("a: {values: [1], as: n}")),
            "duplicate",
            "parameter_space.1.parameter_space.a",
            "'a' is called 'n' here, and 'a' in another space",
        ),
        (
            united(axes("a: {values: [1], as: n}"), axes("b: {values: [1], as: n}")),
            "duplicate",
            "parameter_space.1.parameter_space.b",
            "'n' stands for 'a' in another space",
        ),
        (
            united(axes("a: {values: [1], as: n}"), "variables: {n: [1]}"),
            "duplicate",
            "parameter_space.1.variables.n",
            "'n' stands for 'a' in another space",
        ),
        (
            united("variables: {n: [1]}", axes("n: [1]"), more="allow_new_paths: true, "),
            "duplicate",
            "parameter_space.1.parameter_space.n",
            "'n' stands for the variable 'n' in another space",
        ),
        (
            united(axes("a: {values: [1], replace: true}"), axes("a: [1]")),
            "contradiction",
            "parameter_space.1.parameter_space.a",
            "write it in all or in none",
        ),
        (
            united("variables: {v: [1]}", more="variables: {v: [1]}, "),
            "duplicate",
            "parameter_space.0.variables.v",
            "'v' also stands for the variable 'v'; give one of them another name",
        ),
        (
            united("design: {zip: []}", more="design: {samples: 3, max_jobs: 5}, "),
            "contradiction",
            "design.samples",
            "every space has a design of its own",
        ),
        (
            united(axes("a: [1, 2], b: [1, 2]"), axes("a: [1, 2]"), more="design: {zip: [[a, b]]}, "),
            "unknown_name",
            "design.zip.0.1",
            "spaces with other axes need a design of their own",
        ),
        (united("", "", more="design: {samples: 3}, "), "nothing_to_sample", "design.samples", "no axis has a 'dist'"),
        (united("", axes("a: [1]"), more="constraints: [a > 5], "), "no_points", "parameter_space", "no combination"),
        (
            united("", axes("a: [1, 2]"), more="design: {max_jobs: 2}, "),
            "too_many_jobs",
            "design.max_jobs",
            "the plan has 3 jobs, and its max_jobs is 2",
        ),
    ],
)
def test_problems_have_their_place_in_an_entry(text: str, code: str, path: str, message: str) -> None:
    """What several spaces share is reported once."""
    [(found, at, said)] = problems(text)
    assert (found, at) == (code, path)
    assert message in said


def test_problems_of_a_short_name_have_their_place() -> None:
    """As the plan writes it, also inside of an entry."""
    text = (
        "parameters:\n  - {parameters: {a: [1, 2]}}\n  - parameters: {aa: [1]}\n    parameter_space: {a: [5]}\n  - 5\n"
    )
    document = yaml_reader.read_plan(f"name: x\n{text}".encode())
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(document.data, BASE)
    located = yaml_reader.with_positions(rejected.value.problems, document)
    assert [(each.path, each.line) for each in located] == [("parameters.1.parameters", 4), ("parameters.2", 6)]
    only = yaml_reader.read_plan(b"name: x\nparameters:\n  - {parameters: {aa: [1]}}\n")
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(only.data, BASE)
    assert [each.path for each in yaml_reader.with_positions(rejected.value.problems, only)] == [
        "parameters.0.parameters.aa"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (united(*[""] * 101), "101 spaces; at most 100 are allowed"),
        (
            united(*[""] * 100, more=f"variables: {{v: [{', '.join(map(str, range(2500)))}]}}, "),
            "2,500 values of common",
        ),
        (united(*[""] * 100, more=f"design: {{zip: [3, [{', '.join(['a'] * 2500)}]]}}, "), "too many"),
        (united(*[""] * 100, more=f"constraints: [{', '.join(['a < 5'] * 11)}], "), "1,100 expressions"),
        (
            united(*[""] * 100, more=f"variables: {{{', '.join(f'v{i}: {{expr: a}}' for i in range(11))}}}, "),
            "1,100 exp",
        ),
    ],
)
def test_what_spaces_share_is_bounded(text: str, message: str) -> None:
    """It is read for each of them."""
    [(code, said)] = refused(text)
    assert code == "out_of_range"
    assert message in said


def test_a_long_range_of_common_variables_costs_nothing() -> None:
    """Its values are computed when they are needed."""
    text = united(*(axes(f"a: [{number}]") for number in range(9)), more=f"variables: {{{grid(100_000, 'v')}}}, ")
    assert space.count(parsed(text)).points == 900_000


def test_samples_of_all_spaces_are_bounded_together() -> None:
    """A sampler that draws all numbers at once may draw its part of them in each space."""
    dist = axes("a: {dist: uniform, low: 0, high: 1}")
    text = united(*[dist] * 3, more="design: {sampler: sobol, samples: 524288}, ")
    assert "sobol draws at most 349,525 numbers here" in refused(text)[0][1]
