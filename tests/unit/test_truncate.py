"""Documents that are too large for a message are shortened, say so, and keep their identity."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.documents import documents, results, truncate
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.tally import Bucket, Tally
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment, JobRow, NewExperiment, PlanDecision, PointRecord, PointRow
from ems_worker.errors import Problem
from tests.support import schema_checks

MEGABYTE = 1_048_576


def result(params: dict[str, Any], **run: Any) -> bytes:
    """A result as it would be published."""
    one = Run(0, 0, 1, 7, state=RunState.COMPLETED, job_revision=1, ended_seq=1, **run)
    return documents.encode(results.result("wide", JobRow(PointRecord(0, params, "a", {"who": "me"}), one)))


def shortened(data: bytes, most: int) -> dict[str, Any]:
    """The shortened document, which fits and conforms to its schema."""
    short = truncate.truncated(data, most)
    assert short is not None
    assert len(short) <= most
    found: dict[str, Any] = json.loads(short)
    schema_checks.check(found)
    return found


def test_a_document_that_fits_is_unchanged() -> None:
    """It is the same byte for byte, without a mark."""
    data = result({"food": 1})
    assert truncate.truncated(data, len(data)) is data


def test_many_short_values_are_replaced_by_their_digests() -> None:
    """Three hundred values just under 4 KB are replaced; numbers, existing digests and other fields are kept."""
    wide = {f"p{i}": "x" * 3900 for i in range(300)} | {"food": 25, "genome": [0.5] * 9000}
    whole = json.loads(data := result(wide, metrics={"population": 3.0}))
    assert len(data) > MEGABYTE
    short = shortened(data, MEGABYTE)
    encoded = documents.encode("x" * 3900)
    digest = {"sha256": hashlib.sha256(encoded).hexdigest(), "bytes": len(encoded)}
    assert short["params"] == {f"p{i}": digest for i in range(300)} | {"food": 25, "genome": whole["params"]["genome"]}
    assert short.pop(truncate.MARK) == ["params"]
    assert short | {"params": whole["params"]} == whole


def test_the_longest_field_loses_its_last_entries() -> None:
    """The shorter metrics stay complete, and as many artifacts are kept as there is room for."""
    artifacts = {f"a{i:03d}": "u" * 2000 for i in range(200)}
    metrics = {f"m{i}": float(i) for i in range(1000)}
    short = shortened(result({"food": 25}, metrics=metrics, artifacts=artifacts), 300_000)
    assert short["metrics"] == metrics
    kept = len(short["artifacts"])
    assert short["artifacts"] == dict(list(artifacts.items())[:kept])
    assert 135 <= kept < 145
    assert short[truncate.MARK] == ["artifacts"]


def test_the_message_of_an_error_is_cut() -> None:
    """The kind of the error is kept."""
    words = "ü" * 4000
    one = Run(0, 0, 1, 7, RunState.FAILED, error_kind=ErrorKind.SIMULATION, error_message=words)
    short = shortened(documents.encode(results.result("wide", JobRow(PointRecord(0, {}), one))), 3000)
    assert short["error"]["kind"] == "simulation"
    assert short["error"]["message"].startswith("üüü")
    assert short["error"]["message"].endswith("ü…")
    assert short[truncate.MARK] == ["error.message"]


def test_a_status_keeps_its_state_and_counts() -> None:
    """Only the parameters of its best point are shortened."""
    aggregate = Aggregate().add(1.0)
    spec = NewExperiment("wide", "Wide", b"", b"", "ab", 1, 1, 1, 1000, goal_metric="population", goal="maximize")
    record = Experiment(1, spec, ExperimentState.COMPLETED, revision=3, started_ms=1, finished_ms=2)
    best = PointRow(PointRecord(0, {f"p{i}": "x" * 3900 for i in range(300)}), {}, {"population": aggregate}, 1)
    tally = Tally(1, {Bucket.COMPLETED: 1}, {"population": aggregate})
    whole = documents.status(record, tally, worker_id="w", now_ms=3, pace=documents.Pace(), best=best)
    short = shortened(documents.encode(whole), MEGABYTE)
    assert short["best"]["params"]["p0"]["bytes"] == 3902
    assert short[truncate.MARK] == ["best.params"]
    assert {name: short[name] for name in ("state", "revision", "counts", "metrics")} == {
        name: json.loads(documents.encode(whole))[name] for name in ("state", "revision", "counts", "metrics")
    }


def test_a_decision_keeps_the_first_of_its_errors() -> None:
    """It has as many errors as there is room for."""
    problems = [Problem("bad", f"a.{i}", "\x01" * 1000, 1, 1) for i in range(101)]
    short = shortened(
        documents.encode(documents.decision(PlanDecision.REJECTED, errors=problems, stream="S", seq=1)), 100_000
    )
    assert [one["path"] for one in short["errors"]] == [f"a.{i}" for i in range(len(short["errors"]))]
    assert 10 < len(short["errors"]) < 17
    assert short["submission"] == {"stream": "S", "seq": 1}


@given(
    st.dictionaries(st.text(max_size=9), st.none() | st.integers() | st.text(max_size=400), max_size=30),
    st.dictionaries(st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False), max_size=30),
    st.dictionaries(st.text(max_size=9), st.text(max_size=200), max_size=30),
    st.integers(900, 3000),
)
def test_any_result_can_be_shortened_to_a_kilobyte(
    params: dict[str, Any], metrics: dict[str, float | None], artifacts: dict[str, str], most: int
) -> None:
    """Each field of which something is missing is named, and the identity of the job is kept."""
    data = result(params, metrics=metrics, artifacts=artifacts)
    short, whole = shortened(data, most), json.loads(data)
    changed = {name for name in whole if short[name] != whole[name]}
    assert changed <= set(short.get(truncate.MARK, []))
    assert {"schema", "experiment_id", "simulation_id", "state", "seq", "job_revision"} & changed == set()


@pytest.mark.parametrize("data", [b"x" * 50, b"[" + b"1," * 50 + b"1]", b"\xff" * 50, result({"food": 1})])
def test_a_document_that_cannot_be_shortened_gives_none(data: bytes) -> None:
    """It isn't a JSON object, or its fields of limited size alone are too large."""
    assert truncate.truncated(data, 20) is None


def test_many_parameters_of_few_bytes_are_cut() -> None:
    """Their digests would be longer, so the last parameters are dropped; the mark names the field once."""
    short = shortened(result({f"p{i}": i for i in range(2000)} | {"long": "x" * 3000}), 5000)
    assert short["params"] == {f"p{i}": i for i in range(len(short["params"]))}
    assert len(short["params"]) > 300
    assert short[truncate.MARK] == ["params"]
