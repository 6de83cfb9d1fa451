"""The invalid plans in tests/plans/invalid, each with its expected problems beside it."""

import pathlib

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import plan

PLANS = pathlib.Path(__file__).parents[1] / "plans"
INVALID = sorted(path for path in (PLANS / "invalid").iterdir() if path.suffix != ".expected")
BASE = yaml_reader.read_base((PLANS / "base.yaml").read_bytes()).data


def problems(data: bytes, base: dict[str, canonical.JSON] = BASE) -> tuple[errors.Problem, ...]:
    """The problems of a plan, as `ems validate` and the intake report them."""
    try:
        document = yaml_reader.read_plan(data)
    except errors.PlanRejected as rejected:
        return rejected.problems
    reference = plan.base_reference(document.data)
    with pytest.raises(errors.PlanRejected) as refused:
        plan.parse(document.data, None if reference is None else base)
    return yaml_reader.with_positions(refused.value.problems, document)


def test_there_are_at_least_150_invalid_plans() -> None:
    """Each of them has a file with its expected problems."""
    assert len(INVALID) >= 150
    assert all(path.with_name(f"{path.name}.expected").exists() for path in INVALID)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.name)
def test_an_invalid_plan_has_the_expected_problems(path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    """All problems are reported with code, line and column, in the order of the text, and with a short message."""
    if path.stem == "too_many_tried":
        request.getfixturevalue("untraced")  # a million tries take seconds with coverage
    reported = problems(path.read_bytes())
    expected = path.with_name(f"{path.name}.expected").read_text().splitlines()
    assert [f"{problem.code} {problem.line} {problem.column}" for problem in reported] == expected
    for problem in reported:
        assert 10 < len(problem.message) < 400
        assert str(problem).startswith(f"line {problem.line}, column {problem.column}: ")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("path_typo", "fish.count"), ("path_typo_nested", "fish.count"), ("path_parent_typo", "fish.count"),
        ("path_elsewhere", "env.temp"), ("path_homoglyph", "fish.count"), ("path_list_range", "species.1.speed"),
        ("path_far", None), ("unknown_key", "num_replicates_per_run"), ("homoglyph_key", "parameter_space"),
        ("unknown_key_far", None), ("seeds_policy", "common"), ("metrics_goal", "maximize"), ("axis_key", "values"),
        ("expr_unknown", "fish.count"), ("when_unknown", "shark.present"), ("expr_function", "sqrt"),
        ("zip_unknown", "fish.speed"), ("runs_path", "fish.count"), ("limits_retry_word", "timeout"),
        ("settle_key", "quorum"), ("axis_as_reserved", "fish_count"),
    ],
)  # fmt: skip
def test_a_misspelt_name_gets_a_suggestion(name: str, nearest: str | None) -> None:
    """The suggestion is the most similar key, path or choice; a name that is similar to none gets no suggestion."""
    problem = problems((PLANS / "invalid" / f"{name}.yaml").read_bytes())[0]
    assert problem.suggestion == nearest
    assert nearest is None or problem.message.endswith(f"; did you mean {nearest}?")
