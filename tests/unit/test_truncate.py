"""Documents that are too large for a message are brought to a size that fits, say so, and keep what they are about."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.documents import documents, results, truncate
from ems_worker.core.lifecycle.experiment import Aggregate, Bucket, ExperimentState, Tally
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment, JobRow, NewExperiment, PlanDecision, PointRecord, PointRow
from ems_worker.errors import Problem
from tests.support import schema_checks

MEGABYTE = 1_048_576


def result(params: dict[str, Any], **run: Any) -> bytes:
    """A result as it would be published."""
    one = Run(0, 0, 1, 7, state=RunState.COMPLETED, job_revision=1, ended_seq=1, **run)
    return documents.encode(results.result("wide", JobRow(PointRecord(0, params, "a", {"who": "me"}), one)))


def fitted(data: bytes, most: int) -> dict[str, Any]:
    """The document that comes out, which is what its schema says."""
    short = truncate.truncated(data, most)
    assert short is not None
    assert len(short) <= most
    found: dict[str, Any] = json.loads(short)
    schema_checks.check(found)
    return found


def test_what_fits_goes_as_it_is() -> None:
    """Byte for byte, without a mark."""
    data = result({"food": 1})
    assert truncate.truncated(data, len(data)) is data


def test_many_values_that_are_short_alone_leave_as_their_digests() -> None:
    """Three hundred of just under 4 KB. Numbers stay, and digests of longer values, and all that is no parameter."""
    wide = {f"p{i}": "x" * 3900 for i in range(300)} | {"food": 25, "genome": [0.5] * 9000}
    whole = json.loads(data := result(wide, metrics={"population": 3.0}))
    assert len(data) > MEGABYTE
    short = fitted(data, MEGABYTE)
    encoded = documents.encode("x" * 3900)
    digest = {"sha256": hashlib.sha256(encoded).hexdigest(), "bytes": len(encoded)}
    assert short["params"] == {f"p{i}": digest for i in range(300)} | {"food": 25, "genome": whole["params"]["genome"]}
    assert short.pop(truncate.MARK) == ["params"]
    assert short | {"params": whole["params"]} == whole


def test_what_is_longest_loses_its_end() -> None:
    """Artifacts here; the metrics, which are shorter, stay whole, and of the artifacts as many as there is room for."""
    artifacts = {f"a{i:03d}": "u" * 2000 for i in range(200)}
    metrics = {f"m{i}": float(i) for i in range(1000)}
    short = fitted(result({"food": 25}, metrics=metrics, artifacts=artifacts), 300_000)
    assert short["metrics"] == metrics
    kept = len(short["artifacts"])
    assert short["artifacts"] == dict(list(artifacts.items())[:kept])
    assert 135 <= kept < 145
    assert short[truncate.MARK] == ["artifacts"]


def test_an_error_is_cut_as_a_text() -> None:
    """Its kind stays."""
    words = "ü" * 4000
    one = Run(0, 0, 1, 7, RunState.FAILED, error_kind=ErrorKind.SIMULATION, error_message=words)
    short = fitted(documents.encode(results.result("wide", JobRow(PointRecord(0, {}), one))), 3000)
    assert short["error"]["kind"] == "simulation"
    assert short["error"]["message"].startswith("üüü")
    assert short["error"]["message"].endswith("ü…")
    assert short[truncate.MARK] == ["error.message"]


def test_a_status_keeps_its_state_and_counts() -> None:
    """The parameters of the best point are what may be long in it."""
    aggregate = Aggregate().add(1.0)
    spec = NewExperiment("wide", "Wide", b"", b"", "ab", 1, 1, 1, 1000, goal_metric="population", goal="maximize")
    record = Experiment(1, spec, ExperimentState.COMPLETED, revision=3, started_ms=1, finished_ms=2)
    best = PointRow(PointRecord(0, {f"p{i}": "x" * 3900 for i in range(300)}), {}, {"population": aggregate}, 1)
    tally = Tally(1, {Bucket.COMPLETED: 1}, {"population": aggregate})
    whole = documents.status(record, tally, worker_id="w", now_ms=3, pace=documents.Pace(), best=best)
    short = fitted(documents.encode(whole), MEGABYTE)
    assert short["best"]["params"]["p0"]["bytes"] == 3902
    assert short[truncate.MARK] == ["best.params"]
    assert {name: short[name] for name in ("state", "revision", "counts", "metrics")} == {
        name: json.loads(documents.encode(whole))[name] for name in ("state", "revision", "counts", "metrics")
    }


def test_a_decision_tells_the_first_of_its_errors() -> None:
    """As many as there is room for."""
    problems = [Problem("bad", f"a.{i}", "\x01" * 1000, 1, 1) for i in range(101)]
    short = fitted(
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
def test_any_result_fits_and_is_a_result(
    params: dict[str, Any], metrics: dict[str, float | None], artifacts: dict[str, str], most: int
) -> None:
    """Whatever is in it, down to a kilobyte; each field of which something is missing is named."""
    data = result(params, metrics=metrics, artifacts=artifacts)
    short, whole = fitted(data, most), json.loads(data)
    changed = {name for name in whole if short[name] != whole[name]}
    assert changed <= set(short.get(truncate.MARK, []))
    assert {"schema", "experiment_id", "simulation_id", "state", "seq", "job_revision"} & changed == set()


@pytest.mark.parametrize("data", [b"x" * 50, b"[" + b"1," * 50 + b"1]", b"\xff" * 50, result({"food": 1})])
def test_what_can_not_be_brought_to_a_size_is_said_to_be_so(data: bytes) -> None:
    """No document, or one whose bounded fields alone are too much."""
    assert truncate.truncated(data, 20) is None


def test_parameters_that_are_many_and_short_are_cut_too() -> None:
    """Digests would be longer than they are; the mark names them once, also where there were digests before."""
    short = fitted(result({f"p{i}": i for i in range(2000)} | {"long": "x" * 3000}), 5000)
    assert short["params"] == {f"p{i}": i for i in range(len(short["params"]))}
    assert len(short["params"]) > 300
    assert short[truncate.MARK] == ["params"]
