"""`variables`: named axes that are no path of the configuration."""

import pytest

from ems_worker.core.language import where
from ems_worker.core.points import identity, largest, render, space
from tests.support.small_plans import params, parsed, refused
from tests.unit.test_extension import paths as not_extensible
from tests.unit.test_plan_edits import edit

DERIVED = "{variables: {heat: [1, 2]}, parameter_space: {a: {expr: 10 * heat}, b: [5, 6]}}"


def test_expressions_use_a_variable() -> None:
    """Derived values, conditions and constraints name it; it comes before the axes of the parameter_space."""
    assert params(DERIVED) == [
        {"heat": 1, "a": 10, "b": 5},
        {"heat": 1, "a": 10, "b": 6},
        {"heat": 2, "a": 20, "b": 5},
        {"heat": 2, "a": 20, "b": 6},
    ]
    text = "{variables: {v: [1, 2, 3]}, parameter_space: {a: {values: [7], when: v > 1}}, constraints: [v < 3]}"
    assert params(text) == [{"v": 1}, {"v": 2, "a": 7}]
    text = (
        "{variables: {v: {expr: w + 1, when: w > 1}, w: [1, 2]}, parameter_space: {a: {expr: v}}, constraints: [v < 9]}"
    )
    assert params(text) == [{"w": 1}, {"v": 3, "w": 2, "a": 3}]


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("[1, x, null]", [1, "x", None]),
        ("{values: [[1, 2], {k: 3}]}", [[1, 2], {"k": 3}]),
        ("{range: {start: 1, stop: 3, num: 3}, unit: K, label: warm}", [1, 2, 3]),
        ("{logrange: {start: 1, stop: 100, num: 3}}", [1.0, 10.0, 100.0]),
        ("{concat: [[1], [5, 6]]}", [1, 5, 6]),
        ("{value: [1, 2]}", [[1, 2]]),
        ("{expr: a + 1}", [1]),
    ],
)
def test_a_variable_may_be_any_axis(form: str, values: list[object]) -> None:
    """All forms of an axis give the values of a variable."""
    assert [point["v"] for point in params(f"variables: {{v: {form}}}")] == values


def test_a_variable_is_sampled_and_zipped_as_an_axis() -> None:
    """Random samples depend only on the seed and its name, as those of an axis do on its path."""
    dist = "{dist: int, low: 0, high: 999}"
    drawn = params(f"{{variables: {{v: {dist}}}, design: {{samples: 4, seed: 3}}}}")
    assert len({point["v"] for point in drawn}) == 4
    text = f"{{variables: {{w: {dist}, v: {dist}}}, parameter_space: {{a: [1]}}, design: {{samples: 4, seed: 3}}}}"
    assert [{"v": point["v"]} for point in params(text)] == drawn
    text = "{variables: {v: [1, 2]}, parameter_space: {a: [5, 6]}, design: {zip: [[v, a]]}}"
    assert params(text) == [{"v": 1, "a": 5}, {"v": 2, "a": 6}]


def test_a_variable_has_a_unit_and_label_and_no_path() -> None:
    """It is one of the plan's parameters."""
    made = parsed("{variables: {v: {values: [1], unit: K, label: warm}}, parameter_space: {a: [1]}}")
    assert [(each.name, each.path, each.unit, each.label) for each in made.parameters] == [
        ("v", (), "K", "warm"),
        ("a", ("a",), None, None),
    ]
    assert identity.dotted(made) == {"v": "", "a": "a"}


def test_configurations_have_no_variables() -> None:
    """Points that differ only in a variable are two points with the same configuration."""
    made = parsed("variables: {v: [1, {k: 2}]}")
    template = render.Template(made)
    one, other = space.points(made)
    assert (
        template.render(one.params, 1, "s") == template.render(other.params, 1, "s") == render.block(made.base).encode()
    )
    assert template.config(one.params, 1, "s") == made.base
    assert template.config_sha(one.params, 1) == template.config_sha(other.params, 1)
    assert len({each.digest for each in identity.points(made)}) == 2


