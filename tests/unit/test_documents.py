"""The documents that leave the worker have the right content, whatever they are made from."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ems_worker.core.documents import documents, results
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.tally import Bucket, Tally
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment, JobRow, NewExperiment, PlanDecision, PointRecord, PointRow
from ems_worker.errors import Problem

SPEC = NewExperiment(
    experiment_id="reef",
    name="Reef",
    plan=b"",
    base=b"{}",
    plan_sha="ab",
    points=2,
    jobs=4,
    replicates=2,
    created_ms=1_700_000_000_123,
    group="study",
    tags=("hot",),
    goal_metric="population",
    goal="maximize",
)
RECORD = Experiment(1, SPEC, ExperimentState.RUNNING, revision=7, started_ms=1_700_000_001_000)
POINT = PointRecord(3, {"food": 25, "genome": [0.5] * 2000}, "a", {"who": "me"})


def row(point: int, *values: float, ended: int | None = 1) -> PointRow:
    aggregate = Aggregate()
    for value in values:
        aggregate = aggregate.add(value)
    return PointRow(PointRecord(point, {"food": point}), {Bucket.COMPLETED: 1}, {"population": aggregate}, ended)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(milliseconds: int | None, text: str | None) -> None:
    """They have milliseconds; a missing time stays missing."""
    assert documents.timestamp(milliseconds) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_encoding_keeps_every_value(value: Any) -> None:
    """Every finite JSON value is read back equal, integers of any length included."""
    assert json.loads(documents.encode(value)) == value


def test_a_decision_names_the_problems_and_its_message() -> None:
    """A suggestion is there only if there is one, and a plan that was only validated has no submission."""
    problems = [Problem("unknown_key", "limit", "no such key", 3, 5, "limits"), Problem("too_many_jobs", "", "many")]
    rejected = documents.decision(PlanDecision.REJECTED, errors=problems, stream="EMS_PLANS", seq=9)
    assert rejected["submission"] == {"stream": "EMS_PLANS", "seq": 9}
    first, second = rejected["errors"]
    assert first == {
        "code": "unknown_key",
        "path": "limit",
        "line": 3,
        "column": 5,
        "message": "no such key",
        "suggestion": "limits",
    }
    assert "suggestion" not in second
    assert second["path"] == ""
    accepted = documents.decision(PlanDecision.ACCEPTED, experiment_id="reef", points=2, jobs=4, plan_sha="ab")
    assert (accepted["submission"], accepted["decision"], accepted["errors"]) == (None, "accepted", [])


@given(st.text(st.characters(), min_size=1).map(lambda text: text * 2000), st.sampled_from(["\ud800", "\x00", ""]))
def test_every_decision_fits_into_a_message(text: str, odd: str) -> None:
    """A hundred problems may quote text that UTF-8 can't hold or that JSON writes as six characters each."""
    problems = [Problem("bad", odd + text, odd * 5000 + text, 1, 1, text)] * 101
    assert len(documents.encode(documents.decision(PlanDecision.REJECTED, errors=problems))) < 1_500_000


def test_a_problem_of_usual_length_is_not_cut() -> None:
    """A message of a few lines is complete."""
    words = "x" * documents.MAX_MESSAGE
    assert documents.problem(Problem("bad", "a.b", words))["message"] == words


def test_an_unknown_aggregate_is_null() -> None:
    """So are the standard deviation of a single value and a number that overflows."""
    assert documents.aggregate(Aggregate(missing=2)) == {
        "n": 0,
        "mean": None,
        "std": None,
        "min": None,
        "max": None,
        "missing": 2,
    }
    one = documents.aggregate(Aggregate().add(3.0))
    assert (one["n"], one["mean"], one["std"], one["min"]) == (1, 3.0, None, 3.0)
    huge = documents.aggregate(Aggregate().add(1.7e308).add(-1.7e308).add(1.0))
    assert (huge["n"], huge["std"]) == (3, None)
    json.dumps(huge, allow_nan=False)


