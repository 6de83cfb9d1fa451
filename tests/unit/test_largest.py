"""The size of the largest start command of a plan, and the trace context of a plan."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems_worker.core import trace
from ems_worker.core.points import largest, plan, render, space

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=60),
    st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=40),
    st.dictionaries(st.text("abcdé \n", min_size=1, max_size=5), st.lists(st.text(max_size=9), max_size=4), max_size=3),
)


def parsed(document: object) -> plan.Plan:
    data = json.loads(json.dumps(document))
    return plan.parse(data)


def sizes(made: plan.Plan) -> list[int]:
    """The size of the rendered configuration of each point."""
    template = render.Template(made)
    return [
        len(template.render(point.params, made.seeds.of(point.index, 0), f"e-p{point.index:06d}-r000-a1"))
        for point in space.points(made)
    ]


@settings(deadline=None)
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.lists(VALUES, min_size=1, max_size=3, unique_by=json.dumps),
    st.integers(0, 3000),
)
def test_a_plan_exceeds_a_limit_only_if_a_rendered_run_does(
    overrides: list[object], axis: list[object], spare: int
) -> None:
    """No run that is too large is accepted, and no run is refused that fits together with its envelope."""
    made = parsed(
        {
            "experiment_id": "e",
            "allow_new_paths": True,
            "base_config": {"a": {"b": "one", "c": "word"}, "d": 0},
            "runs": [{"params_override": {"a.b": value}, "labels": {"k": "v"}} for value in overrides],
            "parameter_space": {"a.c": {"values": axis}, "d": {"value": 1}, "far.off": [1, 2]},
            "inject": {"seed": "run.seed", "simulation_id": "run.id"},
            "num_replicates_per_run": 2,
        }
    )
    size = max(sizes(made))
    if spare == 0:
        assert largest.over(made, "e", size - 1) is not None
    assert largest.over(made, "e", size + 600) is None


@pytest.mark.parametrize(
    "axis",
    [
        {"range": {"start": 1, "stop": 99, "num": 50}},
        {"range": {"start": 0.5, "stop": 9, "step": 0.25}},
        {"logrange": {"start": 1, "stop": 1e9, "num": 30}},
        {"dist": "uniform", "low": -1e-9, "high": 1},
        {"dist": "choice", "values": ["a", "b" * 500]},
        {"expr": "b * 3"},
    ],
)
def test_every_kind_of_axis_is_measured(axis: dict[str, object]) -> None:
    """The measured size is exact to the byte, also if the values of the axis are computed on access."""
    document = {
        "experiment_id": "e",
        "base_config": {"a": 0, "b": 0},
        "parameter_space": {"a": axis, "b": [1, 2, 1000]},
    }
    if "dist" in axis:
        document["design"] = {"sampler": "random", "samples": 40}
    made = parsed(document)
    size = max(sizes(made))
    envelope = 512
    assert largest.over(made, "e", size + envelope) is None
    assert largest.over(made, "e", size + envelope - 1) is not None


def test_a_plan_none_of_whose_runs_fits_is_refused_for_its_first_point() -> None:
    """What all of its runs have in common is too large already; within a larger limit, it is not."""
    large = parsed({"experiment_id": "e", "base_config": {"a": 0, "text": "x" * 500}, "parameter_space": {"a": [1, 2]}})
    assert largest.over(large, "e", 100_000) is None
    found = largest.over(large, "e", 100)
    assert found is not None
    assert found.code == "configuration_too_large"


def test_the_cache_of_sizes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropping cached sizes doesn't change the result."""
    monkeypatch.setattr(largest, "MAX_CACHED", 2)
    runs = [{"params_override": {"b": "x" * n}} for n in range(3000, 3010)]
    made = parsed({"experiment_id": "e", "base_config": {"b": "y" * 900}, "runs": runs})
    assert largest.over(made, "e", max(sizes(made)) + 512) is None


def test_the_problem_names_the_point_and_its_largest_parameter() -> None:
    """If the plan has no parameters, the problem has no path."""
    runs = [{"params_override": {"a": 1}}, {"params_override": {"a": 2, "b": "x" * 9000}}]
    made = parsed({"experiment_id": "e", "base_config": {"a": 0, "b": ""}, "runs": runs})
    problem = largest.over(made, "e", 5000)
    assert problem is not None
    assert (problem.code, problem.path) == ("configuration_too_large", "b")
    assert "point 1" in problem.message
    bare = parsed({"experiment_id": "e", "base_config": {"b": "x" * 9000}, "runs": [{}]})
    problem = largest.over(bare, "e", 5000)
    assert problem is not None
    assert problem.path == ""


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01\r\n", False),
        (None, False),
    ],
)
def test_only_a_valid_trace_context_is_passed_on(text: str | None, passes: bool) -> None:
    """Any other value is dropped."""
    assert trace.parent(text) == (text if passes else None)