def test_a_variable_of_an_earlier_version_is_in_no_configuration_either() -> None:
    """Points keep the parameters that they were recorded with."""
    template = render.Template(parsed("parameter_space: {b: [1]}"), {"v": "", "a": "a"})
    assert template.config({"v": 9, "a": 7, "b": 1}, 0, "s")["a"] == 7
    assert "v" not in template.config({"v": 9}, 0, "s")


def test_the_size_of_a_configuration_has_no_variables() -> None:
    """A long variable makes no start command longer, and isn't the largest parameter."""
    made = parsed(f"{{variables: {{v: [{'x' * 5000}]}}, parameter_space: {{list: [[{', '.join(['1'] * 100)}]]}}}}")
    assert largest.over(made, "x", 3000) is None
    problem = largest.over(made, "x", 800)
    assert problem is not None
    assert "its largest parameter is list" in problem.message
    only = largest.over(parsed(f"variables: {{v: [{'x' * 5000}]}}"), "x", 500)
    assert only is not None
    assert "largest parameter" not in only.message


def test_conditions_that_choose_jobs_use_variables() -> None:
    """By their names; a variable has no path."""
    job = where.Facts("failed", "simulation", 3, 1, 2, "n17")
    assert where.read("heat > 1", {"heat": "", "dose": "", "lr": "opt.lr"}).holds({"heat": 2}, {}, job)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("variables: {heat.x: [1]}", "bad_format", "'heat.x' has dots, and a variable is no path of the configuration"),
        ("variables: {f.g: [1]}", "bad_format", "write 'f_g', or vary the path in parameter_space"),
        ("variables: {'he at': [1]}", "bad_format", "'he at' is not a name"),
        ("variables: {and: [1]}", "bad_format", "not a keyword of expressions"),
        ("variables: {state: [1]}", "reserved_name", "did you mean state_value?"),
        ("variables: {a: [1]}", "duplicate", "the base configuration has another 'a'"),
        (
            "{variables: {n: [1]}, parameter_space: {a: {values: [1], as: n}}}",
            "duplicate",
            "stands for the variable 'n'",
        ),
        ("{allow_new_paths: true, variables: {n: [1]}, parameter_space: {n: [1]}}", "duplicate", "the variable 'n'"),
        ("{variables: {n: [1]}, runs: [{params_override: {n: 1}}]}", "unknown_path", "'n' is a variable, and runs set"),
        ("variables: {v: {values: [1], as: n}}", "unknown_key", "the name of a variable is its key"),
        ("variables: {v: {values: [1], replace: true}}", "unknown_key", "no part of the configuration"),
        ("variables: {v: 5}", "not_an_axis", "for a constant write {value: 5}"),
        ("variables: [v]", "wrong_type", "expected a mapping"),
        ("{variables: {v: {expr: w}, w: {expr: v}}}", "cycle", "v -> w -> v"),
        ("{variables: {v: {dist: uniform, low: 0}}, design: {samples: 2}}", "missing_key", "'high' is missing"),
    ],
)
def test_what_a_variable_must_not_be(text: str, code: str, message: str) -> None:
    """Its name is one word that means nothing else in the plan; it has the keys of an axis but those about paths."""
    [(found, said)] = refused(text)
    assert found == code
    assert message in said


def test_a_wrong_variable_is_reported_once() -> None:
    """Expressions may use it all the same."""
    assert [code for code, _ in refused("{variables: {v: 5, 'x y': [1]}, constraints: [v > 1]}")] == [
        "not_an_axis",
        "bad_format",
    ]


def test_extend_takes_more_values_of_a_variable() -> None:
    """A name keeps its meaning: a variable stays one."""
    assert edit(f"{{experiment_name: x, {DERIVED[1:]}", add={"heat": [3]})["variables"] == {"heat": [1, 2, 3]}
    assert not_extensible("variables: {v: [1], w: [1]}", "variables: {v: [1, 2], w: [1]}") == []
    new = "allow_new_paths: true, "
    path, variable = f"{{{new}parameter_space: {{v: [1]}}}}", f"{{{new}variables: {{v: [1]}}}}"
    assert not_extensible(path, variable) == ["variables.v"]
    assert not_extensible(variable, path) == ["parameter_space.v"]