def test_long_parameter_values_are_replaced_by_their_digests() -> None:
    """This holds for values over four kilobytes of every type that can be long; short values are kept."""
    long: dict[str, Any] = {"text": "x" * 5000, "list": [1] * 5000, "map": {"a": "y" * 5000}}
    short = {"food": 25, "heat": 1.5, "none": None, "list": [1, 2]}
    found = documents.shortened({**short, **{f"long_{name}": value for name, value in long.items()}})
    for name, value in long.items():
        data = documents.encode(value)
        assert found[f"long_{name}"] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert {name: found[name] for name in short} == short


@pytest.mark.parametrize(
    ("samples", "remaining", "pace"),
    [
        ([], 5, (0.0, None)),
        ([(1.0, 3)], 0, (0.0, 0.0)),
        ([(1.0, 3), (1.0, 9)], 5, (0.0, None)),
        ([(1.0, 3), (3.0, 7)], 10, (2.0, 5.0)),
        ([(1.0, 3), (3.0, 7)], 0, (2.0, 0.0)),
        ([(1.0, 3), (3.0, 3)], 10, (0.0, None)),
        # A retry takes jobs back: only what follows counts.
        ([(1.0, 3), (2.0, 99), (3.0, 50)], 49, (0.0, None)),
        ([(1.0, 3), (2.0, 99), (3.0, 50), (4.0, 54)], 8, (4.0, 2.0)),
        ([(1.0, 99), (2.0, 50), (3.0, 99), (4.0, 60), (5.0, 61)], 3, (1.0, 3.0)),
        ([(1.0, 99), (2.0, 50)], 0, (0.0, 0.0)),
    ],
)
def test_the_pace_is_that_of_the_recent_past(
    samples: list[tuple[float, int]], remaining: int, pace: tuple[float, float | None]
) -> None:
    """It is never negative, and the remaining time is None if it is unknown."""
    assert documents.pace(samples, remaining) == documents.Pace(*pace)


def test_a_status_counts_every_job_once() -> None:
    """Jobs are counted by bucket, and those that aren't expanded yet as pending."""
    tally = Tally(4, {Bucket.COMPLETED: 1, Bucket.RUNNING: 1}, {"population": Aggregate().add(2.0)})
    status = documents.status(
        RECORD, tally, worker_id="w", now_ms=1_700_000_002_000, pace=documents.Pace(1.23456, 2.46), best=row(1, 2.0)
    )
    assert (status["schema"], status["revision"], status["state"]) == ("ems.status.v1", 7, "running")
    assert sum(status["counts"].values()) == status["total"] == 4
    assert status["counts"]["pending"] == 2
    assert (status["progress"], status["throughput"], status["eta_seconds"]) == (0.25, 1.235, 2.5)
    assert (status["created_at"], status["finished_at"]) == ("2023-11-14T22:13:20.123Z", None)
    assert status["best"]["point"] == 1
    assert (status["group"], status["tags"], status["reason"]) == ("study", ["hot"], None)


def test_a_status_has_the_reason() -> None:
    """The reason is the text that it is given."""
    plain = documents.status(RECORD, Tally(0), worker_id="w", now_ms=0, pace=documents.Pace(), reason="paused: x")
    assert (plain["reason"], plain["progress"], plain["best"]) == ("paused: x", 1.0, None)


def test_the_best_point_needs_a_goal_and_a_value() -> None:
    """Without a goal, or without a value of its metric, there is no best point."""
    best = documents.best_point(RECORD, row(3, 2.0, 4.0))
    assert best is not None
    assert (best["point"], best["mean"], best["n"], best["goal"]) == (3, 3.0, 2, "maximize")
    assert documents.best_point(RECORD, row(3)) is None
    assert documents.best_point(replace(RECORD, spec=replace(SPEC, goal_metric=None)), row(3, 1.0)) is None
    assert documents.best_point(replace(RECORD, spec=replace(SPEC, goal_metric="other")), row(3, 1.0)) is None


