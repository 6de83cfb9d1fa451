"""Names in expressions: those with hyphens, and what is said of names that are unknown."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import plan, space
from tests.support import steps

JSON = canonical.JSON
BASE: dict[str, JSON] = {
    "fish": {"kind": "cod", "max-speed": 3, "tail-fin": {"length": 0.5}},
    "fish-count": 10,
    "fish-count-max": 20,
    "count": 4,
    "n": 1,
}


def points(axes: str, more: str = "", base: dict[str, JSON] = BASE) -> list[dict[str, JSON]]:
    """The parameters of the points of a plan with these axes."""
    document = yaml_reader.read_plan(f"{{parameter_space: {{{axes}}}{more}}}".encode())
    made = plan.parse({"experiment_name": "x", **document.data}, base)
    return [point.params for point in space.points(made)]


def refused(constraint: str, axes: str = "n: [1, 2]") -> list[tuple[str, str]]:
    """The code and message of each problem of a plan with this constraint."""
    with pytest.raises(errors.PlanRejected) as rejected:
        points(axes, f", constraints: [{canonical.text(constraint)}]")
    return [(problem.code, problem.message) for problem in rejected.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fish-count * n", 10),
        ("2*fish-count", 20),
        ("fish-count-max", 20),
        ("fish-count - max(n, 2)", 8),
        ("fish-count-max(n, 2)", 8),
        ("fish-count-2", 8),
        ("fish-count-n", 9),
        ("n-fish-count", -9),
        ("n-fish.max-speed", -2),
        ("count-n-1", 2),
        ("count - n", 3),
        ("fish.tail-fin.length*2", 1.0),
        ("'fish-count-max' if n-1 == 0 else 'a-b'", "fish-count-max"),
        ("n if false else-n", -1),
    ],
)
def test_the_longest_known_name_wins(text: str, value: object) -> None:
    """A hyphen is a minus sign where no name goes on."""
    assert points(f"n: [1], count: {{value: 4}}, fish.kind: {{expr: {canonical.text(text)}}}")[0]["fish.kind"] == value


def test_names_with_hyphens_are_those_of_axes_runs_and_the_base_configuration() -> None:
    """New paths are among them."""
    more = ", allow_new_paths: true, runs: [{params_override: {new-run: 5}}], constraints: [new-axis < new-run-1]"
    axes = "new-axis: [2, 3, 4], n: {expr: fish-count-new-axis}"
    assert points(axes, more) == [{"new-run": 5, "new-axis": value, "n": 10 - value} for value in (2, 3)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fish-cuont > 1", "'fish-cuont' is neither"),
        ("fish-cuont > 2", "in the base configuration; did you mean fish-count?"),
        ("fosh-cuont > 2", "'fosh-cuont' is neither"),
        ("fish.kind == cod", "; if it is a text, put it in quotes: 'cod'"),
        ("herring != fish.kind", "; if it is a text, put it in quotes: 'herring'"),
        ("fish.kind == ('cod' if n > 1 else herring)", "; if it is a text, put it in quotes: 'herring'"),
        ("herring in fish.kind", "; if it is a text, put it in quotes: 'herring'"),
        ("n < 2 * pi", "; write its digits, 3.141592653589793"),
        ("e ** n > 3", "; write exp(1)"),
        ("mm == 2 or 1 < mm", "'mm' is neither a parameter nor in the base configuration"),
        ("n-x > 1", "'x' is neither a parameter nor in the base configuration"),
    ],
)
def test_an_unknown_name_has_a_remedy(text: str, problem: str) -> None:
    """A text without quotes, a constant, a misspelt name with a hyphen."""
    [(code, message)] = refused(text)
    assert code == "unknown_name"
    assert problem in message
    assert ("quotes" in message) == ("quotes" in problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pow(n, 2) > 1", "there is no function 'pow': write powers with **"),
        ("ln(n) > 1", "there is no function 'ln': the natural logarithm is log"),
        ("fish.kind in [cod, pike]", "a list contains numbers and texts, not expressions; put texts in quotes"),
        ("n in [1 + 1]", "a list contains numbers and texts, not expressions"),
    ],
)
def test_what_other_languages_write_has_a_remedy(text: str, message: str) -> None:
    """As `^` and `&` have."""
    assert refused(text) == [("bad_expression", f"{text!r}: {message}")]


def test_a_plan_has_a_limited_number_of_hyphens_between_names() -> None:
    """Each may be the end of several names, which are looked for in the base configuration."""
    deep: dict[str, JSON] = {"a": {"b": {"c": {"d-e": 1, "d": 2}}}}
    names = {f"p{number}": 0 for number in range(100)}
    hyphens = "-".join(["a.b.c.d"] * 31)
    axes = ", ".join(f"{name}: {{expr: {hyphens} + {name[1:]}}}" for name in names)

    def attempt() -> None:
        with pytest.raises(errors.PlanRejected, match="put spaces around those that are minus signs"):
            points(axes, base={**names, **deep})

    assert steps.of(attempt) < 4_000_000
    assert points(axes.replace("-", " - "), base={**names, **deep})[0]["p1"] == 2 - 30 * 2 + 1


def test_all_unknown_names_are_reported_without_a_search_when_there_are_many() -> None:
    """Only the first problems are shown."""
    names = ", ".join(f"'x{number} > y-z{number}'" for number in range(100))
    with pytest.raises(errors.PlanRejected) as rejected:
        points("n: [1]", f", constraints: [{names}]")
    assert rejected.value.problems[-1].code == "too_many_problems"
