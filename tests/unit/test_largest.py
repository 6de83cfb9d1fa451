"""The largest start command of a plan, found without rendering every run; the rate of plans; trace context."""

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


def sizes(one: plan.Plan) -> list[int]:
    template = render.Template(one)
    return [
        len(template.render(p.params, one.seeds.of(p.index, 0), f"e-p{p.index:06d}-r000-a1")) for p in space.points(one)
    ]


@settings(deadline=None)
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.lists(VALUES, min_size=1, max_size=3, unique_by=json.dumps),
    st.integers(0, 3000),
)
def test_a_limit_is_exceeded_exactly_where_a_rendered_run_exceeds_it(
    overrides: list[object], axis: list[object], spare: int
) -> None:
    """The bounds never let a run through that is too large; and none is refused that fits with its envelope."""
    one = parsed(
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
    most = max(sizes(one))
    found = largest.over(one, "e", most - 1 + spare)
    if spare == 0:
        assert found is not None
    assert largest.over(one, "e", most + 600) is None


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
    """Also those whose values are worked out when they are asked for; the limit is met to the byte, but for names."""
    document = {
        "experiment_id": "e",
        "base_config": {"a": 0, "b": 0},
        "parameter_space": {"a": axis, "b": [1, 2, 1000]},
    }
    if "dist" in axis:
        document["design"] = {"sampler": "random", "samples": 40}
    one = parsed(document)
    most = max(sizes(one))
    envelope = 512
    assert largest.over(one, "e", most + envelope) is None
    assert largest.over(one, "e", most + envelope - 1) is not None


def test_a_plan_none_of_whose_runs_fits_is_refused_for_its_first_point() -> None:
    """What all of its runs have in common is too large already; within a larger limit, it is not."""
    large = parsed({"experiment_id": "e", "base_config": {"a": 0, "text": "x" * 500}, "parameter_space": {"a": [1, 2]}})
    assert largest.over(large, "e", 100_000) is None
    found = largest.over(large, "e", 100)
    assert found is not None
    assert found.code == "configuration_too_large"


def test_measured_values_are_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded; the answer is the same."""
    monkeypatch.setattr(largest, "MAX_CACHED", 2)
    runs = [{"params_override": {"b": "x" * n}} for n in range(3000, 3010)]
    one = parsed({"experiment_id": "e", "base_config": {"b": "y" * 900}, "runs": runs})
    assert largest.over(one, "e", max(sizes(one)) + 512) is None


def test_the_problem_names_the_point_and_its_largest_parameter() -> None:
    """Points that fit are passed over; a plan without parameters has only its base to blame."""
    runs = [{"params_override": {"a": 1}}, {"params_override": {"a": 2, "b": "x" * 9000}}]
    one = parsed({"experiment_id": "e", "base_config": {"a": 0, "b": ""}, "runs": runs})
    found = largest.over(one, "e", 5000)
    assert found is not None
    assert (found.code, found.path) == ("configuration_too_large", "b")
    assert "point 1" in found.message
    bare = parsed({"experiment_id": "e", "base_config": {"b": "x" * 9000}, "runs": [{}]})
    found = largest.over(bare, "e", 5000)
    assert found is not None
    assert found.path == ""


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
def test_only_what_is_a_trace_context_is_passed_on(text: str | None, passes: bool) -> None:
    """Anything else is dropped, whoever sent it."""
    assert trace.parent(text) == (text if passes else None)