def test_the_better_point_has_the_better_mean() -> None:
    """The earlier of equal points wins, a point without a value loses, and a point replaces itself."""
    low, high, also_high = row(1, 1.0), row(2, 5.0), row(3, 5.0)
    assert documents.better("maximize", "population", low, high) is high
    assert documents.better("minimize", "population", low, high) is low
    assert documents.better("maximize", "population", high, low) is high
    assert documents.better("maximize", "population", high, also_high) is high
    assert documents.better("maximize", "population", also_high, high) is high
    assert documents.better("maximize", "population", None, low) is low
    assert documents.better("maximize", "population", high, row(4)) is high
    assert documents.better("maximize", "other", None, high) is None
    assert documents.better(None, None, None, high) is None
    again = row(2, 0.5)
    assert documents.better("maximize", "population", high, again) is again


def test_a_point_has_every_count() -> None:
    """Its revision is the position of its last end, and 0 while a job is open."""
    ended = documents.point("reef", row(1, 2.0, ended=9))
    assert (ended["schema"], ended["ended"], ended["revision"]) == ("ems.point.v1", True, 9)
    assert set(ended["counts"]) == {bucket.value for bucket in Bucket}
    assert ended["counts"]["completed"] == 1
    still_open = documents.point("reef", row(1, ended=None))
    assert (still_open["ended"], still_open["revision"]) == (False, 0)


RUN = Run(3, 1, 2, seed=42, state=RunState.COMPLETED, metrics={"population": 1.0}, finished_ms=5, job_revision=1)


def test_a_result_is_the_job_by_its_current_run() -> None:
    """Long parameters are shortened unless the result is to be whole."""
    result = results.result("reef", JobRow(POINT, replace(RUN, artifacts={"csv": "file:///a"}, ended_seq=4)))
    assert result["simulation_id"] == "reef-p000003-r001-a2"
    assert (result["state"], result["seed"], result["seq"], result["error"]) == ("completed", 42, 4, None)
    assert set(result["params"]["genome"]) == {"sha256", "bytes"}
    assert (result["run_id_suffix"], result["labels"]) == ("a", {"who": "me"})
    whole = results.result("reef", JobRow(POINT, RUN), whole=True)
    assert whole["params"]["genome"] == [0.5] * 2000


@pytest.mark.parametrize(
    ("changes", "state", "error"),
    [
        ({"state": RunState.FAILED, "error_kind": ErrorKind.SIMULATION}, "failed", ("simulation", None)),
        ({"state": RunState.FAILED, "error_message": "no fish"}, "failed", (None, "no fish")),
        ({"state": RunState.FAILED, "error_kind": ErrorKind.INFEASIBLE}, "failed", ("infeasible", None)),
        ({"state": RunState.LOST, "error_kind": ErrorKind.LOST, "error_message": "x"}, "lost", ("lost", "x")),
    ],
)
def test_a_result_has_the_kind_and_message_of_a_failure(
    changes: dict[str, Any], state: str, error: tuple[str | None, str | None]
) -> None:
    """Either may be missing."""
    result = results.result("reef", JobRow(POINT, replace(RUN, metrics=None, **changes)))
    assert (result["state"], result["metrics"]) == (state, None)
    assert result["error"] == {"kind": error[0], "message": error[1]}


def test_a_job_without_its_awaited_metrics_has_failed() -> None:
    """It has failed although its run completed."""
    result = results.result("reef", JobRow(POINT, replace(RUN, waiting=Waiting.MISSING)))
    assert (result["state"], result["error"]["kind"]) == ("failed", "metrics_missing")


def test_a_line_is_flat() -> None:
    """Every value has a column of its own, and the error has two."""
    row = JobRow(POINT, replace(RUN, artifacts={"csv": "file:///a"}))
    line = results.line(results.result("reef", row))
    assert (line["param.food"], line["metric.population"], line["label.who"]) == (25, 1.0, "me")
    assert (line["artifact.csv"], line["error_kind"], line["error_message"]) == ("file:///a", None, None)
    assert not {"params", "metrics", "labels", "artifacts", "error", "schema"} & set(line)
    failed = replace(RUN, state=RunState.FAILED, metrics=None, error_kind=ErrorKind.TIMEOUT, error_message="late")
    line = results.line(results.result("reef", JobRow(POINT, failed)))
    assert (line["error_kind"], line["error_message"]) == ("timeout", "late")
